"""Our engine against ChatTTS as shipped and against a batcher around it: same weights, same machine, one run."""

import os

from chattts_server.engine.threads import cpu_threads, thread_environment

# Before torch is imported, for all arms: as a server's engine has it.
os.environ.update(thread_environment(cpu_threads()))
