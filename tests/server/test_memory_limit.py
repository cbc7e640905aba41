"""What a process may take: the least of the machine and all groups that it is in."""

import pytest

from chattts_server.engine.memory import free_memory


@pytest.fixture
def machine(tmp_path):
    """(root, own, meminfo) with 8 GiB available and no limit yet."""
    (tmp_path / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n")
    return tmp_path / "cgroup", tmp_path / "own", tmp_path / "meminfo"


def limit(root, group, name, text):
    (root / group).mkdir(parents=True, exist_ok=True)
    (root / group / name).write_text(f"{text}\n")


def test_without_a_limit_it_is_what_the_machine_has(machine):
    root, own, _ = machine
    own.write_text("0::/pods/mine\n")
    limit(root, "pods/mine", "memory.max", "max")
    assert free_memory(*machine) == 8 << 30


@pytest.mark.parametrize(
    ("line", "folder", "name"),
    [("0::/pods/mine", "", "memory.max"), ("5:memory:/pods/mine", "memory", "memory.limit_in_bytes")],
)
def test_the_least_of_all_groups_counts(machine, line, folder, name):
    root, own, _ = machine
    own.write_text(f"{line}\n")
    limit(root / folder, "pods", name, 2 << 30)
    limit(root / folder, "pods/mine", name, 3 << 30)
    assert free_memory(*machine) == 2 << 30


def test_a_container_sees_its_limit_at_the_root(machine):
    root, own, _ = machine
    own.write_text("0::/../../pods/mine\n")
    limit(root, "", "memory.max", 1 << 30)
    assert free_memory(*machine) == 1 << 30


def test_no_limit_of_version_1_is_a_huge_number(machine):
    root, own, _ = machine
    own.write_text("5:memory:/\n")
    limit(root, "memory", "memory.limit_in_bytes", 9223372036854771712)
    assert free_memory(*machine) == 8 << 30
