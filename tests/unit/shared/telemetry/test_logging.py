import io
import json
import logging

import pytest

from shared.errors import ConfigError
from shared.telemetry.logging import set_up_logging


def written(environ: dict[str, str], level: int, message: str) -> str:
    stream = io.StringIO()
    set_up_logging("planner", environ, stream)
    logging.getLogger("services.planner.state.cluster").log(level, message)
    return stream.getvalue()


def test_text_is_one_line_with_process_and_level() -> None:
    line = written({}, logging.INFO, "attached prefill-0")
    assert line.endswith("INFO    planner  attached prefill-0\n")


def test_json_is_one_object_per_line() -> None:
    line = json.loads(written({"SLOS_LOG_FORMAT": "json"}, logging.WARNING, "two\nlines"))
    assert (line["level"], line["process"], line["message"]) == ("WARNING", "planner", "two\nlines")


@pytest.mark.parametrize(("level", "shown"), [("warning", False), ("DEBUG", True), ("", True)])
def test_the_level_is_the_one_asked_for(level: str, *, shown: bool) -> None:
    assert bool(written({"SLOS_LOG_LEVEL": level}, logging.INFO, "x")) is shown


def test_a_second_set_up_replaces_the_first() -> None:
    first = io.StringIO()
    set_up_logging("planner", {}, first)
    assert "x" in written({}, logging.INFO, "x")
    assert first.getvalue() == ""


@pytest.mark.parametrize("name", ["SLOS_LOG_LEVEL", "SLOS_LOG_FORMAT"])
def test_a_wrong_value_says_what_is_allowed(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: read 'loud', allowed is one of"):
        set_up_logging("planner", {name: "loud"})
