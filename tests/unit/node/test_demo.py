import io
import json
import re
import shlex
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from rich.console import Console

from services.gateway.config import GatewayOptions
from services.gateway.slo_inputs import read_inputs
from services.node.config import NodeOptions
from services.node.demo_client import Answer, ask
from services.node.demo_requests import DemoRequest, demo_requests, first_requests
from services.node.demo_table import lines_to_paste, print_answers, problems
from services.node.up import config_file
from shared.options import load
from shared.requests import PlacementMode

CONFIG = str(files("services.node") / "demo.yaml")
REQUEST = DemoRequest(
    class_name="code", prompt="p", answer_tokens=8, way=PlacementMode.DISAGGREGATED
)
REPORT = {
    "way": "disaggregated",
    "targets": {"ttft_ms": 6000.0, "tpot_ms": 150.0},
    "achieved": {"ttft_ms": 812.4, "tpot_ms": None},
    "met": True,
}


def answer(**changes: Any) -> Answer:
    return Answer(**{"request": REQUEST, "text": "hello", "report": REPORT, **changes})


def rendered(*answers: Answer, width: int = 140) -> str:
    out = Console(width=width, file=io.StringIO())
    print_answers(answers, out)
    return out.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", [40, 80, 140])
def test_the_legend_is_whole_at_any_width(width: int) -> None:
    legend = rendered(answer(), width=width).partition("class ")[0]

    assert " ".join(legend.split()) == (
        "Times in milliseconds. A way in brackets is the planner's choice."
    )


def row(text: str) -> list[str]:
    """The cells of the only row, which are two spaces apart or more."""
    return re.split(r"\s{2,}", text.rstrip().splitlines()[-1].strip())


def test_a_dozen_requests_of_three_classes_go_both_ways_and_as_the_planner_likes() -> None:
    requests = demo_requests()

    assert len(requests) == 12
    for name in ("summary", "code", "chat"):
        ways = [one.way for one in requests if one.class_name == name]
        assert ways == [PlacementMode.COLOCATED, PlacementMode.DISAGGREGATED, None, None]
    assert len({one.prompt for one in requests}) == 12
    assert {one.way for one in first_requests()} == set(PlacementMode)


def test_the_gateway_understands_every_request_with_the_packaged_classes() -> None:
    options = load(
        GatewayOptions,
        section="gateway",
        argv=["--model=m", "--config", CONFIG],
        environ={},
        prog="",
    )

    for one in demo_requests():
        inputs = read_inputs(one.body("m")["slo"], {}, options.catalogue())

        assert inputs.targets.ttft_s is not None
        assert inputs.targets.tpot_s is not None
        assert inputs.forced_way is one.way
        assert inputs.wants_report


def test_the_node_understands_the_packaged_file() -> None:
    options = load(NodeOptions, section="node", argv=["--config", CONFIG], environ={}, prog="")

    written = yaml.safe_load(Path(CONFIG).read_text())["node"]
    assert options.max_model_len == written["max_model_len"]


def test_a_row_shows_class_way_times_targets_and_words() -> None:
    assert row(rendered(answer())) == [
        "code", "disaggregated", "812", "6000", "-", "150", "yes", "hello"
    ]  # fmt: skip


def test_a_way_that_the_planner_chose_is_in_brackets() -> None:
    chosen = DemoRequest(class_name="chat", prompt="p", answer_tokens=8)

    assert row(rendered(answer(request=chosen)))[1] == "(disaggregated)"


def test_a_failure_takes_the_place_of_the_words() -> None:
    assert "failed: HTTP 503: none" in rendered(
        answer(report={}, text="", failure="HTTP 503: none")
    )


def test_words_that_look_like_markup_are_shown_as_they_are() -> None:
    assert row(rendered(answer(text="[red]x[/red] y")))[-1] == "[red]x[/red] y"


def test_all_is_well_only_with_words_in_every_answer_and_both_ways() -> None:
    other = answer(report=REPORT | {"way": "colocated"})

    assert problems([answer(), other]) == []
    assert problems([answer()]) == ["no request went colocated"]
    assert problems([answer(), other, answer(text=" ")]) == ["code: an empty answer"]
    assert problems([answer(), other, answer(failure="cut")]) == ["code: cut"]


def test_the_line_to_paste_is_a_shell_command_with_a_json_body() -> None:
    curl, python = (shlex.split(line) for line in lines_to_paste("http://h:1", "m").split("\n\n"))

    assert json.loads(curl[-1])["slo"]["class"] == "chat"
    compile(python[-1], "pasted", "exec")


def client(reply: Callable[[httpx.Request], httpx.Response]) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url="http://h", transport=httpx.MockTransport(reply))


def stream(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


async def test_a_streamed_answer_is_put_together_with_its_report() -> None:
    body = stream(
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"content": "he"}}]},
        {"choices": [{"delta": {"content": "llo"}}]},
        {"choices": [], "slo": REPORT},
    )

    async with client(lambda _: httpx.Response(200, content=body + b"data: [DONE]\n\n")) as http:
        assert await ask(http, REQUEST, "m") == answer()


async def test_an_error_event_within_a_stream_is_a_failure() -> None:
    body = stream({"choices": []}, {"error": {"message": "the engine is gone"}})

    async with client(lambda _: httpx.Response(200, content=body)) as http:
        assert (await ask(http, REQUEST, "m")).failure == "the engine is gone"


@pytest.mark.parametrize(
    ("body", "failure"),
    [(b'{"error": {"message": "no"}}', "HTTP 429: no"), (b"<html>", "HTTP 429: <html>")],
)
async def test_a_refusal_is_a_failure_with_status_and_words(body: bytes, failure: str) -> None:
    async with client(lambda _: httpx.Response(429, content=body)) as http:
        assert (await ask(http, REQUEST, "m")).failure == failure


async def test_a_gateway_that_is_gone_is_a_failure_and_no_exception() -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    async with client(gone) as http:
        assert (await ask(http, REQUEST, "m")).failure == "ConnectError: refused"


@pytest.mark.parametrize(
    ("argv", "environ", "found"),
    [
        (["--config", "a"], {"SLOS_CONFIG": "b"}, "a"),
        (["--port", "1", "--config=a"], {}, "a"),
        ([], {"SLOS_CONFIG": "b"}, "b"),
        ([], {}, None),
    ],
)
def test_the_configuration_file_is_found_as_the_options_find_it(
    argv: list[str], environ: dict[str, str], found: str | None
) -> None:
    assert config_file(argv, environ) == found
