"""Builds a simulated engine's reports and description, as a real engine sends them."""

import math

from services.evaluation.reported_prefixes import SPAN_TOKENS
from shared.engines import (
    Drafts,
    EngineDescription,
    KvAddress,
    KvTransfer,
    PrefixNews,
    StepReport,
)
from shared.scheduling.rows import (
    AVAILABLE,
    COMPUTED,
    RESIDENT,
    TOTAL,
    shared_to_wire,
    to_wire,
)
from shared.scheduling.shares import ONE
from shared.simulation.engine import SimEngine

MODEL = "simulated"


def engine_id_of(name: str) -> str:
    """The id of an engine, which stays the same when it restarts."""
    return f"{name}-1"


def report_of(
    engine: SimEngine,
    *,
    drafts: tuple[Drafts, ...],
    finished: tuple[str, ...],
    transfers: tuple[KvTransfer, ...],
    step_time: bytes,
    prefixes: PrefixNews,
    now: float,
) -> StepReport:
    """The report of an engine, with the state that it will have after the running step, as real
    engines send it. `finished` and `transfers` are the requests that left and the KV transfers
    since the last report. `step_time` is the new table, `prefixes` the changes of the prefix cache.

    Counts and times of single steps are left out: only records use them, decisions do not.
    """
    rows = engine.after
    if (rows[:, AVAILABLE] > now).any():
        rows = rows.copy()
        rows[rows[:, AVAILABLE] > now, AVAILABLE] = math.inf
    missing = rows[:, TOTAL] - rows[:, COMPUTED]
    running = int(rows[:, RESIDENT].sum())
    return StepReport(
        step=engine.steps,
        ended_at_s=now,
        duration_s=0.0,
        prefill_tokens=0,
        decode_tokens=int((missing <= ONE).sum()),
        decode_context_tokens=int(rows[missing <= ONE, TOTAL].sum()),
        speculated_tokens=0,
        accepted_tokens=0,
        running=running,
        waiting=len(rows) - running,
        queued_prefill_tokens=int(missing[missing > ONE].sum()),
        free_kv_blocks=int(engine.free_blocks),
        busy_s=0.0 if engine.is_idle else max(0.0, engine.ends_s - now),
        drafts=drafts,
        kv_transfers=transfers,
        kv_transfers_failed=sum(not one.used for one in transfers),
        finished=finished,
        requests=to_wire(rows, now),
        shared_tokens=shared_to_wire(rows),
        step_time=step_time,
        prefixes=prefixes,
    )


def description_of(engine: SimEngine, *, speculates: bool) -> EngineDescription:
    """The description with which it registers; `speculates`: it has its draft model."""
    hardware = engine.hardware
    drafts = hardware.draft.max_speculation_tokens if hardware.draft and speculates else 0
    return EngineDescription(
        name=engine.name,
        engine_id=engine_id_of(engine.name),
        role=engine.role,
        address=f"{engine.name}:1",
        model=MODEL,
        vllm_version="simulated",
        block_size_tokens=hardware.block_size_tokens,
        kv_blocks=hardware.kv_blocks,
        kv_bytes_per_token=int(hardware.kv_bytes_per_token),
        max_model_len_tokens=hardware.max_model_len_tokens,
        max_running_requests=hardware.max_running_requests,
        max_step_tokens=hardware.max_step_tokens,
        max_speculation_tokens=drafts,
        kv_address=KvAddress(transport="nixl", host=engine.name, port=1),
        step_time=engine.table.to_bytes(),
        prefix_span_tokens=SPAN_TOKENS,
    )
