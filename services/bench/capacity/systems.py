"""The systems that are compared, as processes: stock vLLM and ours, on the same terms.

Starts nothing itself.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from services.bench.capacity.options import CapacityOptions
from services.bench.crew import pick_ports
from services.bench.gateway_options import GatewayBenchOptions
from services.bench.parts import Parts
from services.node.plan import Part
from shared.ports import LOOPBACK

STOCK, OURS = "vllm", "slos-serve"
SAME_STEP_TOKENS = 2048  # with so many at most in a step stock vLLM has the limit of ours
_LOOKUP = {"prompt_lookup_max": 4, "prompt_lookup_min": 2}  # of n-gram drafts, as our engine host's


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What is started together, and where it is asked. `knows_slos` is false for stock vLLM."""

    name: str
    parts: Sequence[Part]
    url: str
    knows_slos: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Systems:
    """Makes the systems. `model` is the resolved one; each system has ports of its own."""

    options: CapacityOptions
    model: str
    run_dir: Path
    environ: Mapping[str, str]

    def profile(self) -> Part:
        """Measures the engine that all systems have, alone."""
        return self._parts("profile").profile()

    def stock(self, name: str, step_tokens: int, speculation_tokens: int = 0) -> System:
        """`vllm serve`; engine, model and threads as ours."""
        made = self._parts(name)
        flags = ["--max-num-batched-tokens", str(step_tokens)]
        if speculation_tokens:
            drafts = {"method": "ngram", "num_speculative_tokens": speculation_tokens, **_LOOKUP}
            flags += ["--speculative-config", json.dumps(drafts)]
        part = _with_flags(made.stock(), flags)  # of a flag that comes twice vLLM takes the last
        return System(name=name, parts=[part], url=made.stock_url, knows_slos=False)

    def ours(self, name: str, configuration: Path, speculation_tokens: int = 0) -> System:
        """Planner, one engine and gateway, with the classes of the configuration."""
        made = self._parts(name)
        engine = _with_flags(made.engine(), ["--speculation-tokens", str(speculation_tokens)])
        return self._cluster(name, made, [engine], configuration)

    def ours_in_two(self, name: str, configuration: Path, roles: Sequence[str]) -> System:
        """Two engines in these roles, `prefill` or `decode`, one core each where there are two."""
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
            ),
            ports=pick_ports(),
            model=self.model,
            run_dir=self.run_dir / name,
            environ=self.environ,
        )


def _with_flags(part: Part, flags: Sequence[str]) -> Part:
    return replace(part, command=(*part.command, *flags))


def _as_engine(engine: Part, number: int, role: str, own: Parts) -> Part:
    """The engine in a role, under a name and at ports of its own, with KV that moves."""
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
