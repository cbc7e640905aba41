"""docs/crd.md names every field of the CRD; that it is up to date is test_generated.py's business, with Helm at hand."""

from __future__ import annotations

from types import ModuleType

import pytest
import yaml

from tests.chart.conftest import ROOT

CRD = (ROOT / "manifests" / "crd.yaml").read_text(encoding="utf-8")


def test_the_page_is_the_crds(generator: ModuleType) -> None:
    """Without Helm, so that the unit stage of a laptop says it too."""
    assert (ROOT / "docs" / "crd.md").read_text(encoding="utf-8") == generator.crd_page(CRD)


def test_a_changed_text_changes_the_page(generator: ModuleType) -> None:
    changed = CRD.replace("Number of pods.", "How many pods.")
    assert "How many pods." in generator.crd_page(changed)
    assert generator.crd_page(changed) != generator.crd_page(CRD)


def test_a_field_without_a_text_is_refused(generator: ModuleType) -> None:
    body = yaml.safe_load(CRD)
    spec = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"]["replicas"]["description"]
    with pytest.raises(ValueError, match="replicas has no description"):
        generator.crd_page(yaml.safe_dump(body))
