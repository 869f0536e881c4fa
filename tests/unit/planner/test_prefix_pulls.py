"""When a cached prefix is pulled from another engine, and what then holds of both."""

import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from services.planner.admission.candidates import Candidate, goal_of, rank
from services.planner.admission.pending import PendingRequest
from services.planner.admission.placement import Decision
from services.planner.admission.placement_options import Fleet
from services.planner.admission.predict import Loads
from services.planner.admission.rounds import decide_round
from services.planner.server.explain import print_explanation
from services.planner.server.metrics import PlannerMetrics
from services.planner.state.cluster import ClusterState
from services.planner.state.engine_reservations import Reservation
from shared.engines import KV_USED, KvTransfer, PrefixNews
from shared.requests import (
    Admission,
    OnRefuse,
    PlacementMode,
    PlacementQuery,
    PrefixExport,
    PromptHashes,
    SloTargets,
)
from shared.scheduling.rows import COMPUTED, DEADLINE, KIND, NO_SLO, PROMISED, TOTAL, new_row
from tests.unit.planner.builders import (
    LONG_AFTER_S,
    commit,
    held,
    make_cluster,
    make_engine,
    make_outcome,
    make_query,
    make_report,
    place,
)

SPAN_TOKENS = 16
PROMPT_TOKENS = 400


def cluster(cached_spans: dict[str, int], *, names: str = "ab", **numbers: Any) -> ClusterState:
    """Engines of one make that have cached this many spans of every prompt here."""
    engines = [make_engine(name, prefix_span_tokens=SPAN_TOKENS) for name in names]
    state = make_cluster(*engines, **({"pull_prefixes": True} | numbers))
    for engine in engines:
        hashes = tuple(range(1, 1 + cached_spans.get(engine.name, 0)))
        state.prefixes.hear(engine, PrefixNews(stored=hashes))
    return state


