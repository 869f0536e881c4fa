"""Our step former in a plain `vllm serve`, without engine host, gateway and planner.

    vllm serve MODEL --scheduler-cls shared.engine.vllm_standalone.StandaloneScheduler

Requests bring their SLO in `vllm_xargs`; settings are in `--additional-config '{"slos": {...}}'`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector
from vllm.logger import init_logger
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from shared.batch_time import Fit, to_plain
from shared.clock import wall_time_s
from shared.engine.attainment import Attainment, Kind
from shared.engine.carried_terms import TERMS_KEY
from shared.engine.kv_layout import KvLayout
from shared.engine.link import HostLink
from shared.engine.profile_kept import fit_in, identity, kept_fit
from shared.engine.standalone import Slo, drop_expired, settings_from, slo_of
from shared.engine.vllm_identity import step_time_identity
from shared.engine.vllm_platform import device
from shared.engine.vllm_scheduler import SlosScheduler
from shared.engines import StepReport
from shared.errors import ConfigError, InvalidRequest
from shared.kept import cache_folder
from shared.scheduling.former import StepPlan
from shared.scheduling.terms import terms_as_plain

_LOG = init_logger("vllm.slos")  # vLLM shows only loggers below its own


class _NoHost:
    """In the place of the link to an engine host: nothing comes from it, reports are dropped."""

    def beat_while(self, is_idle: Callable[[], bool], now_s: Callable[[], float]) -> None: ...

    def beat(self, now_s: float) -> None: ...

    def report(self, reports: Sequence[StepReport]) -> bool:  # noqa: ARG002 - there is no reader
        return True

    def tell_layout(self, layout: KvLayout) -> None: ...

    def news(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Page(Collector):
    """The counts of attainment for Prometheus."""

    attainment: Attainment

    def collect(self) -> Iterator[CounterMetricFamily]:
        taken = CounterMetricFamily(
            "slos_requests",
            "Requests by class and by how they were taken",
            labels=["class", "kind"],
        )
        for (name, kind), count in self.attainment.taken.copy().items():
            taken.add_metric([name, kind], count)
        yield taken
        judged = CounterMetricFamily(
            "slos_targets",
            "TTFT and TPOT targets, met and missed",
            labels=["class", "target", "outcome"],
        )
        for (name, target, met), count in self.attainment.judged.copy().items():
            judged.add_metric([name, target, "met" if met else "missed"], count)
        yield judged


class StandaloneScheduler(SlosScheduler):
    """Keeps the deadlines of as many requests as it can, and counts attainment.

    Prompts go by deadline; where they cannot all be on time, the step former puts the longest
    behind the others (Moore and Hodgson). Step times come from a profile, and are learned from the
    engine's steps.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.scheduler_config.policy != "fcfs":
            raise ConfigError("--scheduling-policy: this scheduler takes fcfs only")
        if self.connector is not None:
            raise ConfigError("--kv-transfer-config: this scheduler works without a KV connector")
        self._slos_settings = settings_from(self.vllm_config.additional_config.get("slos", {}))
        self._slos_attainment = Attainment()
        self._slos_logged: list[str] = []
        self._slos_log_at_s = -math.inf
        self._slos_start_from_profile()
        self._slos_serve_page()

    def _slos_connect(self) -> HostLink:
        return _NoHost()

    def _slos_start_from_profile(self) -> None:
        """With the given profile, or with what an engine like this one kept in the cache."""
        named = self._slos_settings.profile
        fit = fit_in(Path(named)) if named else self._slos_kept_fit()
        if fit is None:
            _LOG.info("No profile of such an engine: step times are learned from its steps")
            return
        self._slos_ledger.times.start_from(to_plain(fit))
        _LOG.info("Step times start from a profile of %d steps", fit.steps)

    def _slos_kept_fit(self) -> Fit | None:
        known = step_time_identity(self.vllm_config, cpu=device() == "cpu")
        wanted = identity(self.vllm_config.model_config.model, known)
        return kept_fit(cache_folder(), wanted)

    def _slos_serve_page(self) -> None:
        port = self._slos_settings.metrics_port
        if not port:
            return
        registry = CollectorRegistry()
        registry.register(_Page(self._slos_attainment))
        port += self.vllm_config.parallel_config.data_parallel_rank
        host = self._slos_settings.metrics_host
        try:
            start_http_server(port, addr=host, registry=registry)
        except OSError as error:
            raise ConfigError(f"slos: metrics_port: {host}:{port}: {error.strerror}") from error
        _LOG.info("SLO attainment is at http://%s:%d/metrics", host, port)

    # -- the life of a request ----------------------------------------------------------------

    def add_request(self, request: Request) -> None:
        slo, arrived_s = self._slos_read(request), self._slos_arrived_s(request)
        terms = (slo or Slo()).terms(arrived_s=arrived_s)
        params = request.sampling_params
        if params is not None:  # also replaces what a client may have put there
            params.extra_args = {**(params.extra_args or {}), TERMS_KEY: terms_as_plain(terms)}
        super().add_request(request)
        if slo is None:
            self._slos_attainment.take_invalid()
            return
        has_target = slo.ttft_s is not None or slo.tpot_s is not None
        kind = Kind.SLO if has_target else Kind.NO_SLO
        self._slos_attainment.take(request.request_id, slo, kind, arrived_s=arrived_s)

    def _slos_read(self, request: Request) -> Slo | None:
        """None where it cannot be read: an engine core cannot refuse a request."""
        params = request.sampling_params
        try:
            return slo_of(params.extra_args if params else None, self._slos_settings.classes)
        except InvalidRequest as error:
            _LOG.warning_once("%s is invalid: served without an SLO", error.param)
            return None

    def _slos_arrived_s(self, request: Request) -> float:
        """When the API server received it, on this scheduler's clock."""
        waited_s = max(0.0, wall_time_s() - float(request.arrival_time))
        return self.slos_now_s() - waited_s

    def _slos_form(self, starts_s: float) -> StepPlan:
        plan = super()._slos_form(starts_s)
        drop_expired(self._slos_rows.former.rows)
        return plan

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        now_s = self.slos_now_s()
        for of_client in outputs.values():
            for one in of_client.outputs:
                self._slos_attainment.give(one.request_id, len(one.new_token_ids), now_s)
                if one.finish_reason is not None:
                    self._slos_attainment.end(one.request_id, now_s)
        self._slos_log(now_s)
        return outputs

    def finish_requests(
        self, request_ids: str | Iterable[str] | None, finished_status: RequestStatus
    ) -> list[Request]:
        finished = super().finish_requests(request_ids, finished_status)
        now_s = self.slos_now_s()
        for request in finished:
            self._slos_attainment.end(request.request_id, now_s)
        return finished

    def _slos_log(self, now_s: float) -> None:
        if now_s < self._slos_log_at_s:
            return
        self._slos_log_at_s = now_s + self._slos_settings.log_every_s
        lines = self._slos_attainment.lines()
        if lines != self._slos_logged:
            self._slos_logged = lines
            for line in lines:
                _LOG.info("SLO attainment: %s", line)

    def shutdown(self) -> None:
        self._slos_log(math.inf)
        super().shutdown()
