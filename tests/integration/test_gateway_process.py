"""A gateway process without a planner: how it starts, what it says, how it ends. No engine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from shared.clock import MonotonicClock
from shared.models.tiny import make_tiny_model
from tests.integration.node import wait_until
from tests.limits import ANSWER_LIMIT_S, START_LIMIT_S
from tests.processes import free_port

QUIET_S = 60  # far longer than the tests take
GRAMMAR_LIMIT_S = 1.0


@dataclass
class GatewayProcess:
    process: subprocess.Popen[str]
    port: int
    http: httpx.Client

    def answers(self) -> bool:
        try:
            return self.http.get("/live").status_code == 200
        except httpx.TransportError:
            return False


def slow_grammar(name: str) -> object:
    """Takes about seven seconds of a quick core."""
    word = {"type": "string", "pattern": "^[a-z]{1,40}$"}
    properties = {f"{name}{at}": word for at in range(2_800)}
    return {"json": {"type": "object", "properties": properties}}


def command(port: int, *more: str) -> list[str]:
    where = ["--port", str(port), "--planner", f"127.0.0.1:{free_port()}"]
    return [sys.executable, "-m", "services.gateway", *where, *more]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    model = make_tiny_model(Path(tmp_path_factory.mktemp("tiny")))
    port = free_port()
    process = subprocess.Popen(
        command(
            port,
            *("--model", str(model), "--served-model-name", "tiny"),
            *("--drain-limit-s", "120", "--drain-quiet-s", str(QUIET_S)),
            *("--grammar-limit-s", str(GRAMMAR_LIMIT_S)),
        ),
        env=os.environ | {"HF_HUB_OFFLINE": "1", "SLOS_GATEWAY_API_KEY": "k"},
        stderr=subprocess.PIPE,
        text=True,
    )
    headers = {"authorization": "Bearer k"}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as http:
            running = GatewayProcess(process, port, http)
            wait_for(running)
            yield running
    finally:
        process.kill()
        process.communicate(timeout=ANSWER_LIMIT_S)


def wait_for(gateway: GatewayProcess) -> None:
    clock = MonotonicClock()
    give_up_at_s = clock.now() + START_LIMIT_S
    while not gateway.answers():
        assert gateway.process.poll() is None, gateway.process.communicate()[1]
        assert clock.now() < give_up_at_s
        time.sleep(0.2)


def test_without_a_planner_it_lives_but_is_not_ready(gateway: GatewayProcess) -> None:
    ready = gateway.http.get("/ready")

    assert (gateway.http.get("/live").status_code, ready.status_code) == (200, 503)
    assert ready.json()["error"]["code"] == "planner_unavailable"


@pytest.mark.parametrize("stream", [True, False])
def test_without_a_planner_a_request_is_a_503(gateway: GatewayProcess, *, stream: bool) -> None:
    answer = gateway.http.post(
        "/v1/completions",
        json={"model": "tiny", "prompt": "hi", "stream": stream},
        timeout=ANSWER_LIMIT_S,
    )

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "planner_unavailable")


@pytest.mark.parametrize("path", ["/v1/completions", "/invocations", "/tokenize"])
def test_without_its_key_a_client_gets_a_401_and_a_request_id(
    gateway: GatewayProcess, path: str
) -> None:
    answer = gateway.http.post(path, headers={"authorization": ""}, json={"slo": 1})

    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert answer.headers["x-request-id"]


def test_a_second_gateway_on_the_port_is_one_line_with_the_cure(gateway: GatewayProcess) -> None:
    done = subprocess.run(
        command(gateway.port), capture_output=True, text=True, timeout=ANSWER_LIMIT_S, check=False
    )

    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "--port (SLOS_GATEWAY_PORT)" in done.stderr


def ask(
    gateway: GatewayProcess, structured: object, timeout_s: float = ANSWER_LIMIT_S
) -> httpx.Response:
    body = {"model": "tiny", "prompt": "hi", "structured_outputs": structured}
    return gateway.http.post("/v1/completions", json=body, timeout=timeout_s)


def grammar_processes(gateway: GatewayProcess) -> list[psutil.Process]:
    """The server and those of the grammars that it compiles."""
    children = psutil.Process(gateway.process.pid).children(recursive=True)
    return [one for one in children if one.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    "structured",
    [
        {"json": {"type": "object", "properties": {"a": {"type": "string"}}}},
        {"json": {"type": "integer", "multipleOf": 3}},
        {"choice": ["a", "b"]},
        {"regex": "[a-z]+"},
        {"grammar": 'root ::= "a" | "b"'},
        {"json_object": True},
    ],
)
def test_a_grammar_that_compiles_lets_its_request_go_on(
    gateway: GatewayProcess, structured: object
) -> None:
    answer = ask(gateway, structured)

    assert answer.json()["error"]["code"] == "planner_unavailable"


@pytest.mark.parametrize(
    "structured",
    [
        {"regex": "((("},
        {"regex": "|".join(f"word{at}" for at in range(50_000))},
        {"grammar": "root ::= ("},
        {"grammar": "root ::= root"},
        {"json": {"type": "nothing"}},
        {"json": "{"},
        {"structural_tag": "[]"},
        {"choice": []},
        slow_grammar("p"),
    ],
)
def test_a_grammar_that_cannot_be_had_is_a_400_that_names_the_field(
    gateway: GatewayProcess, structured: object
) -> None:
    answer = ask(gateway, structured)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "structured_outputs")


def test_a_grammar_whose_client_is_gone_is_not_compiled_further(gateway: GatewayProcess) -> None:
    for name in "abcd":
        with pytest.raises(httpx.ReadTimeout):
            ask(gateway, slow_grammar(name), timeout_s=0.2)

    wait_until(lambda: len(grammar_processes(gateway)) == 1, ANSWER_LIMIT_S)

    assert ask(gateway, {"choice": ["c", "d"]}).json()["error"]["code"] == "planner_unavailable"


def test_when_told_to_stop_it_serves_those_that_learn_late_and_ends_well(
    gateway: GatewayProcess,
) -> None:
    # The process of the last grammar ends a moment after its answer.
    wait_until(lambda: len(grammar_processes(gateway)) == 1, ANSWER_LIMIT_S)
    (server,) = grammar_processes(gateway)
    gateway.process.send_signal(signal.SIGTERM)
    ready = gateway.http.get("/ready")
    while ready.json()["error"]["code"] != "draining":
        ready = gateway.http.get("/ready")
    answer = gateway.http.post("/v1/completions", json={"model": "tiny", "prompt": "hi"})
    gateway.process.send_signal(signal.SIGTERM)  # it would wait for QUIET_S
    _, log = gateway.process.communicate(timeout=ANSWER_LIMIT_S)

    assert answer.json()["error"]["code"] == "planner_unavailable"
    assert answer.headers["connection"] == ready.headers["connection"] == "close"
    assert gateway.process.returncode == 0
    assert "Traceback" not in log
    wait_until(lambda: not server.is_running(), ANSWER_LIMIT_S)
