"""The embedded model answers the same co-located, disaggregated, and from plain vLLM."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from services.node.machine import memory_gib
from services.node.shares import share_cpu
from shared.engine.environment import thread_environment
from shared.models import resolve_model
from tests.integration.load import WAYS
from tests.integration.node import LOOPBACK, STOP_LIMIT_S, free_ports, running_node, wait_until
from tests.integration.same_tokens import Case, Json, cases, differences

pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]

VOCABULARY_TOKENS = 49_152
MODEL = "embedded"
ALL_CASES = "SLOS_TEST_ALL_CASES"  # set it for all forty; ten of them, every kind, otherwise
SWITCHES = ("--enforce-eager", "--enable-auto-tool-choice")


def test_the_answer_does_not_depend_on_the_way(tmp_path: Path) -> None:
    asked = cases(VOCABULARY_TOKENS)[:: 1 if os.environ.get(ALL_CASES) else 4]
    with plain_vllm(tmp_path) as url:
        expected = [ask(url, case, salt="plain") for case in asked]
    config = tmp_path / "slos.yaml"
    config.write_text("gateway: {tool_call_parser: hermes}")
    (tmp_path / "node").mkdir()
    with running_node(MODEL, tmp_path / "node", "--config", str(config)) as node:
        misses = {
            f"{case.kind} {number} {way}": found
            for way in WAYS
            for number, case in enumerate(asked)
            if (found := differences(expected[number], ask(node.url, by_way(case, way), salt=way)))
        }

    tell(asked, misses)
    assert misses == {}


def by_way(case: Case, way: str) -> Case:
    return replace(case, body={**case.body, "slo": {"way": way}})


def ask(url: str, case: Case, *, salt: str) -> Json:
    """The salt keeps one way from reading the prefixes that another has cached."""
    body = {"model": MODEL, "cache_salt": salt, **case.body}
    answer = httpx.post(url + case.path, json=body, timeout=120)
    assert answer.status_code == httpx.codes.OK, answer.text
    found: Json = answer.json()
    return found


@contextmanager
def plain_vllm(folder: Path) -> Iterator[str]:
    """vLLM's own server in one process tree, with the threads and shapes of one of our engines."""
    port = free_ports()[0].gateway
    cores = share_cpu(sorted(os.sched_getaffinity(0)), memory_gib(), 2, 0.5)[0].cores
    flags = {
        "model": resolve_model(MODEL),
        "served-model-name": MODEL,
        "host": LOOPBACK,
        "port": port,
        "dtype": "float32",
        "block-size": 32,
        "max-model-len": 2048,
        "max-num-seqs": 64,
        "max-num-batched-tokens": 2048,
        "kv-cache-memory-bytes": 1 << 29,
        "tool-call-parser": "hermes",
    }
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    with (folder / "plain.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words, *SWITCHES],
            env={**os.environ, "HF_HUB_OFFLINE": "1", **thread_environment(cores, 1)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: healthy(f"http://{LOOPBACK}:{port}"), 180)
        yield f"http://{LOOPBACK}:{port}"
    finally:
        process.terminate()
        process.wait(STOP_LIMIT_S)


def healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def tell(asked: list[Case], misses: dict[str, list[str]]) -> None:
    """The count of exact matches by kind, for those who read the output (`pytest -s`)."""
    for way in WAYS:
        missed = Counter(
            case.kind
            for number, case in enumerate(asked)
            if f"{case.kind} {number} {way}" in misses
        )
        for kind, total in Counter(case.kind for case in asked).items():
            print(f"{way:14} {kind:12} {total - missed[kind]}/{total} the same")
