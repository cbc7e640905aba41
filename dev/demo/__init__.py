"""`make demo`: the whole chain once, on a real Kubernetes."""
