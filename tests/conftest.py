"""For all tests: hypothesis measures properties, not a busy machine's speed; torch's threads sleep while they wait."""

import os

from hypothesis import settings

from chattts_server.engine.threads import SPINS

os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # before torch is imported: two workers share two cores

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
