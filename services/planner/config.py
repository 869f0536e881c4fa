"""The planner's options; `shared.options.load` fills them."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from services.planner.planner_config import PlannerConfig
from services.planner.scaling.numbers import ScalingNumbers
from shared.addresses import Address
from shared.cluster_secret import IDENTITY_HELP, IDENTITY_VARIABLE
from shared.listening import (
    HEALTH_PORT_HELP,
    INSECURE_HELP,
    INSECURE_VARIABLE,
    require_protection,
)
from shared.options import option

Seconds = Annotated[float, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerOptions:
    """All options of the planner. With `explain` it asks a running planner instead of serving."""

    host: str = option("127.0.0.1", help="address to listen on")
    port: Port = option(8100, help="port of the gRPC service; 0 picks one")
    cluster_secret_file: str = option("", help=IDENTITY_HELP, variable=IDENTITY_VARIABLE)
    insecure: bool = option(False, help=INSECURE_HELP, variable=INSECURE_VARIABLE)
    health_port: Port = option(0, help=HEALTH_PORT_HELP)
    metrics_port: Port = option(8101, help="port of /metrics over HTTP; 0 picks one")
    model: str | None = option(
        None, help="the only model that engines may register; none: the first engine's"
    )
    vllm_version: str | None = option(
        None, help="the only vLLM version that engines may register; none: the first engine's"
    )
    grace_s: Annotated[float, Field(ge=0)] = option(
        10.0, help="seconds after a start or a lost engine in which requests wait for engines"
    )
    hold_s: Seconds = option(
        0.5,
        help="seconds that a call to place a request waits for its decision before it asks again",
    )
    retry_after_s: Seconds = option(
        1.0, help="seconds after which a refused client may try again, where none can be computed"
    )
    kv_bytes_per_second: Annotated[float, Field(gt=0)] = option(
        5e8, help="speed of KV transfers between engines"
    )
    kv_fixed_s: Annotated[float, Field(ge=0)] = option(
        0.005, help="seconds that a KV transfer takes beside its bytes"
    )
    pull_prefixes: bool = option(
        False,
        help="pull a cached prefix from another engine where that is faster than to compute it",
    )
    patience_s: Seconds = option(
        60.0, help="seconds that a request with a pace but no TTFT target waits for a promise"
    )
    kept_decisions: Annotated[int, Field(ge=1, le=1_000_000)] = option(
        4096, help="how many of the latest decisions --explain can tell of"
    )
    decisions_log: str = option(
        "", help="file that every decision is appended to when it has ended, as a line of JSON"
    )
    decisions_log_mib: Annotated[float, Field(gt=0)] = option(
        256.0, help="size at which that file is set aside as FILE.1, in place of the one before"
    )
    registration_limit_s: Seconds = option(
        5.0, help="seconds that an engine has to register once it is connected"
    )
    shutdown_limit_s: Seconds = option(5.0, help="seconds that calls under way have to end")
    scale_every_s: Seconds = option(
        10.0, help="seconds between two computations of how many engines are needed"
    )
    scale_window_s: Seconds = option(
        120.0,
        help="seconds of recent requests that this is computed from; a longer window follows the "
        "load later, a shorter one takes a burst for it",
    )
    scale_attainment: Annotated[float, Field(gt=0, le=1)] = option(
        0.95, help="share of requests with targets that the desired engines are to keep"
    )
    scale_headroom: Annotated[float, Field(ge=0)] = option(
        0.1,
        help="share by which steps must be able to last longer before a smaller fleet counts as "
        "enough; keeps the number from alternating at a load between two sizes",
    )
    scale_down_after_s: Annotated[float, Field(ge=0)] = option(
        300.0,
        help="seconds for which fewer engines must be enough before fewer are desired; several "
        "times what an engine needs to start",
    )
    explain: str | None = option(
        None, help="ask a running planner what it decided under this id, and why"
    )
    planner: Address = option("127.0.0.1:8100", help="address of the planner that --explain asks")
    json: bool = option(False, help="print the explanation as JSON")

    def check(self) -> None:
        """Raises ConfigError where other machines could reach an unprotected planner."""
        if self.explain is None and not self.cluster_secret_file:
            require_protection({"host": self.host}, insecure=self.insecure)

    @property
    def scaling(self) -> ScalingNumbers:
        return ScalingNumbers(
            window_s=self.scale_window_s,
            attainment=self.scale_attainment,
            headroom=self.scale_headroom,
            hold_s=self.scale_down_after_s,
        )

    @property
    def numbers(self) -> PlannerConfig:
        return PlannerConfig(
            model=self.model,
            vllm_version=self.vllm_version,
            kv_bytes_per_second=self.kv_bytes_per_second,
            kv_fixed_s=self.kv_fixed_s,
            grace_s=self.grace_s,
            hold_s=self.hold_s,
            retry_after_s=self.retry_after_s,
            patience_s=self.patience_s,
            kept_decisions=self.kept_decisions,
            pull_prefixes=self.pull_prefixes,
        )
