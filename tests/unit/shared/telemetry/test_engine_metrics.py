"""An engine's page adds up what its step reports tell."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from shared.engines import KvTransfer
from shared.telemetry.engine_metrics import EngineMetrics
from tests.unit.planner.builders import make_engine, make_report

transfers = st.builds(
    KvTransfer,
    request_id=st.text(max_size=4),
    peer_engine_id=st.text(max_size=4),
    transport=st.sampled_from(["nixl", "zmq"]),
    bytes=st.integers(0, 1 << 40),
    seconds=st.floats(0, 100),
    outcome=st.sampled_from(["used", "expired"]),
)


@given(st.lists(transfers, max_size=8))
def test_the_page_holds_the_sums_of_all_transfers_by_transport(told: Sequence[KvTransfer]) -> None:
    registry = CollectorRegistry()
    metrics = EngineMetrics(registry, make_engine("d0"))

    for transfer in told:
        metrics.observe(make_report(kv_transfers=(transfer,)))

    for transport in ("nixl", "zmq"):
        own = [one for one in told if one.transport == transport]
        labels = {"engine": "d0", "role": "decode", "transport": transport}
        seconds = registry.get_sample_value("slos_kv_transfer_seconds_total", labels) or 0.0
        assert abs(seconds - sum(one.seconds for one in own)) < 1e-6
        total = registry.get_sample_value("slos_kv_transfer_bytes_total", labels) or 0.0
        assert total == sum(one.bytes for one in own)
        for outcome in ("used", "expired"):
            count = registry.get_sample_value(
                "slos_kv_transfers_total", {**labels, "outcome": outcome}
            )
            assert (count or 0.0) == sum(one.outcome == outcome for one in own)


def test_an_engine_without_work_says_whether_the_planner_is_reached() -> None:
    registry = CollectorRegistry()
    metrics = EngineMetrics(registry, make_engine("d0"))
    attached = [True]
    metrics.reads_attached(lambda: attached[0])

    labels = {"engine": "d0", "role": "decode"}
    assert registry.get_sample_value("slos_engine_planner_attached", labels) == 1.0
    attached[0] = False
    assert registry.get_sample_value("slos_engine_planner_attached", labels) == 0.0


def test_tokens_in_the_prefix_cache_are_read_at_every_scrape() -> None:
    registry = CollectorRegistry()
    metrics = EngineMetrics(registry, make_engine("d0"))
    cached = [128]
    metrics.reads_cached(lambda: cached[0])

    labels = {"engine": "d0", "role": "decode"}
    assert registry.get_sample_value("slos_engine_cached_tokens", labels) == 128
    cached[0] = 64
    assert registry.get_sample_value("slos_engine_cached_tokens", labels) == 64


def test_preemptions_of_all_steps_are_counted() -> None:
    registry = CollectorRegistry()
    metrics = EngineMetrics(registry, make_engine("d0"))

    for evicted in (2, 0, 3):
        metrics.observe(make_report(evicted=evicted))

    labels = {"engine": "d0", "role": "decode"}
    assert registry.get_sample_value("slos_engine_preemptions_total", labels) == 5
