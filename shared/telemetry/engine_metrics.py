"""Prometheus metrics of an engine host, beside vLLM's own."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.engines import EngineDescription, KvTransfer, StepReport

_STEP_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class KvMetrics:
    """Transfers of KV blocks that this engine pulled, by transport."""

    def __init__(self, registry: CollectorRegistry, labels: Mapping[str, str]) -> None:
        self._labels = dict(labels)
        names = (*labels, "transport")
        self._transfers = Counter(
            "slos_kv_transfers",
            "KV transfers that ended, by transport and by use of the blocks",
            (*names, "outcome"),
            registry=registry,
        )
        self._bytes = Counter(
            "slos_kv_transfer_bytes", "Bytes of KV that arrived", names, registry=registry
        )
        self._seconds = Counter(
            "slos_kv_transfer_seconds",
            "Seconds of KV transfers, summed",
            names,
            registry=registry,
        )

    def observe(self, transfers: Iterable[KvTransfer]) -> None:
        for transfer in transfers:
            labels = {**self._labels, "transport": transfer.transport}
            self._transfers.labels(**labels, outcome=transfer.outcome).inc()
            self._bytes.labels(**labels).inc(transfer.bytes)
            self._seconds.labels(**labels).inc(transfer.seconds)


class EngineMetrics:
    """Metrics of an engine's steps."""

    def __init__(self, registry: CollectorRegistry, engine: EngineDescription) -> None:
        labels = {"engine": engine.name, "role": engine.role.value}
        names = tuple(labels)

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, names, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, names, registry=registry)

        self._tokens = Counter(
            "slos_engine_tokens", "Tokens computed, by kind", (*names, "kind"), registry=registry
        )
        self._labels = labels
        self._step_seconds = Histogram(
            "slos_engine_step_seconds",
            "Duration of a step",
            names,
            buckets=_STEP_BUCKETS_S,
            registry=registry,
        ).labels(**labels)
        self._accepted = counter(
            "slos_engine_speculation_accepted_tokens", "Drafted tokens that were confirmed"
        ).labels(**labels)
        self._transfers_failed = counter(
            "slos_engine_kv_transfers_failed",
            "KV transfers that failed and were computed again here",
        ).labels(**labels)
        self._preemptions = counter(
            "slos_engine_preemptions", "Requests whose KV was dropped before they had ended"
        ).labels(**labels)
        self._kv = KvMetrics(registry, labels)
        self._running = gauge("slos_engine_running_requests", "Requests in the batch").labels(
            **labels
        )
        self._waiting = gauge("slos_engine_waiting_requests", "Requests in the queue").labels(
            **labels
        )
        self._free_blocks = gauge("slos_engine_free_kv_blocks", "KV blocks free").labels(**labels)
        self._attached = gauge(
            "slos_engine_planner_attached", "1 while the planner is reached"
        ).labels(**labels)
        self._cached_tokens = gauge(
            "slos_engine_cached_tokens", "Tokens of prompts in the prefix cache, in whole spans"
        ).labels(**labels)
        self._free_blocks.set(engine.kv_blocks)
        gauge("slos_engine_kv_blocks", "KV blocks in all").labels(**labels).set(engine.kv_blocks)

    def observe(self, report: StepReport) -> None:
        kinds = {
            "prefill": report.prefill_tokens,
            "decode": report.decode_tokens,
            "speculated": report.speculated_tokens,
        }
        for kind, tokens in kinds.items():
            self._tokens.labels(**self._labels, kind=kind).inc(tokens)
        if report.tokens:
            self._step_seconds.observe(report.duration_s)
        self._accepted.inc(report.accepted_tokens)
        self._transfers_failed.inc(report.kv_transfers_failed)
        self._preemptions.inc(report.evicted)
        self._kv.observe(report.kv_transfers)
        self._running.set(report.running)
        self._waiting.set(report.waiting)
        self._free_blocks.set(report.free_kv_blocks)

    def reads_attached(self, attached: Callable[[], bool]) -> None:
        """Reads `attached` at every scrape, since an idle engine sends no reports."""
        self._attached.set_function(attached)

    def reads_cached(self, tokens: Callable[[], int]) -> None:
        """Reads the tokens in the prefix cache at every scrape."""
        self._cached_tokens.set_function(tokens)
