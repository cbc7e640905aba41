"""A whole server process whose engine hums: for signals and exit codes. Flags go to fake_engine.py."""

import os
import sys

from chattts_server import logs
from chattts_server.config import read_settings
from chattts_server.serve import serve
from tests.server.harness import fake_command

if __name__ == "__main__":
    settings = read_settings(os.environ)
    logs.set_up(settings.log_format)
    sys.exit(serve(settings, fake_command(*sys.argv[1:])))
