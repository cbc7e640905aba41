"""The operator: turns TTSService objects into GPU Deployments and keeps their latency promise."""

__version__ = "0.1.0"
