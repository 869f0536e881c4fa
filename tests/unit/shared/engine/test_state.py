from dataclasses import replace

from shared.engine.state import EngineState
from shared.engines import EngineDescription, PrefixNews, Role, StepReport


def make_state() -> EngineState:
    return EngineState(
        EngineDescription(
            name="d",
            engine_id="1",
            role=Role.DECODE,
            address="127.0.0.1:1",
            model="m",
            vllm_version="0",
            block_size_tokens=16,
            kv_blocks=100,
            kv_bytes_per_token=1,
            max_model_len_tokens=1024,
            max_running_requests=8,
            max_step_tokens=64,
            max_speculation_tokens=0,
        )
    )


def make_report(**changes: object) -> StepReport:
    fields: dict[str, object] = dict.fromkeys(
        (
            "step",
            "ended_at_s",
            "duration_s",
            "prefill_tokens",
            "decode_tokens",
            "decode_context_tokens",
            "speculated_tokens",
            "accepted_tokens",
            "running",
            "waiting",
            "queued_prefill_tokens",
        ),
        0,
    )
    return StepReport(**{**fields, "free_kv_blocks": 100, **changes})  # type: ignore[arg-type]


def test_an_engine_that_never_stepped_is_idle_with_all_blocks_free() -> None:
    state = make_state()

    assert state.idle
    assert state.free_kv_blocks == 100


def test_kv_held_for_another_engine_is_work_left() -> None:
    state = make_state()

    state.take(make_report(free_kv_blocks=97))

    assert not state.idle


def test_reports_are_handed_on_once() -> None:
    state = make_state()
    state.take(make_report(step=1))

    assert [report.step for report in state.take_unsent()] == [1]
    assert state.take_unsent() == []


def test_a_new_planner_hears_the_present_and_not_the_past() -> None:
    state = make_state()
    state.take(make_report(step=1))
    state.take(make_report(step=2, running=3, finished=("a",), kv_transfers_failed=1))

    state.restate()

    (told,) = state.take_unsent()
    assert (told.step, told.running, told.finished, told.kv_transfers_failed) == (2, 3, (), 0)


def test_a_planner_that_is_away_for_ever_costs_bounded_memory() -> None:
    state = make_state()

    for step in range(10_000):
        state.take(make_report(step=step))

    reports = state.take_unsent()
    assert len(reports) == 4096
    assert reports[-1].step == 9_999


def test_cached_tokens_are_those_of_whole_spans() -> None:
    state = make_state()
    state.description = replace(state.description, prefix_span_tokens=64)

    state.take(make_report(prefixes=PrefixNews(stored=(1, 2))))

    assert state.cached_tokens == 128


def test_a_planner_that_knows_nothing_is_told_all_that_is_in_the_prefix_cache() -> None:
    state = make_state()
    state.take(make_report(prefixes=PrefixNews(stored=(1, 2))))
    state.take(make_report(prefixes=PrefixNews(stored=(3,), removed=(1,))))

    state.restate()

    (report,) = state.take_unsent()
    assert report.prefixes.anew
    assert sorted(report.prefixes.stored) == [2, 3]


def test_where_reports_were_dropped_the_prefix_cache_is_told_anew() -> None:
    state = make_state()
    for number in range(5000):
        state.take(make_report(prefixes=PrefixNews(stored=(number,))))

    told = state.take_unsent()[-1].prefixes

    assert told.anew
    assert sorted(told.stored) == list(range(5000))
    state.take(make_report())
    assert not state.take_unsent()[-1].prefixes
