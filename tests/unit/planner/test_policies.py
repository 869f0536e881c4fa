import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.planner.longest_step import longest_step_s
from services.planner.policies import Asked, EngineNow, PolicyBook, policy_for, worth_sending
from shared.batch_time import PAPER, Step, StepCurve, StepTable
from shared.engines import Drafts, Policy
from shared.requests import Admission, EngineRef, Placement, Reason, SloTargets
from shared.scheduling.acceptance import Acceptance
from shared.scheduling.rows import BEST_EFFORT, NO_SLO, PROMISED, TPOT, Rows, empty, new_row
from tests.unit.planner.builders import make_engine, make_query

# OPT-6.7B with a draft model, as the paper's authors fitted it; a step costs 25 ms at least.
TABLE = StepTable.of(
    StepCurve(form=PAPER, coefficients=(2.48e-2, 6.878e-5, 0.0, 6.498e-3, 7.523e-5, 3.465e-3))
)
TIGHT_S, LOOSE_S = 0.049, 0.099
CLASS_OF = {TIGHT_S: "code", TIGHT_S / 2: "code", LOOSE_S: "chat"}
ASKED = Asked(
    paces_s={"code": TIGHT_S, "chat": LOOSE_S}, prompts=np.array([[1.0, 2.0, 0.0, 500.0]])
)
NOTHING = Asked(paces_s={}, prompts=np.empty((0, 4)))


def ref(name: str) -> EngineRef:
    return EngineRef(name=name, engine_id=f"{name}-first", address="127.0.0.1:9000")


def admitted(**changed: Any) -> Placement:
    fields: dict[str, Any] = {"decode": ref("d0"), "ttft_s": 1.0, "tpot_s": TIGHT_S}
    return Placement(
        decision_id="d-1", admission=Admission.ADMITTED, reason=Reason.NONE, **(fields | changed)
    )


def code(tpot_s: float = TIGHT_S, name: str = "code") -> Any:
    return make_query(targets=SloTargets(class_name=name, tpot_s=tpot_s))


def decoding(requests: int, tpot_s: float, kind: float = PROMISED) -> Rows:
    one = new_row(
        tokens=101, computed=100, produced=5, left=100, due_s=1.0, tpot_s=tpot_s, kind=kind
    )
    return np.repeat(one[np.newaxis], requests, axis=0)


def engine(
    *rows: Rows, free_kv_blocks: int = 1000, classes: Sequence[str] = (), **changed: Any
) -> EngineNow:
    """Of the class that asks for their pace; `classes` names those of each rows in their place."""
    description = make_engine(**({"max_speculation_tokens": 9, "max_step_tokens": 8192} | changed))
    names = classes or [CLASS_OF.get(one[0, TPOT], "other") for one in rows]
    return EngineNow(
        description=description,
        table=TABLE,
        rows=np.concatenate([empty(0), *rows]),
        classes=[name for name, one in zip(names, rows, strict=True) for _ in one],
        free_kv_blocks=free_kv_blocks,
    )


def accepting(alpha: float) -> Acceptance:
    return Acceptance(prior=alpha)


def policy(now: EngineNow, asked: Asked = ASKED, alpha: float = 0.7) -> Policy:
    return policy_for(now, asked, accepting(alpha), Policy(), 0.0)


# ---- what best effort leaves free


@pytest.mark.parametrize(
    ("awaited", "kept"),
    [(0, 0), (1, 4), (10, 20), (11, 24), (100, 128)],  # in parts of a 64th, up to a half of 256
)
def test_best_effort_leaves_twice_what_sessions_will_come_back_to(awaited: int, kept: int) -> None:
    now = replace(engine(kv_blocks=256), awaited_blocks=awaited)

    assert policy(now).kept_blocks == kept
    assert policy(replace(now, table=None)).kept_blocks == kept


# ---- the longest step


def test_steps_are_as_long_as_suits_the_targets_of_recent_prompts() -> None:
    assert policy(engine()).longest_step_s == longest_step_s(TABLE, ASKED.prompts) > 0


def test_steps_have_no_limit_where_no_prompt_has_a_target() -> None:
    assert policy(engine(), NOTHING).longest_step_s == 0


def test_an_engine_without_step_times_keeps_its_policy() -> None:
    unknown = replace(engine(decoding(10, TIGHT_S)), table=None)
    before = Policy(longest_step_s=0.7, speculation_tokens=3)

    assert policy_for(unknown, ASKED, accepting(0.9), before, 0.0) == before


# ---- speculation


