"""Prints what a running planner decided and why, as text with a table or as JSON."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from shared.engines import KvTransfer
from shared.requests import Explanation, Outcome, Pacing, Placement, PlacementOption, PlacementQuery
from shared.rpc.channels import PlannerClient
from shared.rpc.identity import Identity

_TIMES = ("queue_s", "prefill_s", "transfer_s", "decode_s", "ttft_s", "tpot_s", "finish_s")


async def explain(
    address: str, decision_id: str, identity: Identity | None, *, as_json: bool
) -> int:
    """Prints the explanation and returns 0. Raises UnknownDecision, PlannerUnavailable."""
    client = PlannerClient(address, identity)
    try:
        explanation = await client.explain(decision_id)
    finally:
        await client.close()
    if as_json:
        print(json.dumps(asdict(explanation), indent=2))
    else:
        print_explanation(explanation, Console())
    return 0


def print_explanation(explanation: Explanation, console: Console) -> None:
    """Prints sentences, then the ways with their times, the best one first."""
    for line in _lines(explanation):
        console.print(line, highlight=False, markup=False)
    table = _table(explanation)
    if table.row_count:
        console.print(table)
    for line in _remarks(explanation):
        console.print(line, highlight=False, markup=False)


def milliseconds(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s * 1000:,.4g}"


def _lines(explanation: Explanation) -> Iterator[str]:
    query, placement = explanation.query, explanation.placement
    decided_at = datetime.fromtimestamp(explanation.decided_at_epoch_s, UTC)
    yield f"Decision {placement.decision_id}, {decided_at:%Y-%m-%d %H:%M:%S} UTC"
    yield f"Asked:    {_asked(query)}"
    yield f"Answered: {_answered(placement)}"
    if placement.message:
        yield f"          {placement.message}"
    if cached := _cached(explanation.ways):
        yield f"Cached:   {', '.join(cached)}"
    yield f"Outcome:  {_ended(explanation.outcome, placement)}"
    if explanation.outcome is not None:
        yield from _lived(explanation, explanation.outcome)


def _asked(query: PlacementQuery) -> str:
    targets = query.targets
    told = [
        f"TTFT {milliseconds(targets.ttft_s)} ms" if targets.ttft_s else "",
        f"TTFT slowdown {targets.ttft_slowdown:g}" if targets.ttft_slowdown else "",
        f"TPOT {milliseconds(targets.tpot_s)} ms" if targets.tpot_s else "",
        *(f"{stage.name} at TPOT {milliseconds(stage.tpot_s)} ms" for stage in targets.stages),
        "every token by its deadline" if targets.pacing is Pacing.DEADLINES else "",
        f"value {targets.value:g}" if targets.value != 1 else "",
        f"session {query.session_id}" if query.session_id else "",
        f"x-request-id {query.client_id}" if query.client_id else "",
        f"forced {query.forced_way}" if query.forced_way else "",
        "whole on one engine" if query.whole_on_one_engine else "",
    ]
    return (
        f"request {query.request_id} of {query.tenant}, class {targets.class_name}, "
        f"{query.prompt_tokens} prompt tokens, at most {query.max_output_tokens} out; "
        + (", ".join(one for one in told if one) or "no targets")
        + f"; decided {milliseconds(query.waited_s)} ms after it came"
    )


def _answered(placement: Placement) -> str:
    words = f"{placement.admission.replace('_', ' ')} ({placement.reason})"
    if placement.decode is None:
        return words
    engines = [ref.name for ref in (placement.prefill, placement.decode) if ref]
    words += f", {placement.way} on {' then '.join(engines)}"
    source = placement.prefix_source
    if source is None:
        return words
    return f"{words}, {source.tokens} prompt tokens pulled from {source.engine.name}"


def _cached(ways: Iterable[PlacementOption]) -> list[str]:
    """What engines have cached of the prompt, the engine of the best way first."""
    told = {
        way.prefill or way.decode: way.cached_tokens
        for way in ways
        if way.cached_tokens and not way.source
    }
    return [f"{tokens} prompt tokens on {engine}" for engine, tokens in told.items()]


def _ended(outcome: Outcome | None, placement: Placement) -> str:
    if outcome is None:
        return "not known yet" if placement.runs else "it did not run"
    met = {None: "", True: ", targets met", False: ", targets missed"}[outcome.met]
    moved_s = outcome.transfer_s
    moved = "" if moved_s is None else f", KV and first step after {milliseconds(moved_s)} ms"
    recomputed = ", KV lost and computed again" if outcome.recomputed else ""
    return (
        f"{outcome.finished} after {outcome.output_tokens} tokens, "
        f"TTFT {milliseconds(outcome.ttft_s)} ms, TPOT {milliseconds(outcome.tpot_s)} ms"
        f"{met}{moved}{recomputed}. {outcome.message}".rstrip()
    )


def _transferred(transfer: KvTransfer) -> str:
    words = f"KV:       {transfer.bytes / 1e6:,.3g} MB over {transfer.transport} in "
    words += f"{milliseconds(transfer.seconds)} ms"
    if transfer.seconds > 0 and transfer.bytes:
        words += f", {transfer.bytes / transfer.seconds / 1e6:,.3g} MB/s"
    return words + ("" if transfer.used else f"; not used ({transfer.outcome}), computed again")


def _lived(explanation: Explanation, outcome: Outcome) -> Iterator[str]:
    """Where the request's time went, and real and expected step times."""
    times = {"held": outcome.held_s, "queued": outcome.queue_s, "prompt": outcome.prefill_s}
    parts = [f"{name} {milliseconds(time_s)} ms" for name, time_s in times.items() if time_s]
    if parts:
        yield f"Took:     {', '.join(parts)}"
    if explanation.transfer is not None:
        yield _transferred(explanation.transfer)
    spans = {
        "to the first token": explanation.before_first,
        "after it": explanation.after_first,
    }
    for words, sums in spans.items():
        if sums is not None:
            yield (
                f"Steps:    {words} {sums.steps} of {sums.engine} in "
                f"{milliseconds(sums.real_s)} ms, {milliseconds(sums.expected_s)} ms expected; "
                f"{sums.beyond_sure} longer than sure, by {milliseconds(sums.worst_excess_s)} ms "
                "at most"
            )


def _table(explanation: Explanation) -> Table:
    """The ways, the best one first; those rejected before any prediction are in the remarks.

    `ttft` and `finish` count from the arrival, and so include the time held.
    """
    table = Table(
        title="Ways that were open, times in ms",
        title_justify="left",
        box=SIMPLE,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("engines", min_width=9)
    for name in ("held", *(name.removesuffix("_s") for name in _TIMES)):
        table.add_column(name, justify="right", no_wrap=True)
    held = milliseconds(explanation.query.waited_s)
    for considered in explanation.ways:
        if considered.decode and (considered.finish_s is not None or not considered.rejected):
            numbers = [milliseconds(getattr(considered, name)) for name in _TIMES]
            table.add_row(_engines(considered), held, *numbers)
    return table


def _remarks(explanation: Explanation) -> Iterator[str]:
    for considered in explanation.ways:
        if considered.rejected:
            where = f" on {_engines(considered)}" if considered.decode else ""
            yield f"Not {considered.way}{where}: {considered.rejected}."


def _engines(considered: PlacementOption) -> str:
    engines = " > ".join(name for name in (considered.prefill, considered.decode) if name)
    return f"{engines} < {considered.source}" if considered.source else engines
