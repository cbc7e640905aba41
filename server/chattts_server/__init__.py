"""ChatTTS speech over HTTP: a batched server. Knows nothing of Kubernetes."""

__version__ = "0.1.0"
