"""`chattts-server doctor` on random weights: what it says, and that it notices."""

import shutil

import pytest

from chattts_server import cli

pytestmark = pytest.mark.engine


def run(capsys, *argv):
    code = cli.main(["doctor", "--device", "cpu", *argv])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_good_weights_are_well_and_equal_to_chattts(tiny, chat, capsys):
    code, out, _ = run(capsys, "--model", str(tiny), "--compare-native")
    assert code == 0
    assert out.count("codes equal") == 3
    for word in ("software", "device     CPU", "own digests", "maxBatchSize left out means 16 rows", "audio seconds"):
        assert word in out
    assert out.rstrip().endswith("all is well")


def test_changed_weights_are_named(tiny, tmp_path, capsys):
    shutil.copytree(tiny, tmp_path / "copy")
    path = tmp_path / "copy" / "asset" / "Decoder.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    code, _, err = run(capsys, "--model", str(tmp_path / "copy"))
    assert code == 78
    assert "Decoder.safetensors has sha256" in err


def test_a_folder_without_weights_is_one_line(tmp_path, capsys):
    code, _, err = run(capsys, "--model", str(tmp_path))
    assert (code, err.count("\n")) == (78, 1)
    assert "lacks asset/gpt/config.json" in err
