"""What an image is built from, and how it gets into the node without a copy."""

import base64
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from dev.cluster import layers, recipes
from dev.cluster.docker import build_command
from dev.cluster.errors import ClusterError
from dev.cluster.images import stage_context, uv_cache
from dev.cluster.paths import REPOSITORY

INSIDE = "/run/containerd-root"


def recipe(folder: Path, **arguments: str) -> recipes.Recipe:
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "a.py").write_text("a = 1\n")
    return recipes.Recipe("localhost/a:dev", folder / "Dockerfile", {"a.py": folder / "a.py"}, arguments=arguments)


def test_the_key_follows_content_and_arguments_but_not_time(tmp_path: Path) -> None:
    key = recipe(tmp_path).key()
    os.utime(tmp_path / "a.py", (1, 1))
    assert recipe(tmp_path).key() == key
    assert recipe(tmp_path, BASE_IMAGE="other").key() != key
    made = recipe(tmp_path)
    (tmp_path / "a.py").write_text("a = 2\n")
    assert made.key() != key


def test_a_staged_context_has_ordinary_rights(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    (tmp_path / "a.py").chmod(0o600)
    stage_context(made, tmp_path / "context")
    assert (tmp_path / "context" / "a.py").stat().st_mode & 0o777 == 0o644


def test_docker_and_buildah_see_the_same_files() -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert tuple(line[1:] for line in ignored if line.startswith("!")) == recipes.SOURCES


def test_docker_builds_the_target_with_its_arguments(tmp_path: Path) -> None:
    made = recipes.ours("server", {"BASE_IMAGE": "my/base", "TORCH_INDEX_URL": "https://example.invalid/cpu"}, None)
    command = build_command(made)
    assert command[:4] == ["docker", "build", "--target", "server"]
    assert "BASE_IMAGE=my/base" in command
    assert "TORCH_INDEX_URL=https://example.invalid/cpu" in command
    assert "TORCH_INDEX_URL" not in recipes.ours("operator", {"TORCH_INDEX_URL": "x"}, None).arguments


def test_wheels_come_from_uvs_own_cache() -> None:
    assert uv_cache({"UV_CACHE_DIR": "/elsewhere"}) == Path("/elsewhere")
    assert uv_cache({"HOME": "/home/me"}) == Path("/home/me/.cache/uv")


class Containerd:
    """Behaves like `ctr`: snapshots with parents, and images that are refused when a layer is missing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.committed: dict[str, str] = {}
        self.active: dict[str, tuple[str, int]] = {}
        self.images: dict[str, str] = {}
        self.kept_for_ever: set[str] = set()
        self.prepared = 0

    def __call__(self, *arguments: str, stdin: bytes | None = None) -> str:
        match arguments:
            case ("images", "list", query):
                name = query.removeprefix("name==")
                return f"REF\n{name} {self.images[name]}\n" if name in self.images else "REF\n"
            case ("images", "import", "-"):
                return self._import(stdin or b"")
            case ("snapshots", "list"):
                return "KEY PARENT KIND\n" + "".join(f"{name} -\n" for name in [*self.committed, *self.active])
            case ("snapshots", "prepare", name, *parent):
                return self._prepare(name, parent[0] if parent else "")
            case ("snapshots", "mounts", _, name):
                return self._mounts(name)
            case ("snapshots", "commit", name, working):
                self.committed[name] = self.active.pop(working)[0]
                self.kept_for_ever.add(name)
                return ""
            case ("snapshots", "label", name, "containerd.io/gc.root="):
                assert self.images, "collected before an image holds it"
                self.kept_for_ever.discard(name)
                return ""
            case ("snapshots", "remove", name):
                del self.active[name]
                return ""
        raise AssertionError(arguments)

    def folder(self, number: int) -> Path:
        return self.root / layers.SNAPSHOTS / str(number) / "fs"

    def _prepare(self, name: str, parent: str) -> str:
        assert name not in self.active
        assert not parent or parent in self.committed
        self.prepared += 1
        self.active[name] = (parent, self.prepared)
        self.folder(self.prepared).mkdir(parents=True)
        return ""

    def _mounts(self, name: str) -> str:
        parent, number = self.active[name]
        here = f"{INSIDE}/{layers.SNAPSHOTS}/{number}/fs"
        if not parent:
            return f"mount -t bind {here} /x -o rw,rbind"
        return f"mount -t overlay overlay /x -o workdir={here[:-2]}work,upperdir={here},lowerdir=/lower"

    def _import(self, data: bytes) -> str:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            index = json.load(tar.extractfile("index.json") or io.BytesIO())
            described = index["manifests"][0]
            manifest = json.load(tar.extractfile(f"blobs/{described['digest'].replace(':', '/')}") or io.BytesIO())
        chain = None
        for layer in manifest["layers"]:
            chain = layers.chain_id(chain, layer["digest"])
            assert chain in self.committed, "containerd would look for the layer's content"
        self.images[described["annotations"]["io.containerd.image.name"]] = described["digest"]
        return ""


def store(folder: Path, name: str, contents: list[str]) -> None:
    """A storage as buildah writes it: one file a layer, the configuration beside the image."""
    config = json.dumps({"layers": contents}).encode()
    image_id = layers.digest(config).removeprefix("sha256:")
    stack, parent = [], ""
    for number, content in enumerate(contents):
        layer_id = f"layer{number}{content}"
        diff = folder / "overlay" / layer_id / "diff"
        diff.mkdir(parents=True, exist_ok=True)
        (diff / f"file{number}").write_text(content)
        entry = {"id": layer_id, "diff-digest": layers.digest(content.encode()), "diff-size": 10}
        stack.append(entry | ({"parent": parent} if parent else {}))
        parent = layer_id
    (folder / "overlay-layers").mkdir(exist_ok=True)
    (folder / "overlay-layers" / "layers.json").write_text(json.dumps(stack))
    key = "=" + base64.b64encode(f"sha256:{image_id}".encode()).decode()
    (folder / "overlay-images" / image_id).mkdir(parents=True)
    (folder / "overlay-images" / image_id / key).write_bytes(config)
    described = [{"id": image_id, "names": [name], "layer": parent}]
    (folder / "overlay-images" / "images.json").write_text(json.dumps(described))


def hand_over(tmp_path: Path, ctr: Containerd) -> None:
    layers.hand_over("a:dev", storage=tmp_path / "storage", root=ctr.root, root_inside=INSIDE, ctr=ctr)


def test_layers_are_linked_not_copied(tmp_path: Path) -> None:
    ctr = Containerd(tmp_path / "root")
    store(tmp_path / "storage", "a:dev", ["base", "code"])
    hand_over(tmp_path, ctr)
    source = tmp_path / "storage" / "overlay" / "layer0base" / "diff" / "file0"
    assert (ctr.folder(1) / "file0").stat().st_ino == source.stat().st_ino
    assert (ctr.folder(2) / "file1").read_text() == "code"
    assert "a:dev" in ctr.images
    assert not ctr.kept_for_ever


def test_what_the_node_has_is_not_handed_over_again(tmp_path: Path) -> None:
    ctr = Containerd(tmp_path / "root")
    store(tmp_path / "storage", "a:dev", ["base", "code"])
    hand_over(tmp_path, ctr)
    hand_over(tmp_path, ctr)
    assert ctr.prepared == 2
    store(tmp_path / "storage", "a:dev", ["base", "newer code"])
    hand_over(tmp_path, ctr)
    assert ctr.prepared == 3


def test_an_interrupted_hand_over_is_done_again(tmp_path: Path) -> None:
    ctr = Containerd(tmp_path / "root")
    store(tmp_path / "storage", "a:dev", ["base"])
    ctr("snapshots", "prepare", f"linking {layers.digest(b'base')}")
    hand_over(tmp_path, ctr)
    assert not ctr.active
    assert list(ctr.committed) == [layers.digest(b"base")]


def test_an_unknown_image_says_how_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"no image b:dev.*dev\.cluster images"):
        layers.read_image(tmp_path, "b:dev")


def test_chain_of_two_layers_is_that_of_the_specification() -> None:
    assert layers.chain_id(None, "sha256:aa") == "sha256:aa"
    assert layers.chain_id("sha256:aa", "sha256:bb") == layers.digest(b"sha256:aa sha256:bb")
