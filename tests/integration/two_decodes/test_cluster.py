"""A whole node with real engines and a tiny model: what clients see, in calm and under kills."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from itertools import count
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI

from deploy.compose_test.dashboard import MAY_BE_EMPTY, unanswered
from examples import agent, client
from tests.integration.load import WAYS, Load, seen, understandable
from tests.integration.node import Node, wait_until
from tests.integration.prometheus import running_prometheus
from tests.limits import ANSWER_LIMIT_S, START_LIMIT_S

pytestmark = pytest.mark.engines

# test_moves.py ends the other parts; with SLOS_TEST_ALL_CASES each part is killed by itself.
KILLED: list[tuple[str, ...]] = [("gateway",)]
if os.environ.get("SLOS_TEST_ALL_CASES"):
    KILLED += [("planner",), ("prefill-0",), ("decode-0",), ("gateway", "decode-0")]


def chat(node: Node, **more: object) -> httpx.Response:
    body = {"model": node.model, "messages": [{"role": "user", "content": "Hello there"}], **more}
    return httpx.post(f"{node.url}/v1/chat/completions", json=body, timeout=ANSWER_LIMIT_S)


@pytest.mark.parametrize("way", WAYS)
def test_a_report_tells_way_engines_and_what_was_achieved(node: Node, way: str) -> None:
    slo = {"ttft_ms": 60_000, "tpot_ms": 10_000, "way": way, "report": True}

    answer = chat(node, max_tokens=8, slo=slo).json()

    report = answer["slo"]
    assert report["way"] == way
    assert report["engines"]["decode"] in node.decodes
    assert report["engines"]["prefill"] == ("prefill-0" if way == "disaggregated" else None)
    assert report["met"] is True
    assert 0 < report["achieved"]["ttft_ms"] < 60_000


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_that_was_asked_for_by_deadlines_is_judged_by_them(node: Node, way: str) -> None:
    slo = {"ttft_ms": 5_000, "tpot_ms": 1_000, "pacing": "deadlines", "way": way, "report": True}

    report = chat(node, max_tokens=8, slo=slo).json()["slo"]

    of_the_first_token = round(report["achieved"]["ttft_ms"] / slo["ttft_ms"], 3)
    assert (report["targets"]["pacing"], report["met"]) == ("deadlines", True)
    assert of_the_first_token - 0.001 <= report["achieved"]["worst_lateness"] <= 1


def test_both_ways_give_the_same_text(node: Node) -> None:
    choices = [
        chat(node, max_tokens=30, temperature=0, slo={"way": way}).json()["choices"][0]
        for way in WAYS
    ]

    assert choices[0] == choices[1]


def test_what_no_engine_could_keep_is_refused_for_good_with_numbers(node: Node) -> None:
    for _ in range(6):  # the planner promises and refuses only by what it has measured
        chat(node, max_tokens=8)

    answer = chat(node, max_tokens=8, slo={"ttft_ms": 0.01, "on_refuse": "refuse"})

    error = answer.json()["error"]
    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert error["code"] == "never_possible"
    assert error["slo"]["predicted_ttft_ms"] > 0.01


def test_a_refused_stream_is_no_200(node: Node) -> None:
    slo = {"ttft_ms": 0.01, "on_refuse": "refuse"}

    answer = chat(node, stream=True, slo=slo)

    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert answer.json()["error"]["code"] == "never_possible"


def test_a_wrong_slo_field_is_a_400_that_names_the_right_one(node: Node) -> None:
    answer = chat(node, slo={"tft_ms": 100})

    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert "ttft_ms" in answer.json()["error"]["message"]


def test_the_openai_client_works(node: Node) -> None:
    with OpenAI(base_url=f"{node.url}/v1", api_key="none", max_retries=0) as client:
        models = [model.id for model in client.models.list()]
        whole = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "Hi"}], max_tokens=5, n=2
        )
        with client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "Hi"}],
            max_tokens=5,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"slo": {"report": True, "way": "disaggregated"}},
        ) as stream:
            chunks = list(stream)

    assert models == ["tiny"]
    assert len(whole.choices) == 2
    assert chunks[-1].usage is not None
    assert any(getattr(chunk, "slo", None) for chunk in chunks)


async def test_the_asynchronous_openai_client_works(node: Node) -> None:
    async with AsyncOpenAI(base_url=f"{node.url}/v1", api_key="none", max_retries=0) as client:
        answers = await asyncio.gather(
            *(client.completions.create(model="tiny", prompt="a b", max_tokens=4) for _ in range(4))
        )
        response = await client.responses.create(model="tiny", input="Hi", max_output_tokens=20)

    assert [answer.usage.completion_tokens for answer in answers if answer.usage] == [4] * 4
    assert response.usage is not None


def test_a_decision_can_be_explained_after_the_answer(node: Node) -> None:
    report = chat(node, max_tokens=4, slo={"report": True}).json()["slo"]

    words = ["planner", "--explain", report["decision_id"], "--planner", node.planner]
    told = subprocess.run(
        [sys.executable, "-c", "import services.cli, sys; sys.exit(services.cli.main())", *words],
        capture_output=True,
        text=True,
        timeout=START_LIMIT_S,
        check=True,
    ).stdout

    assert report["decision_id"] in told
    assert report["engines"]["decode"] in told


async def test_clients_that_hang_up_free_their_kv_and_harm_no_other_request(node: Node) -> None:
    alone = await Load(node.url, node.model, in_flight=1).run(range(8))
    expected = {told.number: told.text for told in alone}
    load = Load(node.url, node.model, hang_up=lambda number: number % 10 == 9)

    told = await load.run(range(100))

    stayed = [one for one in told if not one.hung_up]
    assert len(told) - len(stayed) == 10
    assert [one for one in stayed if not one.complete] == []
    wait_until(node.at_rest, limit_s=60)
    assert {one.number: one.text for one in told if one.number in expected} == expected


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
def test_every_panel_of_the_dashboard_has_numbers_under_load(node: Node, tmp_path: Path) -> None:
    pages = {
        "gateway": [node.ports.gateway],
        "planner": [node.ports.planner_metrics],
        "engines": [engine.metrics for engine in node.ports.engines],
    }
    missing: set[str] = set()
    rounds = count()
    with running_prometheus(tmp_path, pages) as prometheus:

        def all_have_numbers() -> bool:
            for way in WAYS:
                slo = {"ttft_ms": 60_000, "tpot_ms": 10_000, "way": way}
                salt = str(next(rounds))  # KV that is cached already would not move
                answer = chat(node, max_tokens=8, slo=slo, cache_salt=salt)
                assert answer.status_code == httpx.codes.OK
            missing.clear()
            # The desired engines come once a new planner has compiled their replay: minutes later.
            missing.update(
                one.panel
                for one in unanswered(prometheus, "1m")
                if one.panel not in MAY_BE_EMPTY and "desired_engines" not in one.text
            )
            return not missing

        try:
            wait_until(all_have_numbers, limit_s=180)
        except AssertionError as error:
            raise AssertionError(f"no number in {sorted(missing)}") from error


def test_the_classes_of_the_example_are_those_of_the_gateway(node: Node) -> None:
    listed = httpx.get(f"{node.url}/v1/slo/classes", timeout=ANSWER_LIMIT_S).json()["data"]

    asked_for = {one["id"]: (one["ttft_ms"], one["tpot_ms"], one["on_refuse"]) for one in listed}
    assert asked_for["code"] == (4000, 300, "refuse")
    assert asked_for["batch"] == (None, None, "best_effort")
    assert asked_for.keys() == {"chat", "code", "summary", "think", "batch", "default"}


def test_the_client_of_the_examples_reads_text_and_report_of_a_stream(node: Node) -> None:
    body = {"model": node.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}

    answer = client.ask(node.url, body, {"ttft_ms": 60_000, "tpot_ms": 10_000})

    assert answer.text
    assert (answer.report["admission"], answer.report["met"]) == ("admitted", True)


def test_the_client_of_the_examples_does_not_repeat_what_is_never_possible(node: Node) -> None:
    body = {"model": node.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}

    with pytest.raises(client.Refused, match="no engine here does it even idle") as refused:
        client.ask_patiently(node.url, body, {"ttft_ms": 0.01})

    assert refused.value.retry_after_s is None


def test_the_agent_of_the_examples_ends_with_words_of_the_model(node: Node) -> None:
    with httpx.Client(base_url=node.url, timeout=ANSWER_LIMIT_S) as http:
        messages = agent.run(http, node.model, "Warm in Rome?", {"look_up": agent.look_up})

    assert messages[0]["role"] == "user"
    assert messages[-1]["role"] == "assistant"
    assert messages[-1]["content"]


@pytest.mark.parametrize("killed", KILLED, ids=" and ".join)
async def test_killed_parts_come_back_and_nothing_hangs(
    node: Node, killed: tuple[str, ...]
) -> None:
    (before,) = await Load(node.url, node.model).run([0])
    load = asyncio.create_task(Load(node.url, node.model, in_flight=4).run(range(60)))
    await asyncio.sleep(1)

    for part in killed:
        node.kill(part)
    until_again = [
        asyncio.to_thread(wait_until, partial(node.answers, way), START_LIMIT_S) for way in WAYS
    ]
    again_s = await asyncio.gather(*until_again)
    told = await load

    assert len(told) == 60
    assert [one for one in told if not understandable(one, killed)] == []
    log = (node.run_dir / "up.log").read_text()
    assert [part for part in killed if f"{part} was killed by signal 9; starting" not in log] == []
    (after,) = await Load(node.url, node.model).run([0])
    assert after.text == before.text
    # KV that was not fetched is released by its lease.
    rest_s = wait_until(node.at_rest, limit_s=60)
    waits = ", ".join(f"{way} {s:.1f} s" for way, s in zip(WAYS, again_s, strict=True))
    print(f"\n{killed} killed: {seen(told)}; again {waits}; at rest {rest_s:.1f} s later")


def test_a_part_that_cannot_start_ends_the_node_with_its_last_words(tmp_path: Path) -> None:
    config = tmp_path / "slos.yaml"
    config.write_text("decode: {vllm: {no_such_setting: 1}}")  # only vLLM knows that
    small = ("--model=tiny", "--prefill=0", "--kv-cache-gib=0.05")
    flags = (*small, "--auto-ports", f"--run-dir={tmp_path}", f"--config={config}")

    ended = subprocess.run(
        [sys.executable, "-m", "services", *flags],
        capture_output=True,
        text=True,
        timeout=START_LIMIT_S,
        check=False,
    )

    assert ended.returncode == 1
    assert re.search(r"decode-0 ended with status \d+. The end of its log", ended.stdout)
    assert "no_such_setting" in ended.stdout
