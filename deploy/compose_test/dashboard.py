"""The dashboard's expressions, and what a Prometheus answers to them. Standard library only."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

DASHBOARD: Final = Path(__file__).resolve().parents[1] / "observability/dashboards/slos-serve.json"
# Panels of what a load without refusals and without drafts does not have.
MAY_BE_EMPTY: Final = frozenset({"Refused by reason", "Drafted tokens that were confirmed"})
_ANSWER_LIMIT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """One query of one panel."""

    panel: str
    text: str

    def over(self, interval: str) -> str:
        """With a value for Grafana's own variable."""
        return self.text.replace("$__rate_interval", interval)


def expressions(path: Path = DASHBOARD) -> list[Expression]:
    return list(_of_panels(json.loads(path.read_text())["panels"]))


def _of_panels(panels: list[dict[str, Any]]) -> Iterator[Expression]:
    for panel in panels:
        for target in panel.get("targets", ()):
            yield Expression(panel=panel["title"], text=target["expr"])
        yield from _of_panels(panel.get("panels", []))


def ask(prometheus: str, query: str) -> list[float]:
    """The values of an instant query that are numbers. Raises OSError where it is refused."""
    url = f"{prometheus}/api/v1/query?{urlencode({'query': query})}"
    with build_opener(ProxyHandler({})).open(url, timeout=_ANSWER_LIMIT_S) as answer:
        result = json.load(answer)["data"]["result"]
    values = (float(series["value"][1]) for series in result)
    return [value for value in values if not math.isnan(value)]


def unanswered(prometheus: str, interval: str) -> list[Expression]:
    """The expressions that have no number. Raises OSError where Prometheus refuses one."""
    return [one for one in expressions() if not ask(prometheus, one.over(interval))]
