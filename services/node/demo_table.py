"""Renders what the demo shows: a table of answers, and commands to paste."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from services.node.demo_client import Answer

_WORDS_SHOWN: Final = 7
_NOTHING: Final = "-"
_LEGEND: Final = "Times in milliseconds. A way in brackets is the planner's choice."
_COLUMNS: Final[tuple[tuple[str, int, JustifyMethod], ...]] = (
    ("class", 7, "left"),
    ("way", 15, "left"),
    ("TTFT", 5, "right"),
    ("target", 6, "right"),
    ("TPOT", 5, "right"),
    ("target", 6, "right"),
    ("met", 3, "left"),
    ("answer", 12, "left"),  # takes what is left of the line
)
_MET: Final = {True: Text("yes", "green"), False: Text("no", "red"), None: Text(_NOTHING)}


def print_answers(answers: Sequence[Answer], console: Console) -> None:
    """Prints a legend, then a table with a row per answer; times as the gateway measured them."""
    console.print(_LEGEND, highlight=False)
    console.print(_table(answers))


def _table(answers: Sequence[Answer]) -> Table:
    table = Table(
        box=None,  # leaves the most room for words
        padding=(0, 2, 0, 0),
        header_style="bold underline",
    )
    for name, width, justify in _COLUMNS:
        table.add_column(name, min_width=width, justify=justify, no_wrap=True)
    for answer in answers:
        table.add_row(*_row(answer))
    return table


def _row(answer: Answer) -> tuple[str | Text, ...]:
    report = answer.report
    achieved, targets = report.get("achieved") or {}, report.get("targets") or {}
    return (
        answer.request.class_name,
        _way(answer),
        _ms(achieved.get("ttft_ms"), 0),
        _ms(targets.get("ttft_ms"), 0),
        _ms(achieved.get("tpot_ms"), 1),
        _ms(targets.get("tpot_ms"), 0),
        _MET[report.get("met")],
        Text(f"failed: {answer.failure}", "red") if answer.failure else first_words(answer.text),
    )


def _way(answer: Answer) -> Text:
    way = answer.report.get("way") or _NOTHING
    return Text(way if answer.request.way else f"({way})")


def _ms(value: float | None, digits: int) -> str:
    return _NOTHING if value is None else f"{value:.{digits}f}"


def first_words(text: str) -> Text:
    words = text.split()
    return Text(" ".join(words[:_WORDS_SHOWN]) + (" …" if len(words) > _WORDS_SHOWN else ""))


def problems(answers: Sequence[Answer]) -> list[str]:
    """One line for each problem: a failed or empty answer, or a way that no request took."""
    found = [
        f"{answer.request.class_name}: {answer.failure or 'an empty answer'}"
        for answer in answers
        if answer.failure or not answer.text.strip()
    ]
    ways = {answer.report.get("way") for answer in answers}
    found += [f"no request went {way}" for way in ("colocated", "disaggregated") if way not in ways]
    return found


def lines_to_paste(url: str, model: str) -> str:
    """A curl and a Python command that work while the node serves."""
    slo = {"class": "chat", "report": True}
    message = {"role": "user", "content": "What is the capital of France?"}
    body: Mapping[str, Any] = {"model": model, "messages": [message], "max_tokens": 40, "slo": slo}
    return (
        f"curl -s {url}/v1/chat/completions -H 'content-type: application/json' "
        f"-d '{json.dumps(body)}'\n\n"
        f"python -c 'from openai import OpenAI; "
        f'print(OpenAI(base_url="{url}/v1", api_key="none").chat.completions.create('
        f'model="{model}", messages=[{json.dumps(message)}], max_tokens=40, '
        f"extra_body={json.dumps({'slo': {'class': 'chat'}})})"
        ".choices[0].message.content)'"
    )
