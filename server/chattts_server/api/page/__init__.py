"""The page at /: what is here is served as it is; there is no build step."""
