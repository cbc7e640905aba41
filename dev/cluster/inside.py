"""The node from inside: process 1 of its own process, mount and network namespaces. It does not know the host.

`guard.py` starts it by `unshare`; killing it ends every component and every pod, and with the last process the mounts
and the network are gone as well. Arguments: state folder, containerd root, cgroup, listening socket's number, and the
binaries as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dev.cluster import components
from dev.cluster.components import CONTAINERD_ROOT, NODE_ADDRESS, SERVICES, SOCKET, STATE, Component

RESTART_AFTER = 1.0
"""Seconds from a component's end to its next start."""
KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""What the kubelet sets for the whole machine when it reads other values."""


def main(state: Path, root: Path, cgroup: str, listening: int, binaries: dict[str, Path]) -> None:
    mount_folders(state, root)
    hide_kernel_settings()
    make_network()
    for name, content in components.configuration_files(cgroup).items():
        path = Path(STATE, name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    remove_old_containers()
    supervise(components.components(binaries, sys.executable, listening))


def mount_folders(state: Path, root: Path) -> None:
    """Everything the components write goes to the state folder, the containerd root or memory."""
    call("mount", "--make-rshared", "/")
    opened = {STATE: os.open(state, os.O_PATH), CONTAINERD_ROOT: os.open(root, os.O_PATH)}
    call("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for target, descriptor in opened.items():
        Path(target).mkdir()
        call("mount", "--bind", f"/proc/{os.getpid()}/fd/{descriptor}", target)
        os.close(descriptor)
    for folder in ("/var/lib", "/var/log"):
        upper, work = Path("/run/overlay", folder[1:], "upper"), Path("/run/overlay", folder[1:], "work")
        upper.mkdir(parents=True)
        work.mkdir()
        options = f"lowerdir={folder},upperdir={upper},workdir={work}"
        call("mount", "-t", "overlay", "-o", options, "overlay", folder)


def hide_kernel_settings() -> None:
    """The kubelet reads the values it wants, so it does not change those of the machine."""
    for name, value in KERNEL_SETTINGS.items():
        stand_in, target = Path("/run/sysctl", name), Path("/proc/sys", name)
        if target.exists():
            stand_in.parent.mkdir(parents=True, exist_ok=True)
            stand_in.write_text(value + "\n")
            call("mount", "--bind", str(stand_in), str(target))


def make_network() -> None:
    """A bridge without ports carries the node's address: no link leads out of this namespace."""
    call("ip", "link", "set", "lo", "up")
    call("ip", "link", "add", "node0", "type", "bridge")
    call("ip", "addr", "add", f"{NODE_ADDRESS}/24", "dev", "node0")
    call("ip", "link", "set", "node0", "up")
    # Else the node itself could not reach ClusterIPs.
    call("ip", "route", "add", SERVICES, "dev", "node0")
    call("sysctl", "-qw", "net.ipv4.ip_forward=1")
    # The setting is missing where the bridge module has no netfilter; pods on one bridge then still reach each other.
    subprocess.run(["sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1"], check=False)


def remove_old_containers() -> None:
    """The containerd root may come from a node that was killed: drop its containers, keep its images."""
    if not Path(CONTAINERD_ROOT, "io.containerd.metadata.v1.bolt", "meta.db").exists():
        return
    daemon = subprocess.Popen(["containerd", "-c", f"{STATE}/containerd-clean.toml"], stderr=subprocess.DEVNULL)
    try:
        wait_for(Path(SOCKET))
        while (names := call(*CTR, "containers", "list", "-q").split()) and names:
            call(*CTR, "containers", "delete", *names)
        for image in untagged(call(*CTR, "images", "list")):
            call(*CTR, "images", "delete", "--sync", image)
    finally:
        daemon.terminate()
        daemon.wait()
    Path(SOCKET).unlink(missing_ok=True)
    call("rm", "-rf", f"{CONTAINERD_ROOT}/io.containerd.grpc.v1.cri")


CTR = ("ctr", "-a", SOCKET, "-n", "k8s.io")


def untagged(listing: str) -> list[str]:
    """Names of images that are only known by their id: an older build under a tag that has moved on."""
    rows = [line.split()[:3] for line in listing.splitlines()[1:]]
    tagged = {row[2] for row in rows if not row[0].startswith("sha256:")}
    return [row[0] for row in rows if row[0].startswith("sha256:") and row[2] not in tagged]


def supervise(wanted: Sequence[Component]) -> None:
    """Starts the components, starts again what ends, and reaps what has lost its parent. Never returns."""
    running = {start(component): component for component in wanted}
    while True:
        pid, status = os.wait()
        ended = running.pop(pid, None)
        if ended is not None:
            print(f"{ended.name} ended with {os.waitstatus_to_exitcode(status)}; starting it again", flush=True)
            time.sleep(RESTART_AFTER)
            running[start(ended)] = ended


def start(component: Component) -> int:
    log = os.open(f"{STATE}/log/{component.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    actions = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2), (os.POSIX_SPAWN_CLOSE, log)]
    for descriptor in component.passes:
        os.set_inheritable(descriptor, True)
    pid = os.posix_spawnp(component.command[0], component.command, os.environ, file_actions=actions)
    for descriptor in component.passes:
        os.set_inheritable(descriptor, False)
    os.close(log)
    return pid


def wait_for(path: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} did not appear in {seconds:.0f} s")
        time.sleep(0.05)


def call(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    _, state_, root_, cgroup_, listening_, binaries_ = sys.argv
    paths = {name: Path(path) for name, path in json.loads(binaries_).items()}
    main(Path(state_), Path(root_), cgroup_, int(listening_), paths)
