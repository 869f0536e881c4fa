"""Writes reports to disk: Markdown, JSON, one HTML page, and the generated parts of a document."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from services.evaluation.claims_report import claims_table, paper_tables
from services.evaluation.figures import figures
from services.evaluation.files import json_of, write
from services.evaluation.leave_one_out.report import effects_table
from services.evaluation.outsiders_report import outsiders_table
from services.evaluation.overload_report import overload_tables
from services.evaluation.page import page
from services.evaluation.report import (
    ablation_table,
    burst_table,
    capacity_tables,
    made_line,
    regret_tables,
    rules_table,
    scaling_table,
    settings_table,
    whole_report,
)
from services.evaluation.results import Results
from shared.errors import ConfigError

_TITLE: Final = "slos-serve: how much load keeps its targets"
_MARKED: Final = re.compile(
    r"(<!-- made: (?P<name>[\w-]+) -->\n)(?P<old>.*?)(<!-- end -->)", re.DOTALL
)


def write_report(results: Results, folder: Path) -> list[Path]:
    """report.md, report.json and report.html. Raises ConfigError where they cannot be written."""
    markdown = whole_report(results)
    texts = {
        "report.md": f"# {_TITLE}\n\n{markdown}",
        "report.json": json_of(results.as_json()),
        "report.html": page(_TITLE, markdown, figures(results)),
    }
    return [write(folder / name, text) for name, text in texts.items()]


def write_document(results: Results, document: Path) -> None:
    """Rewrites the marked parts of a Markdown file; `<!-- made: figure-NAME -->` gets a figure,
    drawn beside the file. Raises ConfigError for an unknown mark.
    """
    drawn = figures(results)
    made = dict(_made(results))
    for name in drawn:
        made[f"figure-{name}"] = f"![{name}](evaluation/{name}.svg)"
    try:
        text = document.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--document {document} cannot be read: {error}") from error
    write(document, replaced(text, made))
    for name, svg in drawn.items():
        write(document.parent / "evaluation" / f"{name}.svg", svg)


def replaced(text: str, made: Mapping[str, str]) -> str:
    """The text with its marked parts rewritten; figures that were not drawn stay."""

    def fill(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in made and not name.startswith("figure-"):
            raise ConfigError(f"nothing is made under the mark {name}; there is {', '.join(made)}")
        new = made[name] + "\n" if name in made else found["old"]
        return f"{found[1]}{new}{found[4]}"

    return _MARKED.sub(fill, text)


def _made(results: Results) -> dict[str, str]:
    return {
        "capacity": capacity_tables(results),
        "rules": rules_table(results),
        "claims": claims_table(results),
        "paper": paper_tables(results),
        "ablations": ablation_table(results),
        "bursts": burst_table(results),
        "scaling": scaling_table(results),
        "overload": overload_tables(results),
        "regret": regret_tables(results),
        "outsiders": outsiders_table(results),
        "leave-one-out": effects_table(results.effects),
        "settings": settings_table(results),
        "how": made_line(results),
    }