def test_each_class_speculates_as_its_tier_should() -> None:
    """Where prompts that wait take all the time that drafts can buy."""
    waiting = np.repeat(new_row(tokens=1500, left=100, due_s=1.0)[np.newaxis], 20, axis=0)
    told = policy(engine(decoding(10, TIGHT_S), decoding(20, LOOSE_S), waiting))

    assert told.speculation_by_class["code"] > told.speculation_by_class["chat"]
    assert told.speculation_tokens == min(told.speculation_by_class.values())


def test_an_engine_that_cannot_speculate_is_told_so_and_nothing_of_classes() -> None:
    told = policy(engine(decoding(10, TIGHT_S), max_speculation_tokens=0))

    assert (told.speculation_tokens, told.speculation_by_class) == (0, {})
    assert told.longest_step_s > 0


def test_no_drafts_where_the_cache_lacks_a_block_for_each_promised_decode() -> None:
    full = policy(engine(decoding(10, TIGHT_S), free_kv_blocks=9))

    assert full.speculation_by_class == {"code": 0, "chat": 0}


def test_a_full_cache_stops_no_drafts_of_requests_without_an_slo() -> None:
    told = policy(engine(decoding(10, math.inf, NO_SLO), free_kv_blocks=0), NOTHING)

    assert told.speculation_tokens


def test_drafts_keep_a_pace_that_plain_steps_of_so_many_would_not() -> None:
    assert TABLE.sure_s(Step(decodes=400)) > TIGHT_S
    told = policy(engine(decoding(400, TIGHT_S)), alpha=0.95)

    assert told.speculation_by_class["code"] > 0


def test_what_is_never_accepted_is_not_drafted() -> None:
    learned = Acceptance()
    never = Drafts(class_name="code", verifications=500, drafted_tokens=1500, accepted_tokens=0)
    learned.observe([never], 0.0)
    told = policy_for(engine(decoding(10, TIGHT_S)), ASKED, learned, Policy(), 0.0)

    assert told.speculation_by_class["code"] == 0


def drafting(**accepted: float) -> Acceptance:
    """Of each class, so much of what it drafted was accepted."""
    learned = Acceptance()
    for name, share in accepted.items():
        drafts = Drafts(
            class_name=name,
            verifications=10_000,
            drafted_tokens=10_000,
            accepted_tokens=round(share * 10_000),
        )
        learned.observe([drafts], 0.0)
    return learned


@pytest.mark.parametrize("tpot_s", [LOOSE_S, math.inf])
@pytest.mark.parametrize("kind", [PROMISED, NO_SLO])
def test_classes_of_one_pace_draft_by_what_each_accepts(tpot_s: float, kind: float) -> None:
    rows = decoding(10, tpot_s, kind)
    now = engine(rows, rows, classes=["good", "bad"])

    told = policy_for(
        now, NOTHING, drafting(good=0.9, bad=0.02), Policy(), 0.0
    ).speculation_by_class

    assert told["good"] > told["bad"] == 0


def test_a_class_that_does_not_decode_now_shortens_no_drafts() -> None:
    acceptance, now = drafting(code=0.9, chat=0.02), engine(decoding(10, TIGHT_S))

    alone, beside = (
        policy_for(now, asked, acceptance, Policy(), 0.0).speculation_by_class["code"]
        for asked in (replace(ASKED, paces_s={"code": TIGHT_S}), ASKED)
    )

    assert alone == beside > 0


def test_many_classes_of_one_pace_draft_as_the_least_of_them_accepts() -> None:
    names = [f"class-{number}" for number in range(20)]
    now = engine(*(decoding(1, LOOSE_S) for _ in names), classes=names)
    acceptance = drafting(**dict.fromkeys(names, 0.9) | {names[7]: 0.02})

    told = policy_for(now, NOTHING, acceptance, Policy(), 0.0).speculation_by_class

    assert set(told.values()) == {0}


def test_drafts_in_force_stay_for_promises_alone() -> None:
    """Of seven and six the worth is nearly the same."""
    best = {}
    for kind in (PROMISED, NO_SLO):
        now = engine(decoding(10, LOOSE_S, kind))
        chat = replace(ASKED, paces_s={"chat": LOOSE_S})
        best[kind] = policy(now, chat).speculation_tokens or 0
        before = Policy(
            speculation_tokens=best[kind] - 1, speculation_by_class={"chat": best[kind] - 1}
        )
        after = policy_for(now, chat, accepting(0.7), before, 0.0)
        assert after.speculation_tokens == best[kind] - (kind == PROMISED)


