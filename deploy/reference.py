"""Writes the generated pages of docs/reference from the code: options, commands, metrics, tuning.

`make reference` writes them; a unit test compares them with the code.
"""

import asyncio
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from services.bench.__main__ import MODULES
from services.cli import COMMANDS
from services.gateway.metrics import GatewayMetrics
from services.planner import tuning as planner_tuning
from services.planner.server.metrics import PlannerMetrics
from shared.batch_time import tuning as batch_time_tuning
from shared.engines import EngineDescription, Role
from shared.option_table import describe
from shared.scheduling import tuning as scheduling_tuning
from shared.telemetry.engine_metrics import EngineMetrics
from shared.telemetry.task_count import count_tasks
from shared.tuning import TunedNumber, tuned_numbers

TUNED = {
    "Planner": planner_tuning,
    "Step former, forecasts and drafts": scheduling_tuning,
    "Step-time model": batch_time_tuning,
}
FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
OPTIONS_HEAD = """\
# Options

<!-- Written by `make reference` from the option classes. -->

An option is a flag, an environment variable and a YAML key. A flag overrides the variable, the
variable overrides the YAML file (`--config FILE` or `SLOS_CONFIG`), and the file overrides the
default. An unknown name is an error that names the nearest known one.
`slos-serve COMMAND --help` prints the same with the allowed values.
"""
COMMANDS_HEAD = """\
# Commands

<!-- Written by `make reference` from the table of commands. -->

`slos-serve COMMAND --help` prints the options of a command, `slos-serve --version` the version.
`python -m services.gateway` and the like start a part without the script `slos-serve`.
"""
METRICS_HEAD = """\
# Metrics

<!-- Written by `make reference` from the Prometheus collectors. -->

Every name ending in `_seconds` is in seconds. The pages of the gateway and of engines also hold
vLLM's own metrics (`vllm:...`), and all pages those of the Python process. Labels take their
values from closed sets: classes and tenants of the configuration, engines that are attached.
"""
TUNING_HEAD = """\
# Tuned numbers

<!-- Written by `make reference` from the `tuning` modules. -->

Every number that shapes a decision of the planner, the step former or the step-time model, with the
range in which its rule still does what it is for. Numbers that bound memory or the time of a search
are not among them. None of them is an option: they hold for all models, loads and hardware.
"""
EXIT_STATUS = (
    ("0", "the command did what it was asked for"),
    ("1", "a check of the command failed, or the part that it ran ended badly"),
    ("2", "it could not run; one line on stderr says why and names the cure"),
    ("130", "Ctrl-C ended it"),
    ("141", "its output was closed before the end"),
)


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a command.

    Attributes:
        command: The words after `slos-serve`, or a whole command line.
        section: The section of the YAML file that holds them.
        source: Module and class of their dataclass, `module:class`.
    """

    command: str
    section: str
    source: str

    def table(self) -> str:
        module, _, name = self.source.partition(":")
        return describe(getattr(import_module(module), name), self.section)


ALL_OPTIONS = (
    Options("up", "node", "services.node.on_ray.config:UpOptions"),
    Options("demo", "node", "services.node.demo:DemoOptions"),
    Options("gateway", "gateway", "services.gateway.config:GatewayOptions"),
    Options("planner", "planner", "services.planner.config:PlannerOptions"),
    Options("prefill", "prefill", "shared.engine.config:EngineOptions"),
    Options("decode", "decode", "shared.engine.config:EngineOptions"),
    Options("scale", "scale", "services.node.on_ray.scale:ScaleOptions"),
    Options("down", "down", "services.node.on_ray.down:DownOptions"),
    Options("drain", "drain", "services.node.drain:DrainOptions"),
    Options("doctor", "doctor", "services.node.doctor:DoctorOptions"),
    Options("profile", "profile", "services.bench.profile:ProfileOptions"),
    Options("simulate", "simulate", "services.evaluation.options:SimulateOptions"),
    Options("capacity", "capacity", "services.evaluation.options:CapacityOptions"),
    Options("plan", "plan", "services.evaluation.options:PlanOptions"),
    Options("evaluate", "evaluate", "services.evaluation.options:EvaluateOptions"),
    Options("regret", "regret", "services.evaluation.options:RegretOptions"),
    Options("bench capacity", "bench_capacity", "services.bench.capacity.options:CapacityOptions"),
    Options("bench chaos", "bench_chaos", "services.bench.chaos.options:ChaosOptions"),
    Options("bench fidelity", "bench_fidelity", "services.bench.fidelity.options:FidelityOptions"),
    Options("bench fit", "bench_fit", "services.bench.fit_options:FitOptions"),
    Options("bench gateway", "bench_gateway", "services.bench.gateway_options:GatewayBenchOptions"),
    Options("bench gpu", "bench_gpu", "services.bench.gpu.options:GpuBenchOptions"),
    Options("bench hardware", "bench_hardware", "services.bench.hardware:HardwareOptions"),
    Options("bench kv", "bench_kv", "services.bench.kv_options:KvOptions"),
    Options("bench prefixes", "bench_prefixes", "services.bench.prefixes:PrefixesOptions"),
    Options("bench planner", "bench_planner", "services.bench.planner_options:PlannerBenchOptions"),
    Options("bench soak", "bench_soak", "services.bench.soak.options:SoakOptions"),
    Options(
        "python -m services.evaluation.follow",
        "follow",
        "services.evaluation.options:FollowOptions",
    ),
    Options(
        "python -m services.evaluation.shared_prefixes",
        "shared_prefixes",
        "services.evaluation.options:SharedPrefixesOptions",
    ),
    Options(
        "python -m services.evaluation.counterfactual",
        "counterfactual",
        "services.evaluation.options:CounterfactualOptions",
    ),
)
AN_ENGINE = EngineDescription(
    name="any",
    engine_id="any",
    role=Role.DECODE,
    address="",
    model="",
    vllm_version="",
    block_size_tokens=16,
    kv_blocks=1,
    kv_bytes_per_token=1,
    max_model_len_tokens=1,
    max_running_requests=1,
    max_step_tokens=1,
    max_speculation_tokens=0,
)


def options_page() -> str:
    """A table of options for each command that has some."""
    tables = [f"## {one.command}\n\n{one.table()}\n" for one in ALL_OPTIONS]
    return "\n".join([OPTIONS_HEAD, *tables])


def commands_page() -> str:
    """All commands with what they are for, and their exit status."""
    commands = [(_linked(name), one.help) for name, one in COMMANDS.items()]
    benches = [(_linked(f"bench {name}"), text) for name, (_, text) in MODULES.items()]
    parts = [
        _table(("command", "purpose"), commands),
        f"## Measurements\n\n{_table(('command', 'purpose'), benches)}",
        f"## Exit status\n\n{_table(('status', 'meaning'), EXIT_STATUS)}",
    ]
    return "\n".join([COMMANDS_HEAD, *parts])


def metrics_page() -> str:
    """The metrics of each kind of process."""
    parts = [METRICS_HEAD]
    for title, where, registry in _registries():
        rows = [
            (f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels), text.rstrip("."))
            for name, kind, labels, text in _metrics(registry)
        ]
        table = _table(("metric", "type", "labels", "meaning"), rows)
        parts.append(f"## {title}\n\n{where}\n\n{table}")
    return "\n".join(parts)


def tuning_page() -> str:
    """One table for each module of tuned numbers."""
    parts = [TUNING_HEAD]
    for title, module in TUNED.items():
        rows = [_tuned_row(one) for one in tuned_numbers(module)]
        parts.append(f"## {title}\n\n`{module.__name__}`, {len(rows)} numbers.\n")
        parts.append("| number | value | range | unit | reason |\n|---|---|---|---|---|")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _tuned_row(one: TunedNumber) -> str:
    about = one.about
    reason = f"{about.why} [Evidence](../{about.page})" if about.page else about.why
    value, low, high = (f"{number:.4g}" for number in (one.value, about.low, about.high))
    return f"| `{one.name}` | {value} | {low} to {high} | {about.unit} | {reason} |"


PAGES = {
    "options.md": options_page,
    "commands.md": commands_page,
    "metrics.md": metrics_page,
    "tuning.md": tuning_page,
}


def _linked(command: str) -> str:
    """A command with a link to its options, where it has some."""
    shown = f"`slos-serve {command}`"
    if not any(one.command == command for one in ALL_OPTIONS):
        return shown
    return f"[{shown}](options.md#{command.replace(' ', '-')})"


def _registries() -> Iterator[tuple[str, str, CollectorRegistry]]:
    gateway, planner, engine = CollectorRegistry(), PlannerMetrics().registry, CollectorRegistry()
    GatewayMetrics((), gateway)
    EngineMetrics(engine, AN_ENGINE)
    asyncio.run(_count_tasks((gateway, planner, engine)))
    yield "Gateway", "`/metrics` of the gateway's own port (8000).", gateway
    yield "Planner", "`/metrics` of the planner's `metrics_port` (8101).", planner
    yield "Engines", "`/metrics` of each engine's `metrics_port` (8300 and up).", engine


async def _count_tasks(registries: Iterable[CollectorRegistry]) -> None:
    for registry in registries:
        count_tasks(registry)


def _metrics(registry: CollectorRegistry) -> Iterator[tuple[str, str, Sequence[str], str]]:
    """Name, type, labels and documentation of each collector, in the order of registration."""
    # The client library shows the labels of a metric only on its samples, and there are none here.
    for one in registry._collector_to_names:
        assert isinstance(one, MetricWrapperBase)
        kind = str(one._type)
        suffix = "_total" if kind == "counter" else ""
        yield f"{one._name}{suffix}", kind, one._labelnames, one._documentation


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def main() -> int:
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
        print(f"wrote docs/reference/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
