"""Pure builders: a spec goes in, the full intent for one child comes out. No clock, no API, no reading."""
