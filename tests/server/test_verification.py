"""Digests are checked beside the load, and nothing passes for checked that was not."""

import shutil

import pytest

from chattts_server.engine.checkpoint import CheckpointError, Verification, open_checkpoint


@pytest.fixture
def folder(hollow, tmp_path):
    return shutil.copytree(hollow, tmp_path / "copy")


def test_good_files_pass(folder):
    verification = Verification(open_checkpoint(folder))
    verification.wait()
    assert verification.seconds > 0


def test_a_changed_file_is_named(folder):
    (folder / "asset" / "Vocos.safetensors").write_bytes(b"other")
    verification = Verification(open_checkpoint(folder))
    for _ in range(2):  # however often it is asked
        with pytest.raises(CheckpointError, match=r"Vocos\.safetensors has sha256"):
            verification.wait()


def test_what_cannot_be_checked_has_not_passed(folder, monkeypatch):
    def fails(_):
        raise MemoryError

    monkeypatch.setattr("chattts_server.engine.checkpoint.verify", fails)
    with pytest.raises(CheckpointError, match="cannot be checked: MemoryError"):
        Verification(open_checkpoint(folder)).wait()


@pytest.mark.parametrize("text", ["[]", "{", '"x"'])
@pytest.mark.parametrize("name", ["sha256_map.json", "sizes.json"])
def test_digests_or_sizes_that_are_no_object_are_one_line(folder, name, text):
    (folder / name).write_text(text)
    with pytest.raises(CheckpointError, match=r"is not (JSON|an object)"):
        open_checkpoint(folder)
