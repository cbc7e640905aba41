"""torch's threads follow the cgroup's quota."""

import pytest

from chattts_server.engine.threads import cpu_threads


def v2(tmp_path, limits, path="/"):
    root = tmp_path / "cgroup"
    for group, limit in limits.items():
        folder = root / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(limit + "\n")
    own = tmp_path / "own"
    own.write_text(f"0::{path}\n")
    return root, own


@pytest.mark.parametrize(
    ("limit", "threads"),
    [("50000 100000", 1), ("100000 100000", 1), ("250000 100000", 2), ("1600000 100000", 8), ("max 100000", 8)],
)
def test_version_2(tmp_path, limit, threads):
    root, own = v2(tmp_path, {"": limit})
    assert cpu_threads(root, own, cores=8) == threads


def test_the_smallest_quota_on_the_way_up_counts(tmp_path):
    root, own = v2(tmp_path, {"pods": "300000 100000", "pods/one": "max 100000"}, "/pods/one")
    assert cpu_threads(root, own, cores=8) == 3


def test_a_path_outside_of_the_namespace_falls_back_to_the_root(tmp_path):
    root, own = v2(tmp_path, {"": "200000 100000"}, "/../../other")
    assert cpu_threads(root, own, cores=8) == 2


def test_version_1(tmp_path):
    folder = tmp_path / "cgroup" / "cpu,cpuacct"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("50000\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    own = tmp_path / "own"
    own.write_text("4:memory:/x\n3:cpu,cpuacct:/kubepods/pod1\n")
    assert cpu_threads(tmp_path / "cgroup", own, cores=8) == 1
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_threads(tmp_path / "cgroup", own, cores=8) == 8


def test_no_cgroup_at_all(tmp_path):
    assert cpu_threads(tmp_path / "none", tmp_path / "nothing", cores=3) == 3
