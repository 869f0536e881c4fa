"""The processes of the compared systems, stock vLLM and ours, with the same settings."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from services.bench.capacity.options import CapacityOptions
from services.bench.gateway_options import GatewayBenchOptions
from services.bench.parts import Parts
from services.bench.processes import pick_ports
from services.node.plan import Part
from shared.ports import LOOPBACK

STOCK, OURS = "vllm", "slos-serve"
SAME_STEP_TOKENS = 2048  # token budget of a step that gives stock vLLM the limit of ours
_LOOKUP = {"prompt_lookup_max": 4, "prompt_lookup_min": 2}  # of n-gram drafts, as our engine host's


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Processes that start together, and their URL. `knows_slos` is false for stock vLLM."""

    name: str
    parts: Sequence[Part]
    url: str
    knows_slos: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Systems:
    """Makes the systems, each with different ports. `model` is the resolved one."""

    options: CapacityOptions
    model: str
    run_dir: Path
    environ: Mapping[str, str]

    def profile(self) -> Part:
        """The process that profiles the engine of all systems, alone."""
        return self._parts("profile").profile()

    def stock(self, name: str, step_tokens: int, speculation_tokens: int = 0) -> System:
        """`vllm serve` with the engine settings, model and threads of ours."""
        made = self._parts(name)
        flags = ["--max-num-batched-tokens", str(step_tokens)]
        if speculation_tokens:
            drafts = {"method": "ngram", "num_speculative_tokens": speculation_tokens, **_LOOKUP}
            flags += ["--speculative-config", json.dumps(drafts)]
        part = _with_flags(made.stock(), flags)  # vLLM takes the last of repeated flags
        return System(name=name, parts=[part], url=made.stock_url, knows_slos=False)

    def ours(self, name: str, configuration: Path, speculation_tokens: int = 0) -> System:
        """A planner, one engine and a gateway, with the classes of the configuration."""
        made = self._parts(name)
        engine = _with_flags(made.engine(), ["--speculation-tokens", str(speculation_tokens)])
        return self._cluster(name, made, [engine], configuration)

    def ours_in_two(self, name: str, configuration: Path, roles: Sequence[str]) -> System:
        """A planner, engines in these roles (`prefill` or `decode`), and a gateway."""
        made = self._parts(name)
        engines = [
            _as_engine(made.engine(), number, role, self._parts(name))
            for number, role in enumerate(roles)
        ]
        return self._cluster(name, made, engines, configuration)

    def _cluster(
        self, name: str, made: Parts, engines: Sequence[Part], configuration: Path
    ) -> System:
        told = {"SLOS_CONFIG": str(configuration)}
        parts = [
            replace(part, environ={**part.environ, **told})
            for part in (made.planner(), *engines, made.gateway())
        ]
        return System(name=name, parts=parts, url=made.gateway_url, knows_slos=True)

    def _parts(self, name: str) -> Parts:
        options = self.options
        return Parts(
            options=GatewayBenchOptions(
                dtype=options.dtype,
                max_model_len=options.max_model_len,
                kv_cache_gib=options.kv_cache_gib,
                threads=options.threads,
                gpu_share=options.gpu_share,
            ),
            ports=pick_ports(),
            model=self.model,
            run_dir=self.run_dir / name,
            environ=self.environ,
        )


def _with_flags(part: Part, flags: Sequence[str]) -> Part:
    return replace(part, command=(*part.command, *flags))


def _as_engine(engine: Part, number: int, role: str, own: Parts) -> Part:
    """The engine in this role, with its own name and ports, and with KV transfer."""
    ports = own.ports
    changed = {
        "--name": f"{role}-{number}",
        "--port": str(ports.engine),
        "--kv-port": str(ports.engine_kv),
        "--kv-transport": "nixl",
    }
    words = list(engine.command)
    for flag, value in changed.items():
        words[words.index(flag) + 1] = value
    words[words.index("services.decode")] = f"services.{role}"
    return replace(
        engine,
        name=f"{role}-{number}",
        command=tuple(words),
        address=f"{LOOPBACK}:{ports.engine}",
        log=engine.log.parent / f"{role}-{number}.log",
    )
