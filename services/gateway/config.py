"""The gateway's options; `shared.options.load` fills them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from services.gateway.api_keys import all_keys
from services.gateway.grammar_limits import GrammarLimits
from services.gateway.request_body import LARGEST_AT_ONCE, BodyLimits
from services.gateway.slo_inputs import (
    EITHER_OR,
    LEAST_VALUE,
    LONGEST_TARGET_MS,
    MOST_SLOWDOWN,
    MOST_STAGES,
    MOST_VALUE,
    SHORTEST_TARGET_MS,
    Catalogue,
)
from services.gateway.tenants import Known, Tenants
from services.gateway.tenants_file import TenantsFile
from services.gateway.usage import UsageBook
from services.gateway.worker_rules import MOST_WORKERS, portion, refuse_state_of_one_process
from shared.addresses import Address
from shared.cluster_secret import IDENTITY_HELP, IDENTITY_VARIABLE
from shared.errors import ConfigError
from shared.options import option
from shared.requests import OnRefuse, Pacing, SloTargets, Stage
from shared.spelling import nearest

Milliseconds = Annotated[float, Field(ge=SHORTEST_TARGET_MS, le=LONGEST_TARGET_MS)]
Slowdown = Annotated[float, Field(ge=1, le=MOST_SLOWDOWN)]
Value = Annotated[float, Field(ge=LEAST_VALUE, le=MOST_VALUE)]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]
Workers = Annotated[int, Field(ge=1, le=MOST_WORKERS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTargets:
    """A stage of an answer with its own TPOT target."""

    name: Annotated[str, Field(min_length=1)]
    tpot_ms: Milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTargets:
    """The targets of an SLO class; None sets no target."""

    ttft_ms: Milliseconds | None = None
    ttft_slowdown: Slowdown | None = None
    tpot_ms: Milliseconds | None = None
    stages: Annotated[tuple[StageTargets, ...], Field(max_length=MOST_STAGES)] = ()
    on_refuse: OnRefuse = OnRefuse.BEST_EFFORT
    value: Value = 1.0
    pacing: Pacing = Pacing.MEAN

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages must have distinct names, read {', '.join(names)}")
        for one, other in EITHER_OR:
            if getattr(self, one) is not None and getattr(self, other):
                raise ValueError(f"{one} and {other} set the same target: give one of them")

    def named(self, name: str) -> SloTargets:
        return SloTargets(
            class_name=name,
            ttft_s=None if self.ttft_ms is None else self.ttft_ms / 1000,
            ttft_slowdown=self.ttft_slowdown,
            tpot_s=None if self.tpot_ms is None else self.tpot_ms / 1000,
            stages=tuple(Stage(name=one.name, tpot_s=one.tpot_ms / 1000) for one in self.stages),
            on_refuse=self.on_refuse,
            value=self.value,
            pacing=self.pacing,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """All options of the gateway."""

    model: str = option(
        "embedded", help="folder or hub name of the model; `embedded` for the packaged one"
    )
    host: str = option("127.0.0.1", help="address to listen on")
    port: Port = option(8000, help="port to listen on")
    workers: Workers = option(
        1,
        help="processes that serve the address; limits on requests, connections and bodies are "
        "divided among them",
    )
    planner: Address = option("127.0.0.1:8100", help="address of the planner's gRPC service")
    cluster_secret_file: str = option("", help=IDENTITY_HELP, variable=IDENTITY_VARIABLE)
    served_model_name: tuple[str, ...] = option(
        (), help="names of the model in the API, the engines' first; default: model"
    )
    dtype: str = option("auto", help="the engines' dtype, as vLLM spells it")
    max_model_len: Annotated[int, Field(gt=0)] | None = option(
        None, help="longest prompt plus answer in tokens; the model's own limit when none"
    )
    api_key: tuple[str, ...] = option(
        (), help="keys of which a client must send one; open to all when empty", secret=True
    )
    api_key_file: str = option(
        "", help="file with more such keys, one a line; lines that begin with # do not count"
    )
    tenants_file: str = option(
        "", help="file of tenants with their keys, rights, limits and weights; read when it changes"
    )
    classes: dict[str, ClassTargets] = option({}, help="SLO classes by name")
    default_class: str = option("default", help="the class of a request that names none")
    tool_call_parser: str | None = option(
        None, help="vLLM's parser for tool calls; giving one turns automatic tool choice on"
    )
    reasoning_parser: str | None = option(None, help="vLLM's parser for reasoning")
    stage_ends: dict[str, str] = option(
        {},
        help="text that ends a stage, by the stage's name, e.g. {thinking: </think>}; one token of "
        "the model. Where thinking ends, the reasoning parser knows already",
    )
    chat_template: str | None = option(
        None, help="file of the chat template, or the template itself"
    )
    vllm: dict[str, Any] = option(
        {}, help="further options of vLLM's frontend, by their vLLM names"
    )
    hold_limit_s: Seconds = option(
        90.0,
        help="how long a deferred request may wait for its placement beyond its TTFT target; set "
        "it above the planner's patience_s",
    )
    place_limit_s: Seconds = option(
        2.0,
        help="how long the planner may take to place a request before the gateway places it "
        "itself; set it above twice the planner's hold_s",
    )
    prefix_hashes: bool = option(
        True,
        help="send the planner the hashes of prompts, by which it finds engines that have their "
        "beginnings cached; --no-prefix-hashes: place prompts as if nothing were cached",
    )
    first_reply_limit_s: Seconds = option(
        300.0, help="how long an engine may take to give a request's first token"
    )
    next_reply_limit_s: Seconds = option(
        60.0, help="how long an engine may take from one token to the next"
    )
    drain_limit_s: Seconds = option(
        30.0, help="how long requests in flight may take to finish once the gateway is told to stop"
    )
    drain_quiet_s: Annotated[float, Field(ge=0)] = option(
        0.0,
        help="within that time, new requests are still served until none has come for this long: "
        "load balancers need time to see that /ready fails; 0 refuses them at once",
    )
    body_limit_bytes: Count = option(8 * 1024 * 1024, help="largest request body, on any route")
    body_limit_s: Seconds = option(60.0, help="how long a client may take to send its request body")
    body_limit_values: Count = option(
        250_000,
        help="most JSON values in a body, token ids among them; parsing and validating as many "
        "stops all streams for about 0.1 s",
    )
    body_limit_keys: Count = option(
        10_000, help="most keys of JSON objects in a body, which cost far more than other values"
    )
    head_limit_bytes: Count = option(
        64 * 1024, help="most bytes of a request's first line and headers"
    )
    head_limit_s: Seconds = option(
        10.0, help="how long a client may take to send them, from the connection on"
    )
    idle_limit_s: Seconds = option(60.0, help="how long a connection may stay open unused")
    unread_limit_s: Seconds = option(
        60.0, help="how long a client may read nothing of what was sent to it"
    )
    connection_limit: Count = option(
        8192, help="most open connections; a request on one more is a 503"
    )
    request_limit: Count = option(4096, help="most requests in flight; one more is a 503")
    grammar_limit_bytes: Count = option(
        256 * 1024, help="largest schema, regex, list of choices or grammar of structured output"
    )
    grammar_limit_s: Seconds = option(
        5.0, help="processor time that compiling one of them may take, on one processor"
    )
    grammar_limit_mib: Count = option(512, help="memory that compiling one of them may take")
    sequence_limit: Count = option(
        1024, help="most sequences of one request: its prompts times its n"
    )
    access_log: bool = option(False, help="log a line for each HTTP request")
    vllm_log_level: str = option("ERROR", help="log level of vLLM inside the gateway")

    @property
    def api_model_names(self) -> tuple[str, ...]:
        return self.served_model_name or (self.model,)

    def body_limits(self) -> BodyLimits:
        return BodyLimits(
            size_bytes=self.body_limit_bytes,
            time_s=self.body_limit_s,
            values=self.body_limit_values,
            keys=self.body_limit_keys,
            largest_at_once=portion(LARGEST_AT_ONCE, self.workers),
        )

    def grammar_limits(self) -> GrammarLimits:
        return GrammarLimits(
            time_s=self.grammar_limit_s, memory_bytes=self.grammar_limit_mib * 1024 * 1024
        )

    def tenants(self, usage: UsageBook | None = None) -> tuple[Tenants, TenantsFile | None]:
        """The tenants, and the file that they were read from, if any. `usage` is that of all
        workers; None: this process counts alone. Raises ConfigError.
        """
        own_keys = all_keys(self.api_key, self.api_key_file)
        tenants = Tenants(own_keys) if usage is None else Tenants(own_keys, usage)
        if not self.tenants_file:
            return tenants, None
        catalogue = self.catalogue()
        known = Known(
            classes={catalogue.default.class_name, *catalogue.classes},
            models=self.api_model_names,
        )
        file = TenantsFile(path=Path(self.tenants_file), known=known, tenants=tenants)
        file.read()
        return tenants, file

    def check(self) -> None:
        """Raises ConfigError for faults in classes, keys and tenants, and for what several workers
        cannot do, before vLLM loads.
        """
        refuse_state_of_one_process(self.workers, self.vllm, os.environ)
        self.tenants()
        self.catalogue()

    def catalogue(self) -> Catalogue:
        """The classes as targets. Raises ConfigError when the default class does not exist."""
        classes = {name: targets.named(name) for name, targets in self.classes.items()}
        default = classes.get(self.default_class)
        if default is None and self.default_class != "default":
            raise ConfigError(
                f"default_class names no class: read {self.default_class!r}"
                f"{nearest(self.default_class, classes)}"
            )
        return Catalogue(classes=classes, default=default or SloTargets())
