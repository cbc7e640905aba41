"""The engine: text tokens in, PCM out. Only here may torch be imported; the HTTP side imports no such module."""
