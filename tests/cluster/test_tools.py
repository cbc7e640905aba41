"""The cache of built tools: same go.sum, same folder; half a build is no tool."""

import dataclasses
import hashlib
from pathlib import Path

from dev.cluster.paths import Cache, State
from dev.cluster.tools import TOOLS, is_built, record_seconds, recorded_seconds, tool_folder, tool_key


def test_the_key_is_that_of_go_sum(tmp_path: Path) -> None:
    (tmp_path / "go.sum").write_text("example.org/module v1.0.0 h1:abc=\n")
    assert tool_key(tmp_path) == hashlib.sha256((tmp_path / "go.sum").read_bytes()).hexdigest()[:16]


def test_an_own_main_package_is_part_of_the_key(tmp_path: Path) -> None:
    (tmp_path / "go.sum").write_text("x\n")
    before = tool_key(tmp_path)
    (tmp_path / "main.go").write_text("package main\n")
    assert tool_key(tmp_path) != before


def test_every_tool_has_its_own_folder_and_is_unbuilt_in_an_empty_cache(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    folders = {tool_folder(tool, cache) for tool in TOOLS}
    assert len(folders) == len(TOOLS)
    assert not any(is_built(tool, cache) for tool in TOOLS)


def test_a_tool_is_built_when_all_its_programs_and_copies_are_there(tmp_path: Path) -> None:
    tool = dataclasses.replace(TOOLS[0], programs=("one", "two"), copies=(("module", "inside", "crds"),))
    folder = tool_folder(tool, Cache(tmp_path))
    (folder / "bin").mkdir(parents=True)
    (folder / "share" / "crds").mkdir(parents=True)
    (folder / "bin" / "one").touch()
    assert not is_built(tool, Cache(tmp_path))
    (folder / "bin" / "two").touch()
    assert is_built(tool, Cache(tmp_path))


def test_build_seconds_are_kept_by_name(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert recorded_seconds(cache) == {}
    record_seconds(cache, "tool etcd", 81.04)
    record_seconds(cache, "image base", 60.0)
    assert recorded_seconds(cache) == {"tool etcd": 81.0, "image base": 60.0}


def test_the_cache_follows_xdg_and_the_state_follows_cluster_dir(tmp_path: Path) -> None:
    assert Cache.from_environment({"XDG_CACHE_HOME": str(tmp_path)}).root == tmp_path / "chattts-k8s"
    assert Cache.from_environment({"HOME": str(tmp_path)}).root == tmp_path / ".cache" / "chattts-k8s"
    one = State.from_environment({}, tmp_path / "one")
    two = State.from_environment({"CLUSTER_DIR": "/elsewhere"}, tmp_path / "one")
    assert (one.root, two.root) == (tmp_path / "one" / ".cluster", Path("/elsewhere"))
    assert one.cgroup != two.cgroup
