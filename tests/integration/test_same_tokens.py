"""The embedded model answers the same co-located, disaggregated, and from plain vLLM."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.node.machine import memory_gib
from services.node.shares import share_cpu
from shared.engine.environment import thread_environment
from shared.models import resolve_model
from shared.ports import FreePorts
from tests.integration.load import WAYS
from tests.integration.node import (
    LOOPBACK,
    NO_TLS,
    STOP_LIMIT_S,
    Node,
    free_ports,
    running_node,
    wait_until,
)
from tests.integration.same_tokens import Case, Json, cases, differences
from tests.limits import ANSWER_LIMIT_S, POLL_LIMIT_S

pytestmark = pytest.mark.engines

VOCABULARY_TOKENS = 49_152
MODEL = "embedded"
KV_CACHE_GIB = 0.2  # two of the longest prompts that the model takes
ALL_CASES = "SLOS_TEST_ALL_CASES"  # set it for all forty; ten of them, every kind, otherwise
# Of the decode engines; the forty answers are compared over each transport and over two at once.
TRANSPORTS: list[tuple[str, ...]] = (
    [("nixl",), ("zmq",), ("nixl", "zmq")] if os.environ.get(ALL_CASES) else [("auto",)]
)
SWITCHES = ("--enforce-eager", "--enable-auto-tool-choice")


@pytest.fixture(scope="module")
def asked() -> list[Case]:
    return cases(VOCABULARY_TOKENS)[:: 1 if os.environ.get(ALL_CASES) else 4]


@pytest.fixture(scope="module")
def expected(asked: list[Case], tmp_path_factory: pytest.TempPathFactory) -> list[Json]:
    """The answers of plain vLLM."""
    with plain_vllm(tmp_path_factory.mktemp("plain")) as url:
        return [ask(url, case, salt="plain") for case in asked]


@pytest.mark.parametrize("decode_transports", TRANSPORTS, ids=" and ".join)
def test_the_answer_does_not_depend_on_the_way(
    tmp_path: Path, asked: list[Case], expected: list[Json], decode_transports: tuple[str, ...]
) -> None:
    """With two transports, one decode engine has the one and a second the other."""
    first, *others = decode_transports
    config = tmp_path / "slos.yaml"
    config.write_text(
        '{gateway: {tool_call_parser: hermes}, prefill: {profile: "off"}, '
        f'decode: {{profile: "off", kv_transport: {first}}}}}'  # no request here has a target
    )
    (tmp_path / "node").mkdir()
    with (
        running_node(
            MODEL, tmp_path / "node", "--config", str(config), kv_cache_gib=KV_CACHE_GIB
        ) as node,
        more_decode_engines(node, tmp_path, others) as metrics_ports,
    ):
        misses: dict[str, list[str]] = {}

        def compare(number: int, way: str) -> None:
            told = ask(node.url, by_way(asked[number], way), salt=way)
            if found := differences(expected[number], told):
                misses[f"{asked[number].kind} {number} {way}"] = found

        with ThreadPoolExecutor(len(decode_transports)) as pool:
            for way in WAYS:
                list(pool.map(partial(compare, way=way), range(len(asked))))
        carried = [carriers(port) for port in (node.ports.engines[1].metrics, *metrics_ports)]

    tell(asked, misses)
    print("transfers of each decode engine:", carried)
    assert misses == {}
    for moved, transport in zip(carried, decode_transports, strict=True):
        assert sum(moved.values()) > 0
        assert transport == "auto" or set(moved) == {transport}


@contextmanager
def more_decode_engines(node: Node, folder: Path, transports: Sequence[str]) -> Iterator[list[int]]:
    """Engines beside those of the node; gives the ports of their metrics."""
    with ExitStack() as stack:
        found = []
        for number, transport in enumerate(transports):
            with FreePorts() as free:
                names = ("port", "metrics-port", "kv-port", "nixl-port")
                ports = {name: free.pick() for name in names}
            flags = {
                **ports,
                "planner": f"{LOOPBACK}:{node.ports.planner}",
                "name": f"decode-more-{number}",
                "model": resolve_model(MODEL),
                "served-model-name": MODEL,
                "dtype": "float32",
                "max-model-len": 2048,
                "kv-cache-gib": KV_CACHE_GIB,
                "profile": "off",
                "kv-transport": transport,
                "cores": max(os.sched_getaffinity(0)),
            }
            words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
            log = stack.enter_context((folder / f"more-{number}.log").open("w"))
            engine = subprocess.Popen(
                [sys.executable, "-m", "services.decode", *words],
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            stack.callback(engine.wait, STOP_LIMIT_S)
            stack.callback(engine.terminate)
            found.append(ports["metrics-port"])
        for number in range(len(transports)):
            wait_until(partial(attached, node, f"decode-more-{number}"), ANSWER_LIMIT_S)
        yield found


def attached(node: Node, engine: str) -> bool:
    page = httpx.get(
        f"http://{LOOPBACK}:{node.ports.planner_metrics}/metrics",
        timeout=ANSWER_LIMIT_S,
        verify=NO_TLS,
    ).text
    return f'"{engine}"' in page


def carriers(metrics_port: int) -> dict[str, float]:
    """Transfers of one decode engine that were used, by transport."""
    page = httpx.get(f"http://{LOOPBACK}:{metrics_port}/metrics", timeout=ANSWER_LIMIT_S).text
    return {
        sample.labels["transport"]: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "slos_kv_transfers_total" and sample.labels["outcome"] == "used"
    }


def by_way(case: Case, way: str) -> Case:
    return replace(case, body={**case.body, "slo": {"way": way}})


def ask(url: str, case: Case, *, salt: str) -> Json:
    """The salt keeps one way from reading the prefixes that another has cached."""
    body = {"model": MODEL, "cache_salt": salt, **case.body}
    answer = httpx.post(url + case.path, json=body, timeout=ANSWER_LIMIT_S)
    assert answer.status_code == httpx.codes.OK, answer.text
    found: Json = answer.json()
    return found


@contextmanager
def plain_vllm(folder: Path) -> Iterator[str]:
    """vLLM's own server in one process tree, with the threads and shapes of one of our engines."""
    port = free_ports()[0].gateway
    cores = share_cpu(sorted(os.sched_getaffinity(0)), memory_gib(), 2, KV_CACHE_GIB)[0].cores
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
        "kv-cache-memory-bytes": round(KV_CACHE_GIB * (1 << 30)),
        "tool-call-parser": "hermes",
    }
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    one_process = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}  # for the engine core and its worker
    with (folder / "plain.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words, *SWITCHES],
            env={
                **os.environ,
                "HF_HUB_OFFLINE": "1",
                **thread_environment(cores, 1),
                **one_process,
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: healthy(f"http://{LOOPBACK}:{port}"), ANSWER_LIMIT_S)
        yield f"http://{LOOPBACK}:{port}"
    finally:
        process.terminate()
        process.wait(STOP_LIMIT_S)


def healthy(url: str) -> bool:
    try:
        return (
            httpx.get(f"{url}/health", timeout=POLL_LIMIT_S, verify=NO_TLS).status_code
            == httpx.codes.OK
        )
    except httpx.HTTPError:
        return False


def tell(asked: list[Case], misses: dict[str, list[str]]) -> None:
    """The count of exact matches by kind, for the output (`pytest -s`)."""
    for way in WAYS:
        missed = Counter(
            case.kind
            for number, case in enumerate(asked)
            if f"{case.kind} {number} {way}" in misses
        )
        for kind, total in Counter(case.kind for case in asked).items():
            print(f"{way:14} {kind:12} {total - missed[kind]}/{total} the same")
