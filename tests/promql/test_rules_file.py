"""The plain rules file says what the operator's PrometheusRules say."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from chattts_operator.autoscaling.rules import Promise, matchers, rule_group, selector_of

ROOT = Path(__file__).parents[2]
RULES_FILE = ROOT / "manifests" / "prometheus" / "rules.yaml"


def test_the_file_is_what_the_builder_makes() -> None:
    """If not: `python tests/promql/render_rules.py`."""
    assert yaml.safe_load(RULES_FILE.read_text()) == {"groups": [rule_group("chattts", Promise())]}


def test_the_child_differs_by_its_selector_only() -> None:
    selector = selector_of("n", "s")
    child = json.dumps(rule_group("chattts", Promise(), selector))
    escaped = json.dumps(selector)[1:-1]
    assert matchers(selector) in json.loads(child)["rules"][-1]["expr"]
    without = child.replace(f"{{{escaped}}}", "").replace(f",{escaped}", "")
    assert json.loads(without) == rule_group("chattts", Promise())


def test_scrape_configuration_makes_the_target_labels() -> None:
    config = yaml.safe_load((ROOT / "manifests" / "prometheus" / "scrape-config.yaml").read_text())
    targets = {item.get("target_label") for item in config["scrape_configs"][0]["relabel_configs"]}
    assert {"namespace", "tts_service"} <= targets
