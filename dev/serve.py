"""`make serve`: only the server, on this machine's CPU, with a curl line to try."""

import argparse
import os
import sys
from pathlib import Path

from dev.demo import install


def main() -> None:
    """Make a random checkpoint where no weights are given, print how to try it, become the server."""
    parser = argparse.ArgumentParser(prog="make serve", description=__doc__)
    parser.add_argument("--model", type=Path, help="folder with the released weights; default: random weights (noise)")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    Path("out").mkdir(exist_ok=True)
    model = install.checkpoint(Path("out"), arguments.model)
    noise = "" if arguments.model else "  (random weights: the sound is noise)"
    print(f"serving {model} on the CPU{noise}; in another terminal:\n")
    url = f"http://127.0.0.1:{arguments.port}/v1/audio/speech"
    body = '{"model":"chattts","input":"今天天气很好","voice":"default","response_format":"wav"}'
    print(f"  curl -s {url} -H 'Content-Type: application/json' \\\n    -d '{body}' -o out/hello.wav\n")
    print(f"or open http://127.0.0.1:{arguments.port}/ in a browser\n", flush=True)
    command = [
        "-m",
        "chattts_server",
        "serve",
        "--model",
        str(model),
        "--device",
        "cpu",
        "--host",
        "127.0.0.1",
        "--port",
        str(arguments.port),
    ]
    os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
    main()
