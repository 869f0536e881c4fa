import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from deploy.compose_test.dashboard import DASHBOARD, expressions
from services.gateway.metrics import GatewayMetrics
from services.planner.server.metrics import PlannerMetrics
from shared.telemetry.engine_metrics import EngineMetrics
from tests.unit.planner.builders import make_engine

FOLDER = Path(__file__).parents[3] / "deploy/observability"
NAME = re.compile(r"\bslos_\w+")


def metric_names() -> set[str]:
    """Of gateway, planner and engine, as a query spells them."""
    ours = CollectorRegistry()
    GatewayMetrics({"chat"}, ours)
    EngineMetrics(ours, make_engine("d0"))
    text = generate_latest(ours).decode() + generate_latest(PlannerMetrics().registry).decode()
    types = re.findall(r"^# TYPE (\w+) (\w+)$", text, flags=re.MULTILINE)
    names = {name for name, _ in types}
    return names | {f"{name}_bucket" for name, kind in types if kind == "histogram"}


def alerts() -> dict[str, str]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def test_every_panel_asks_for_metrics_that_are_there() -> None:
    known = metric_names()

    for expression in expressions():
        asked = set(NAME.findall(expression.text))
        assert asked, expression.panel
        assert asked <= known, expression.panel


def test_every_alert_asks_for_metrics_that_are_there() -> None:
    asked = set(NAME.findall(" ".join(alerts().values())))

    assert asked
    assert asked <= metric_names()


def test_panels_have_numbers_of_their_own_and_lie_side_by_side() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    numbers = [panel["id"] for panel in panels]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]

    assert len(set(numbers)) == len(numbers)
    assert len(set(places)) == len(places)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "words", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")]
)
def test_promtool_finds_nothing_wrong(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *words], cwd=FOLDER, capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