def test_best_effort_has_no_pace_that_would_shape_steps() -> None:
    """A best-effort row of a tight pace changes nothing for those that were promised one."""
    promised = policy(engine(decoding(20, LOOSE_S)))
    beside = policy(engine(decoding(20, LOOSE_S), decoding(1, 0.001, BEST_EFFORT)))

    for name in ("code", "chat"):
        assert beside.speculation_by_class[name] == promised.speculation_by_class[name]


def test_speculation_stays_as_it_was_on_an_idle_engine() -> None:
    before = Policy(speculation_tokens=1, speculation_by_class={"code": 3})
    told = policy_for(engine(), ASKED, accepting(0.7), before, 0.0)

    assert told.speculation_by_class == {"code": 3}


def test_the_first_request_of_an_engine_finds_its_drafts_chosen_before_it_decodes() -> None:
    prompt = new_row(tokens=500, left=100, due_s=1.0, tpot_s=TIGHT_S / 2)[np.newaxis]

    assert policy(engine(prompt)).speculation_by_class["code"] > 0


def test_a_policy_is_stable_when_nothing_changes() -> None:
    now = engine(decoding(10, TIGHT_S), decoding(20, LOOSE_S))
    first = policy(now)

    assert policy_for(now, ASKED, accepting(0.7), first, 0.0) == first


# ---- what is worth sending


@pytest.mark.parametrize(
    ("change", "worth"),
    [
        ({}, False),
        ({"version": 9}, False),
        ({"longest_step_s": 0.52}, False),
        ({"longest_step_s": 0.6}, True),
        ({"longest_step_s": 0.0}, True),
        ({"kept_blocks": 4}, True),
        ({"speculation_by_class": {"code": 2}}, True),
        ({"speculation_tokens": 0}, True),
    ],
)
def test_only_what_an_engine_would_notice_is_worth_sending(
    change: dict[str, Any], worth: bool
) -> None:
    old = Policy(version=3, longest_step_s=0.5, speculation_by_class={"code": 3})

    assert worth_sending(old, replace(old, **change)) is worth


def test_a_first_bound_is_worth_sending() -> None:
    assert worth_sending(Policy(), Policy(longest_step_s=0.001))


# ---- what was asked


def test_the_first_token_is_asked_of_the_prefill_engine_and_the_pace_of_the_other() -> None:
    book = PolicyBook()
    book.placed(code(), admitted(prefill=ref("p0")), 60, 0.0)

    prefill, decode = book.asked("p0", 1.0), book.asked("d0", 1.0)
    assert (prefill.prompts.tolist(), prefill.paces_s) == ([[1.0, 1.0, 40.0, 60.0]], {})
    assert (decode.prompts.tolist(), decode.paces_s) == ([], {"code": TIGHT_S})


def test_a_colocated_request_asks_both_of_one_engine() -> None:
    book = PolicyBook()
    book.placed(code(), admitted(), 100, 0.0)

    asked = book.asked("d0", 1.0)
    assert (asked.prompts.tolist(), asked.paces_s) == ([[1.0, 1.0, 0.0, 100.0]], {"code": TIGHT_S})


def test_a_pace_that_was_not_promised_is_not_asked_but_its_first_token_is() -> None:
    book = PolicyBook()
    book.placed(code(), admitted(), 100, 0.0)
    book.placed(code(name="later"), replace(admitted(), admission=Admission.BEST_EFFORT), 100, 0.0)

    asked = book.asked("d0", 0.0)
    assert set(asked.paces_s) == {"code"}
    assert len(asked.prompts) == 2


def test_the_tightest_pace_of_the_last_minute_counts_and_is_then_forgotten() -> None:
    book = PolicyBook()
    book.placed(code(TIGHT_S / 2), admitted(), 100, 0.0)
    for second in range(1, 120):
        book.placed(code(), admitted(), 100, float(second))
        if second <= 30:
            assert book.asked("d0", float(second)).paces_s["code"] == TIGHT_S / 2
        if second > 60:
            assert book.asked("d0", float(second)).paces_s["code"] == TIGHT_S
    asked = book.asked("d0", 300.0)
    assert (asked.paces_s, len(asked.prompts)) == ({}, 0)


def test_only_so_many_classes_are_kept() -> None:
    book = PolicyBook()
    for number in range(100):
        book.placed(code(name=f"class-{number}"), admitted(), 100, 0.0)

    kept = book.asked("d0", 0.0).paces_s
    assert 50 < len(kept) < 100
    assert "class-99" in kept
