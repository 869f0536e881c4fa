"""Our scheduler in vLLM's own server: the tokens are stock vLLM's, and SLOs are counted."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared.engine.config import EngineOptions
from shared.engine.environment import engine_environment
from shared.models.tiny import make_tiny_model
from tests.integration.node import LOOPBACK, STOP_LIMIT_S, wait_until
from tests.limits import ANSWER_LIMIT_S, POLL_LIMIT_S, START_LIMIT_S
from tests.processes import free_port

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(
        not os.environ.get("SLOS_TEST_ALL_CASES"),
        reason="starts two servers of vLLM for a minute and a half: SLOS_TEST_ALL_CASES=1",
    ),
]

SCHEDULER = "shared.engine.vllm_standalone.StandaloneScheduler"
FAR_MS, NEVER_MS = 1e6, 1e-3  # every answer meets the first, none the second
ASKED: list[dict[str, Any]] = [
    {},
    {"slo_ttft_ms": FAR_MS, "slo_tpot_ms": FAR_MS},
    {"slo_class": "chat"},
    {"slo_class": "chat", "slo_ttft_ms": NEVER_MS},
    {"slo_ttft_ms": -1},
    {"slos": "text of a client under the name that carries terms"},
]


def test_tokens_are_those_of_stock_vllm_and_attainment_is_counted(tmp_path: Path) -> None:
    model = str(make_tiny_model(tmp_path / "model"))
    metrics_port = free_port()
    settings = {"metrics_port": metrics_port, "classes": {"chat": {"slo_ttft_ms": FAR_MS}}}
    ours = ("--scheduler-cls", SCHEDULER, "--additional-config", json.dumps({"slos": settings}))

    with vllm_server(model, tmp_path / "stock.log") as url:
        expected = [answer(url, number, {}) for number in range(len(ASKED))]
    with vllm_server(model, tmp_path / "ours.log", *ours) as url:
        given = [answer(url, number, extra) for number, extra in enumerate(ASKED)]
        counted = counts(metrics_port)

    assert given == expected
    assert counted == {
        ("default", "slo"): 1,
        ("default", "no_slo"): 2,
        ("default", "invalid"): 1,
        ("chat", "slo"): 2,
        ("default", "met", "ttft"): 1,
        ("default", "met", "tpot"): 1,
        ("chat", "met", "ttft"): 1,
        ("chat", "missed", "ttft"): 1,
    }


def answer(url: str, number: int, extra: dict[str, Any]) -> str:
    body = {
        "model": "tiny",
        "prompt": [3 + (7 * number + place) % 200 for place in range(20 + 40 * number)],
        "max_tokens": 24,
        "temperature": 0,
        "ignore_eos": True,
        "vllm_xargs": extra,
    }
    reply = httpx.post(f"{url}/v1/completions", json=body, timeout=ANSWER_LIMIT_S)
    assert reply.status_code == httpx.codes.OK, reply.text
    return str(reply.json()["choices"][0]["text"])


def counts(metrics_port: int) -> dict[tuple[str, ...], float]:
    """Samples of our page by the values of their labels, in the order of the labels' names."""
    page = httpx.get(f"http://{LOOPBACK}:{metrics_port}/metrics", timeout=ANSWER_LIMIT_S).text
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


@contextmanager
def vllm_server(model: str, log_file: Path, *flags: str) -> Iterator[str]:
    """The server of `vllm serve`, whose command line asks for a package of the name `vllm`."""
    url = f"http://{LOOPBACK}:{(port := free_port())}"
    words = (
        *("--model", model, "--served-model-name", "tiny", "--host", LOOPBACK, "--port", str(port)),
        *("--dtype", "float32", "--max-model-len", "1024", "--max-num-seqs", "8"),
        *("--block-size", "32", "--kv-cache-memory-bytes", str(1 << 26), "--enforce-eager"),
    )
    one_process = engine_environment(EngineOptions(), cpu=True)
    with log_file.open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words, *flags],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **one_process},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: is_up(server, url, log_file), START_LIMIT_S)
        yield url
    finally:
        server.terminate()
        server.wait(STOP_LIMIT_S)


def is_up(server: "subprocess.Popen[bytes]", url: str, log_file: Path) -> bool:
    assert server.poll() is None, log_file.read_text()[-2000:]
    try:
        return httpx.get(f"{url}/health", timeout=POLL_LIMIT_S).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