def query(prompt_tokens: int = PROMPT_TOKENS, **changed: Any) -> PlacementQuery:
    hashes = tuple(range(1, 1 + prompt_tokens // SPAN_TOKENS))
    prompt = PromptHashes(span_tokens=SPAN_TOKENS, hashes=hashes)
    return make_query(prompt_tokens=prompt_tokens, prompt_hashes=prompt, **changed)


def ranked(state: ClusterState, asked: PlacementQuery) -> list[Candidate]:
    ways = Fleet(state).open_ways(asked, LONG_AFTER_S)
    demand = state.demand(asked, math.inf, LONG_AFTER_S)
    goal = goal_of(asked, state, ways)
    return rank(asked, state, ways, goal, demand, Loads(state), LONG_AFTER_S)


def crowd(state: ClusterState, engine: str, **report: Any) -> None:
    busy = {"running": 4, "decode_tokens": 4, "decode_context_tokens": 400, **report}
    state.observe(state.engines[engine], [make_report(**busy)], LONG_AFTER_S)


def promised_in_a_round(state: ClusterState, asked: PlacementQuery) -> Decision:
    pending = PendingRequest(query=asked, arrived_at_s=LONG_AFTER_S, first_asked_at_s=LONG_AFTER_S)
    (decision,) = decide_round([pending], state, LONG_AFTER_S)
    assert isinstance(decision, Decision)
    return commit(state, asked, decision, LONG_AFTER_S)


clusters = st.fixed_dictionaries(
    {
        "spans": st.dictionaries(st.sampled_from("abc"), st.integers(0, 30)),
        "rate": st.floats(1e3, 1e10),
        "fixed_s": st.floats(0, 1),
        "queued": st.integers(0, 3000),
    }
)


def made(drawn: dict[str, Any], **numbers: Any) -> ClusterState:
    state = cluster(
        drawn["spans"],
        names="abc",
        **{"kv_bytes_per_second": drawn["rate"], "kv_fixed_s": drawn["fixed_s"], **numbers},
    )
    crowd(state, "a", queued_prefill_tokens=drawn["queued"])
    return state


@given(clusters, st.integers(2, 500))
def test_a_prefix_is_pulled_only_where_that_is_faster_than_to_compute_it(
    drawn: dict[str, Any], prompt_tokens: int
) -> None:
    ways = ranked(made(drawn), query(prompt_tokens))

    computing = {way.decode.engine.name: way for way in ways if way.on_one}
    for way in ways:
        if way.pull is None:
            continue
        pull, other = way.pull, computing[way.decode.engine.name]
        assert pull.ready_s + pull.moved_s < pull.saved_s
        assert way.ttft_s <= other.ttft_s
        assert 0 < pull.ready_s < pull.limit_s
        assert pull.forecast_s == pull.ready_s  # nothing was learned yet
        assert pull.source is not way.decode.engine
        assert pull.own_tokens < pull.tokens <= prompt_tokens - 2
        assert pull.tokens % SPAN_TOKENS == 0
        assert pull.tokens <= SPAN_TOKENS * drawn["spans"].get(pull.source.name, 0)


@given(clusters, st.integers(2, 500))
def test_no_prefix_is_pulled_unless_the_option_says_so(
    drawn: dict[str, Any], prompt_tokens: int
) -> None:
    ways = ranked(made(drawn, pull_prefixes=False), query(prompt_tokens))

    assert all(way.pull is None for way in ways)


@given(clusters, st.integers(2, 500), st.floats(1, 100))
def test_a_faster_link_gives_up_no_pull(
    drawn: dict[str, Any], prompt_tokens: int, faster: float
) -> None:
    def pulling(state: ClusterState) -> float:
        ways = ranked(state, query(prompt_tokens))
        return max((way.pull.gain_s for way in ways if way.pull), default=0.0)

    slow, fast = made(drawn), made({**drawn, "rate": drawn["rate"] * faster})

    assert pulling(fast) >= pulling(slow) - 1e-9


@given(clusters, st.integers(2, 500))
def test_what_was_placed_with_a_pull_leaves_nothing_behind(
    drawn: dict[str, Any], prompt_tokens: int
) -> None:
    state = made(drawn)
    decision = place(state, query(prompt_tokens))

    state.settle(make_outcome(decision), LONG_AFTER_S)

    assert held(state) == 0


def with_a_queue() -> ClusterState:
    """a has the prefix, and seconds of other prompts to compute."""
    state = cluster({"a": 20})
    for engine in state.engines.values():
        engine.description = replace(engine.description, max_step_tokens=128)
    crowd(state, "a", queued_prefill_tokens=4000)
    return state


def test_a_prefix_is_pulled_from_an_engine_that_has_other_prompts_to_compute() -> None:
    placement = place(with_a_queue(), query()).placement

    assert placement.decode is not None
    assert placement.decode.name == "b"
    assert placement.way is PlacementMode.COLOCATED
    assert placement.prefix_source is not None
    assert (placement.prefix_source.engine.name, placement.prefix_source.tokens) == ("a", 320)


def test_explanation_and_metrics_tell_of_a_pull() -> None:
    state, metrics, text = with_a_queue(), PlannerMetrics(), io.StringIO()
    placement = place(state, query()).placement
    explanation = state.explain(placement.decision_id)
    assert explanation is not None

    metrics.decided(placement, 0.0)
    print_explanation(explanation, Console(file=text, width=80))

    words = " ".join(text.getvalue().split())
    assert "Cached: 320 prompt tokens on a Outcome" in words
    assert "colocated on b, 320 prompt tokens pulled from a" in words
    assert "b < a" in words
    pulled = {"source": "a"}
    value = metrics.registry.get_sample_value
    assert value("slos_planner_prefix_pulls_total", pulled) == 1
    assert value("slos_planner_prefix_pulled_tokens_total", pulled) == 320


def test_a_prefix_is_computed_where_its_export_would_wait_for_longer() -> None:
    state = cluster({"a": 20})
    crowd(state, "a", queued_prefill_tokens=4000)  # a full step takes longer than 320 tokens

    placement = place(state, query()).placement

    assert placement.decode is not None
    assert placement.decode.name == "b"
    assert placement.prefix_source is None


def test_an_engine_without_a_place_is_no_source() -> None:
    state = with_a_queue()
    crowd(state, "a", running=8, queued_prefill_tokens=4000)

    assert place(state, query()).placement.prefix_source is None


def test_both_engines_reserve_what_a_pull_takes_of_them() -> None:
    state = with_a_queue()

    decision = place(state, query())

    (export,) = state.engines["a"].unseen.values()
    (run,) = state.engines["b"].unseen.values()
    assert (export.row[TOTAL], export.row[COMPUTED], export.kv_tokens) == (1, 0, 321)
    assert (run.row[TOTAL], run.row[COMPUTED], run.prefill_tokens) == (400, 320, 80)
    assert export.decision_id == run.decision_id == decision.placement.decision_id


ASKED = query(850, targets=SloTargets(ttft_s=0.6, on_refuse=OnRefuse.REFUSE))
OTHER_TOKENS = 3300  # leave a's KV cache room for an export, and for no more


def promising(*, pull_prefixes: bool = True) -> ClusterState:
    """a has 720 tokens of the prompt, and decodes a long answer."""
    state = cluster({"a": 45}, pull_prefixes=pull_prefixes)
    row = new_row(
        key=1,
        tokens=OTHER_TOKENS,
        computed=OTHER_TOKENS - 1,
        produced=1,
        left=20,
        kind=NO_SLO,
        available_s=LONG_AFTER_S,
    )
    hold = Reservation(
        decision_id="other",
        request_id="other",
        prefill_tokens=0,
        kv_tokens=OTHER_TOKENS + 20,
        class_name="default",
        due_at_s=LONG_AFTER_S,
        row=row,
    )
    state.engines["a"].hold(hold)
    return state


def test_a_promise_is_kept_by_a_pull_where_no_engine_could_keep_it_otherwise() -> None:
    refused = promised_in_a_round(promising(pull_prefixes=False), ASKED)
    promised = promised_in_a_round(promising(), ASKED)

    assert refused.placement.admission is Admission.REFUSED
    assert promised.placement.admission is Admission.ADMITTED
    assert promised.placement.prefix_source is not None
    assert promised.chosen is not None
    assert (promised.chosen.source, promised.chosen.decode) == ("a", "b")
    assert promised.chosen.ttft_s is not None
    assert promised.chosen.ttft_s <= 0.6


def test_the_source_promises_to_export_in_time() -> None:
    state = promising()

    source = promised_in_a_round(state, ASKED).placement.prefix_source

    assert source is not None
    export = next(one for one in state.engines["a"].unseen.values() if one.request_id == "r1")
    assert export.row[KIND] == PROMISED
    assert export.row[DEADLINE] <= export.due_at_s + source.limit_s


def test_a_pull_for_which_the_source_has_no_room_beside_others_is_not_promised() -> None:
    state = promising()
    others = [new_row(key=number, tokens=9, left=9, produced=1) for number in range(2, 10)]
    state.engines["a"].rows = np.array(others)

    decision = promised_in_a_round(state, ASKED)

    assert decision.placement.admission is Admission.REFUSED
    (pulling,) = [way for way in decision.ways if way.source]
    assert pulling.rejected == "a has no room for it beside what it has promised"


@pytest.mark.parametrize(
    "changed",
    [
        {"whole_on_one_engine": True},
        {"forced_way": PlacementMode.COLOCATED},
        {"avoid": ("a-first",)},
    ],
    ids=["whole", "forced", "source to be avoided"],
)
def test_what_the_request_requires_rules_out_a_pull(changed: dict[str, Any]) -> None:
    state = cluster({"a": 20})

    assert any(way.pull for way in ranked(state, query()))
    assert not any(way.pull for way in ranked(state, query(**changed)))


def test_engines_of_another_cache_layout_or_without_a_transport_are_no_sources() -> None:
    for other in ({"block_size_tokens": 32}, {"kv_bytes_per_token": 7}, {"kv_address": None}):
        state = cluster({"a": 20})
        described = replace(state.engines["a"].description, **other)
        state.engines["a"].description = described
        state.engines["a"].__post_init__()

        assert not any(way.pull for way in ranked(state, query()))


def test_a_source_that_drains_or_has_left_is_none() -> None:
    state = cluster({"a": 20})
    state.engines["a"].draining = True
    assert not any(way.pull for way in ranked(state, query()))

    state = cluster({"a": 20})
    state.leave(state.engines["a"], LONG_AFTER_S)
    assert not any(way.pull for way in ranked(state, query()))


def test_measured_transfers_decide_whether_a_prefix_is_pulled() -> None:
    state = cluster({"a": 20})
    slow = KvTransfer(
        request_id="r0",
        peer_engine_id="a-first",
        transport="nixl",
        bytes=320_000,
        seconds=3.0,
        outcome=KV_USED,
    )
    assert any(way.pull for way in ranked(state, query()))

    for _ in range(20):
        state.observe(state.engines["b"], [make_report(kv_transfers=(slow,))], LONG_AFTER_S)

    assert not any(way.pull for way in ranked(state, query()))


def ended(
    state: ClusterState, decision: Decision, seconds: float, now: float, *, exported: bool
) -> None:
    export = PrefixExport(
        decision_id=decision.placement.decision_id, seconds=seconds, exported=exported
    )
    state.exported(export, now)


def test_a_source_that_never_answers_costs_few_requests_their_limit() -> None:
    """Ten requests a second for ten minutes; those that come while one waits are not counted."""
    state, limits_s, free_at_s = with_a_queue(), [], 0.0
    for number in range(6000):
        now = LONG_AFTER_S + number / 10
        if now < free_at_s:
            continue
        decision = place(state, query(request_id=f"r{number}"), now)
        state.settle(make_outcome(decision), now)
        source = decision.placement.prefix_source
        if source is not None:
            limits_s.append(source.limit_s)
            free_at_s = now + source.limit_s
            ended(state, decision, source.limit_s, free_at_s, exported=False)

    assert 2 <= len(limits_s) <= 20  # it is tried again, twice a minute at most
    assert max(limits_s) == limits_s[0]


def test_of_two_sources_the_one_that_was_late_is_left() -> None:
    state = cluster({"a": 20, "b": 20}, names="abc")
    for engine in state.engines.values():
        engine.description = replace(engine.description, max_step_tokens=128)
    for name in "ab":
        crowd(state, name, queued_prefill_tokens=4000)
    first = place(state, query())
    source = first.placement.prefix_source
    assert source is not None
    state.settle(make_outcome(first), LONG_AFTER_S)

    ended(state, first, source.limit_s, LONG_AFTER_S, exported=False)

    other = place(state, query(request_id="r2")).placement.prefix_source
    assert other is not None
    assert {source.engine.name, other.engine.name} == {"a", "b"}


def test_an_export_of_an_unknown_decision_or_of_one_without_a_source_teaches_nothing() -> None:
    state = with_a_queue()
    unknown = PrefixExport(decision_id="d-of-another-planner", seconds=9.0, exported=False)
    state.exported(unknown, LONG_AFTER_S)
    plain = place(state, make_query())
    ended(state, plain, 9.0, LONG_AFTER_S, exported=False)

    assert place(state, query(request_id="r2")).placement.prefix_source is not None


def test_metrics_count_exports_by_whether_they_came_in_time() -> None:
    metrics = PlannerMetrics()
    in_time = PrefixExport(decision_id="d", seconds=0.1, exported=True)

    metrics.exported([in_time, replace(in_time, exported=False), in_time])

    value = metrics.registry.get_sample_value
    assert value("slos_planner_prefix_exports_total", {"exported": "true"}) == 2
    assert value("slos_planner_prefix_exports_total", {"exported": "false"}) == 1


def test_metrics_show_what_is_cached_on_each_engine_that_is_attached() -> None:
    state, metrics = cluster({"a": 20}), PlannerMetrics()

    metrics.shown(state)

    value = metrics.registry.get_sample_value
    assert value("slos_planner_cached_tokens", {"engine": "a"}) == 320
    assert value("slos_planner_cached_tokens", {"engine": "b"}) == 0
    state.leave(state.engines["a"], LONG_AFTER_S)
    metrics.shown(state)
    assert value("slos_planner_cached_tokens", {"engine": "a"}) is None
