"""Our engine against ChatTTS as shipped and against a batcher around it: same weights, same machine, one run."""
