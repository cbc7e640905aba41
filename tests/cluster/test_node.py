"""The parts of the node that can be tried without one: locks, cgroups, the forwarder, configuration."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dev.cluster import cgroups, forward, locks
from dev.cluster.components import SOCKET, components, configuration_files
from dev.cluster.guard import take_slot
from dev.cluster.inside import untagged
from dev.cluster.paths import REPOSITORY
from dev.cluster.pki import kubeconfig

UNIX_SOCKET_LIMIT = 107


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert locks.is_free(path)
    program = (
        f"from pathlib import Path; from dev.cluster import locks; locks.take(Path({str(path)!r})); print(1); input()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert not locks.is_free(path)
        assert locks.holder(path) == process.pid
        process.kill()
    assert locks.is_free(path)


def test_two_nodes_get_two_slots_and_the_next_one_gets_the_freed(tmp_path: Path) -> None:
    first, lock = take_slot(tmp_path)
    assert first == tmp_path / "0"
    assert take_slot(tmp_path)[0] == tmp_path / "1"
    os.close(lock)
    assert take_slot(tmp_path)[0] == tmp_path / "0"


def hierarchy(mount: Path, name: str) -> Path:
    folder = mount / name
    folder.mkdir()
    (folder / "cgroup.procs").touch()
    return folder


def test_cgroups_are_made_in_every_hierarchy_with_a_usable_cpuset(tmp_path: Path) -> None:
    hierarchy(tmp_path, "memory")
    cpuset = hierarchy(tmp_path, "cpuset")
    (cpuset / "cpuset.cpus").write_text("0-1\n")
    cgroups.make("chattts-x", tmp_path)
    assert (tmp_path / "memory" / "chattts-x").is_dir()
    assert (cpuset / "chattts-x" / "cpuset.cpus").read_text() == "0-1\n"


def test_empty_cgroups_are_removed_from_below_and_others_stay(tmp_path: Path) -> None:
    memory = hierarchy(tmp_path, "memory")
    (memory / "chattts-x" / "kubepods" / "pod1").mkdir(parents=True)
    (memory / "chattts-y").mkdir()
    cgroups.remove("chattts-x", tmp_path)
    assert sorted(path.name for path in memory.iterdir() if path.is_dir()) == ["chattts-y"]


def test_a_cgroup_in_use_is_an_error_not_a_silence(tmp_path: Path) -> None:
    memory = hierarchy(tmp_path, "memory")
    (memory / "chattts-x").mkdir()
    (memory / "chattts-x" / "busy").touch()
    with pytest.raises(TimeoutError, match="chattts-x is still in use"):
        cgroups.remove("chattts-x", tmp_path, patience=0)


def test_socket_paths_fit_however_deep_the_checkout_lies() -> None:
    assert len(SOCKET) < UNIX_SOCKET_LIMIT
    assert all(str(REPOSITORY) not in text for text in configuration_files("chattts-x").values())


def test_only_the_forwarder_inherits_the_listening_socket() -> None:
    names = ("etcd", "coredns", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
    made = components({name: Path("/bin", name) for name in names}, "/bin/python", 7)
    assert {component.name: component.passes for component in made if component.passes} == {"forward": (7,)}
    assert {component.name for component in made} >= set(names)


def test_untagged_images_are_those_whose_tag_moved_on() -> None:
    listing = (
        "REF TYPE DIGEST SIZE PLATFORMS LABELS\n"
        "localhost/a:dev type sha256:new 1 B linux -\n"
        "sha256:idnew type sha256:new 1 B linux -\n"
        "sha256:idold type sha256:old 1 B linux -\n"
    )
    assert untagged(listing) == ["sha256:idold"]


def test_kubeconfig_points_to_loopback_and_embeds_no_key() -> None:
    made = kubeconfig(Path("/state/pki"), "admin", 4711)
    assert made["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:4711"
    assert made["users"][0]["user"] == {
        "client-certificate": "/state/pki/admin.crt",
        "client-key": "/state/pki/admin.key",
    }


async def test_the_forwarder_carries_both_ways_and_half_closes() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    target = await asyncio.start_server(shout, "127.0.0.1", 0)
    listener = socket.create_server(("127.0.0.1", 0))
    entry, port = listener.getsockname()[1], target.sockets[0].getsockname()[1]
    task = asyncio.create_task(forward.main(listener.detach(), "127.0.0.1", port))
    reader, writer = await asyncio.open_connection("127.0.0.1", entry)
    writer.write(b"speak")
    writer.write_eof()
    assert await reader.read() == b"SPEAK"
    writer.close()
    task.cancel()
    target.close()


async def test_the_forwarder_closes_when_nothing_listens_inside() -> None:
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    listener = socket.create_server(("127.0.0.1", 0))
    entry = listener.getsockname()[1]
    task = asyncio.create_task(forward.main(listener.detach(), "127.0.0.1", port))
    reader, writer = await asyncio.open_connection("127.0.0.1", entry)
    assert await reader.read() == b""
    writer.close()
    task.cancel()
