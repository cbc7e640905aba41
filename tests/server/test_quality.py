"""The distances of bench/quality.py, and that the tool runs whole on the tiny checkpoint."""

import json
import sys

import numpy as np
import pytest

ROWS = {"dtype": 1, "look-ahead": 10, "what a client asks for": 6, "refine": 1}


def test_distances_are_what_they_say():
    from bench.quality import Distance

    sound = np.random.default_rng(0).normal(0, 0.1, 24000)
    same = Distance.of(sound, sound)
    assert (same.spectral_db, same.signal_db) == (0.0, float("inf"))
    louder = Distance.of(2 * sound, sound)
    assert louder.spectral_db == pytest.approx(6.02, abs=0.01)
    assert louder.signal_db == pytest.approx(0.0, abs=0.01)
    assert Distance.of(sound * 1.1, sound).spectral_db < louder.spectral_db


@pytest.mark.engine
def test_the_table_of_the_tiny_checkpoint(tiny, tmp_path, monkeypatch):
    from bench import quality

    monkeypatch.setattr(quality, "REPEATS", 1)
    report, values = tmp_path / "quality.md", tmp_path / "quality.json"
    monkeypatch.setattr(sys, "argv", ["quality", "--model", str(tiny), "--report", str(report), "--json", str(values)])
    assert quality.main() == 0
    found = json.loads(values.read_text())
    assert all(len(found[name]) >= count for name, count in ROWS.items())
    exact = found["dtype"][0]
    assert (exact[0], exact[1], exact[3]) == ("float32", "1.00", "100.0%")
    errors = [float(row[4]) for row in found["look-ahead"] if row[0] == "float32" and row[4] != "exact"]
    assert errors == sorted(errors), "looking further ahead came less near"
    assert all(f"| {row[0]} |" in report.read_text() for name in ROWS for row in found[name])
