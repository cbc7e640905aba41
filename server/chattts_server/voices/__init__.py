"""Voices: names to speaker embeddings."""
