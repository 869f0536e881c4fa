"""Limits of tenants over several worker processes."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import pytest

from services.gateway.shared_usage import shared_usage
from services.gateway.tenant_account import Account, Tenant
from services.gateway.tenants import TenantOptions, Tenants
from services.gateway.usage import UsageBook
from shared.errors import OverLimit
from shared.requests import DEFAULT_TENANT
from tests.limits import ANSWER_LIMIT_S

ROWS, WORKERS = 4, 3
_FORK = multiprocessing.get_context("fork")


def account(usage: UsageBook, **limits: Any) -> Account:
    made = Account(usage=usage)
    made.change(Tenant(name="acme", **limits))
    return made


def comes_in(one: Account, now: float = 0.0) -> bool:
    try:
        with one.request(now):
            return True
    except OverLimit:
        return False


@contextmanager
def forked(work: Callable[[Connection], None]) -> Iterator[tuple[Any, Connection]]:
    """A process that does the work, and our end of its pipe."""
    ours, theirs = _FORK.Pipe()
    process = _FORK.Process(target=work, args=(theirs,))
    process.start()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join(ANSWER_LIMIT_S)


def heard(pipe: Connection) -> Any:
    assert pipe.poll(ANSWER_LIMIT_S)
    return pipe.recv()


def test_all_workers_together_let_in_what_the_limit_allows() -> None:
    with shared_usage(ROWS, WORKERS) as usage:

        def work(number: int) -> Callable[[Connection], None]:
            def try_often(pipe: Connection) -> None:
                usage.begin(number)
                one = account(usage, requests_per_minute=100, tokens_per_minute=10**6)
                pipe.send(sum(comes_in(one) for _ in range(80)))

            return try_often

        with forked(work(0)) as (_, a), forked(work(1)) as (_, b), forked(work(2)) as (_, c):
            came_in = [heard(pipe) for pipe in (a, b, c)]

    assert sum(came_in) == 100


def test_requests_in_flight_of_all_workers_count_until_their_worker_is_replaced() -> None:
    with shared_usage(ROWS, WORKERS) as usage:
        usage.begin(0)
        one = account(usage, requests_in_flight=1)

        def serve(pipe: Connection) -> None:
            usage.begin(1)
            with account(usage, requests_in_flight=1).request(0.0):
                pipe.send("serves")
                pipe.poll(None)

        with forked(serve) as (_, pipe):
            assert heard(pipe) == "serves"
            assert one.in_flight == 1
            assert not comes_in(one)
        usage.begin(1)  # as the next worker of this number does
        usage.begin(0)

        assert comes_in(one)
        assert one.in_flight == 0


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_dies_or_stands_still_with_the_lock_stops_no_other(fault: int) -> None:
    with shared_usage(ROWS, WORKERS) as usage:

        def hold(pipe: Connection) -> None:
            with usage.row("acme"):
                pipe.send("holds")
                pipe.poll(None)

        with forked(hold) as (process, pipe):
            assert heard(pipe) == "holds"
            os.kill(process.pid, fault)
            assert comes_in(account(usage, requests_per_minute=1))


def test_a_limit_that_several_workers_change_changes_once() -> None:
    usage = UsageBook.of_one_process(ROWS)
    workers = [account(usage, tokens_per_minute=100) for _ in range(3)]
    workers[0].take_tokens(90, 0.0)

    for one in workers:
        one.change(Tenant(name="acme", tokens_per_minute=120))

    workers[1].take_tokens(29, 0.0)
    assert all(comes_in(one) for one in workers)
    workers[2].take_tokens(1, 0.0)
    assert not any(comes_in(one) for one in workers)


def test_a_worker_that_starts_gives_no_tenant_back_what_was_used() -> None:
    usage = UsageBook.of_one_process(ROWS)
    limited = {DEFAULT_TENANT: TenantOptions(requests_per_minute=2)}
    workers = [Tenants(usage=usage)]
    workers[0].take(limited)
    assert [comes_in(workers[0].default) for _ in range(3)] == [True, True, False]

    workers.append(Tenants(usage=usage))  # without limits until it has read the file
    workers[1].take(limited)

    assert [comes_in(one.default) for one in workers] == [False, False]


def test_a_limit_holds_where_another_worker_has_freed_the_row() -> None:
    usage = UsageBook.of_one_process(ROWS)
    one = account(usage, requests_per_minute=2)
    usage.keep_only({"other"})

    assert [comes_in(one) for _ in range(3)] == [True, True, False]


def test_rows_of_tenants_that_are_gone_are_free_once_they_serve_nothing() -> None:
    usage = UsageBook.of_one_process(2)
    with usage.row("a") as row:
        usage.count_in_flight(row, 1)
    with usage.row("b"):
        pass
    usage.keep_only({"c"})
    with usage.row("c"):
        pass

    with pytest.raises(RuntimeError, match="no room"), usage.row("d"):
        pass
