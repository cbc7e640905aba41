"""The one process of a node that lives on the host: starts the node, waits for its end, removes its cgroups.

It ends the node when it is told so (SIGTERM, SIGINT) and when its leash, a pipe to the process that started it, closes
before the word KEEP came: whatever happens to `up`, no half of a node is left. If the guard itself is killed, the
kernel kills the node (parent death signal); only empty cgroups stay, which the next `up` or `down` removes.
Arguments: state folder, leash's number, binaries as JSON.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from dev.cluster import cgroups, locks, pki
from dev.cluster.components import API_PORT, KEEP, STATE
from dev.cluster.paths import REPOSITORY, Cache, State

NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def main(state: State, cache: Cache, leash: int, binaries: str) -> None:
    for stop in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(stop, _stop)
    lock = locks.take(state.lock)
    if lock is None:
        raise SystemExit(f"another node runs in {state.root}")
    slot, _held = take_slot(cache.slots)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    make_credentials(state, port)
    cgroups.remove(state.cgroup)
    cgroups.make(state.cgroup)
    node = start(state, slot, listener, binaries)
    listener.close()
    try:
        inner = inner_pid(node)
        write(state.node, {"guard": os.getpid(), "inner": inner, "port": port, "containerd_root": str(slot)})
        watch(node, leash)
    except KeyboardInterrupt:
        pass
    finally:
        end(node)
        state.node.unlink(missing_ok=True)
        cgroups.remove(state.cgroup)


def make_credentials(state: State, port: int) -> None:
    """Keys, the kubeconfigs of the components, and last the one for people."""
    keys = state.root / "pki"
    pki.make_keys(keys)
    for name in ("admin", "kubelet"):
        pki.write_kubeconfig(state.root / f"{name}.conf", Path(STATE, "pki"), name, API_PORT)
    pki.write_kubeconfig(state.kubeconfig, keys, "admin", port)


def start(state: State, slot: Path, listener: socket.socket, binaries: str) -> subprocess.Popen[bytes]:
    number = listener.fileno()
    arguments = (str(state.root), str(slot), state.cgroup, str(number), binaries)
    command = ("setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, sys.executable, "-m", "dev.cluster.inside")
    return subprocess.Popen((*command, *arguments), cwd=REPOSITORY, pass_fds=(number,))


def inner_pid(node: subprocess.Popen[bytes]) -> int:
    """The node's process 1 as the host counts it: the only child of `unshare`."""
    while node.poll() is None:
        if found := children(node):
            return found[0]
        time.sleep(0.01)
    raise SystemExit(f"the node ended at once with {node.returncode}")


def children(process: subprocess.Popen[bytes]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def watch(node: subprocess.Popen[bytes], leash: int) -> None:
    """Returns when the node has ended or the leash is gone."""
    selector = selectors.DefaultSelector()
    selector.register(leash, selectors.EVENT_READ)
    ended = os.pidfd_open(node.pid)
    selector.register(ended, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fd == ended:
                print(f"the node ended by itself with {node.wait()}", flush=True)
                return
            if os.read(leash, 1) != KEEP:
                return
            selector.unregister(leash)


def end(node: subprocess.Popen[bytes]) -> None:
    """Kills process 1 of the node; the kernel kills everything else before that process is gone."""
    for stop in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(stop, signal.SIG_IGN)
    if node.poll() is None:
        for child in children(node):
            os.kill(child, signal.SIGKILL)
        try:
            node.wait(20)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()


def take_slot(slots: Path) -> tuple[Path, int]:
    """The first containerd root that no running node uses: mostly one that has all images already. And its lock."""
    for number in range(100):
        lock = locks.take(slots / f"{number}.lock")
        if lock is not None:
            root = slots / str(number)
            root.mkdir(exist_ok=True)
            return root, lock
    raise SystemExit("a hundred nodes run already")


def write(path: Path, content: dict[str, object]) -> None:
    """A reader sees all of it or nothing."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(content) + "\n")
    beside.rename(path)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main(State(Path(sys.argv[1])), Cache.from_environment(os.environ), int(sys.argv[2]), sys.argv[3])
