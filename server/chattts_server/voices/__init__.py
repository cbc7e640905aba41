"""Voices: who speaks. Names and strings to what the engine needs; the folder in which names are kept."""
