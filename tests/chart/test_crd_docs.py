"""docs/crd.md is made from the CRD. Without Helm, which test_generated.py needs."""

from __future__ import annotations

from types import ModuleType

import pytest
import yaml

from tests.chart.conftest import ROOT

CRD = (ROOT / "manifests" / "crd.yaml").read_text(encoding="utf-8")


def test_the_page_is_the_crds(generator: ModuleType) -> None:
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
