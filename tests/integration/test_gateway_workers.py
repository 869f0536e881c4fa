"""A gateway of two worker processes, without a planner and engines."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import psutil
import pytest

from services.bench.http_client import metric_in
from shared.clock import MonotonicClock
from shared.models.tiny import make_tiny_model
from tests.integration.node import wait_until
from tests.limits import ANSWER_LIMIT_S, START_LIMIT_S
from tests.processes import free_port

WORKERS = 2
REQUESTS = 8
PER_MINUTE = 30


@dataclass
class Workers:
    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def pids(self) -> set[int]:
        children = psutil.Process(self.process.pid).children()
        return {one.pid for one in children if one.status() != psutil.STATUS_ZOMBIE}

    def metric(self, name: str) -> float | None:
        """From the page of whichever worker takes a new connection."""
        try:
            return metric_in(httpx.get(f"{self.url}/metrics").text, name)
        except httpx.TransportError:
            return None

    def ask(self) -> int:
        body = {"model": "tiny", "prompt": "hi"}
        return httpx.post(
            f"{self.url}/v1/completions", json=body, timeout=ANSWER_LIMIT_S
        ).status_code

    def requests(self) -> set[float | None]:
        """The count of requests on many pages."""
        name = 'slos_requests_total{admission="none",class="default",outcome="failed"}'
        return {self.metric(name) for _ in range(REQUESTS)}


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    folder = tmp_path_factory.mktemp("workers")
    model = make_tiny_model(folder)
    tenants = folder / "tenants.yaml"
    tenants.write_text(f"default: {{requests_per_minute: {PER_MINUTE}}}")
    port = free_port()
    where = ["--port", str(port), "--planner", f"127.0.0.1:{free_port()}"]
    what = ["--model", str(model), "--served-model-name", "tiny", "--workers", str(WORKERS)]
    what += ["--tenants-file", str(tenants)]
    process = subprocess.Popen(
        [sys.executable, "-m", "services.gateway", *where, *what],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Workers(process, port)
    try:
        wait_until(lambda: running.metric("slos_gateway_workers") == WORKERS, START_LIMIT_S)
        yield running
    finally:
        process.kill()
        process.communicate(timeout=ANSWER_LIMIT_S)


def test_every_page_shows_the_sum_over_all_workers(workers: Workers) -> None:
    statuses = {workers.ask() for _ in range(REQUESTS)}

    assert statuses == {503}
    assert workers.requests() == {REQUESTS}


def test_a_killed_worker_is_replaced_while_connections_of_the_other_go_on(
    workers: Workers,
) -> None:
    before, counted = workers.pids(), workers.requests()
    with httpx.Client(base_url=workers.url) as kept:
        assert kept.get("/live").status_code == 200
        serving = owner_of_a_connection(before)
        (killed,) = before - {serving}
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: killed not in workers.pids(), ANSWER_LIMIT_S)

        assert kept.get("/live").status_code == 200
        assert owner_of_a_connection({serving}) == serving  # the same connection as before
    wait_until(lambda: len(workers.pids()) == WORKERS, START_LIMIT_S)  # the dead one counts before
    wait_until(lambda: workers.metric("slos_gateway_workers") == WORKERS, START_LIMIT_S)
    assert serving in workers.pids()
    assert workers.requests() == counted  # what a worker counted outlives it


def test_a_tenants_limit_holds_for_all_workers_together(workers: Workers) -> None:
    """Each of them would let in as many by itself."""
    clock = MonotonicClock()
    began_s = clock.now()
    statuses = [workers.ask() for _ in range(3 * PER_MINUTE)]
    minutes = (clock.now() - began_s) / 60

    assert set(statuses) == {503, 429}
    assert statuses.count(503) <= PER_MINUTE * (1 + minutes) + 1


def test_when_told_to_stop_all_workers_drain_and_end_well(workers: Workers) -> None:
    family = psutil.Process(workers.process.pid).children(recursive=True)
    workers.process.send_signal(signal.SIGTERM)
    _, log = workers.process.communicate(timeout=ANSWER_LIMIT_S)

    assert workers.process.returncode == 0
    assert log.count("draining: 0 requests in flight") == WORKERS
    assert "Traceback" not in log
    wait_until(lambda: not any(one.is_running() for one in family), ANSWER_LIMIT_S)


def owner_of_a_connection(pids: set[int]) -> int:
    """The worker that has an open connection of a client."""
    return next(
        pid
        for pid in pids
        if any(
            one.status == psutil.CONN_ESTABLISHED and one.laddr.port == listening
            for listening in ports_of(pid)
            for one in psutil.Process(pid).net_connections("tcp")
        )
    )


def ports_of(pid: int) -> set[int]:
    connections = psutil.Process(pid).net_connections("tcp")
    return {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}
