"""The options of the evaluation's commands."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from services.evaluation.scenarios import OF_CLASSES
from shared.options import option

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateOptions:
    """One load at one rate, through one system or several."""

    scenario: str = option("", help="ChatBot, Coder, Summarizer, Mixed, ToolLLM or Reasoning")
    trace: str = option("", help="a trace file in its place: Azure, Mooncake, BurstGPT, ServeGen")
    classes: str = option("", help="or a YAML or TOML file with your own classes, as for plan")
    targets: str = option("Mixed", help="the scenario whose targets the requests of a trace have")
    fleet: str = option("1", help="engines: 4, or prefill=1,decode=3")
    rate: NotNegative = option(
        0.0, help="programs/s offered to the fleet; 0: as in the trace, which has a rate of its own"
    )
    system: tuple[str, ...] = option(("slos-serve",), help="systems by name, or all")
    setting: str = option("", help="label of the system's setting; default: the best of all")
    hardware: str = option(
        "", help=f"a table of shared/hardware; default: the scenario's own, of classes {OF_CLASSES}"
    )
    drafts: bool = option(True, help="engines have their draft models; --no-drafts: they have none")
    seconds: NotNegative = option(0.0, help="how long requests arrive; default: 120 s")
    requests: Natural = option(0, help="how many programs arrive, in place of --seconds")
    seed: Natural = option(1, help="of arrivals, lengths and noise")
    jobs: Natural = option(0, help="processes; 0: one for each core")
    json: bool = option(
        False, help="print a JSON array of one object for each system instead of tables"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityOptions:
    """How much load each system carries in each scenario."""

    scenarios: tuple[str, ...] = option((), help="by name; default: all six")
    classes: str = option(
        "", help="in their place a YAML or TOML file with your own classes, as for plan"
    )
    systems: tuple[str, ...] = option((), help="by name; default: all")
    replicas: tuple[Count, ...] = option((1, 4), help="engines of the fleets")
    attainment: tuple[Share, ...] = option(
        (0.9, 0.98), help="shares of programs that must keep all their targets"
    )
    rule: str = option(
        "",
        help="when a target is kept: mean, windows, or deadlines, which is then asked for; "
        "default: mean, or for your own classes what each asks for",
    )
    hardware: str = option(
        "",
        help=f"a table of shared/hardware; default: each scenario's own, of classes {OF_CLASSES}",
    )
    quick: bool = option(False, help="shorter loads and coarser rates, which take minutes")
    older: bool = option(False, help="take points that other versions of the code measured, too")
    out: str = option(".slos/capacity", help="folder: points so far, report.md, .json and .html")
    seed: Natural = option(1, help="of arrivals, lengths and noise")
    jobs: Natural = option(0, help="processes; 0: one for each core")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """The smallest fleet for a mix of classes."""

    classes: str = option("", help="YAML or TOML file with the classes: lengths, targets, shares")
    rate: NotNegative = option(0.0, help="requests/s of all classes together")
    hardware: str = option(OF_CLASSES, help="a table of shared/hardware")
    attainment: Share = option(
        0.9, help="share of the programs of each class that must keep all targets"
    )
    most: Count = option(64, help="engines at most")
    seconds: Positive = option(120.0, help="how long requests arrive in each simulation")
    seed: Natural = option(1, help="of arrivals, lengths and noise")
    jobs: Natural = option(0, help="processes; 0: one for each core")
    json: bool = option(False, help="print one JSON object instead of tables")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """All of the evaluation."""

    quick: bool = option(False, help="shorter loads, coarser rates: minutes in place of an hour")
    older: bool = option(False, help="take points that other versions of the code measured, too")
    out: str = option(".slos/evaluation", help="folder: points so far, report.md, .json and .html")
    document: str = option(
        "", help="Markdown file; its parts between markers are rewritten, figures go beside it"
    )
    code_trace: str = option(
        "", help="bursts: a trace of a coding service, in place of arrivals like those of Azure's"
    )
    data: str = option(
        "",
        help="outsiders: folder with workloads/inference-perf_*.json, traces/agent_sessions.csv.gz",
    )
    parts: tuple[str, ...] = option(
        (),
        help="capacity, paper, rules, curves, ablations, bursts, scaling, overload, regret, "
        "outsiders; default: all of these; leave-one-out, which takes hours, only by its name",
    )
    numbers: tuple[str, ...] = option(
        (), help="leave-one-out: tuned numbers that are halved and doubled; default: all"
    )
    seed: Natural = option(1, help="of arrivals, lengths and noise")
    jobs: Natural = option(0, help="processes; 0: one for each core")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegretOptions:
    """A search for loads on which other systems keep more."""

    loads: Count = option(400, help="loads drawn at random before the search near the worst")
    hours: NotNegative = option(0.0, help="how long to search for worse loads near the worst")
    out: str = option(".slos/regret", help="folder: loads so far, regret.md and .json")
    seed: Natural = option(1, help="of the loads")
    jobs: Natural = option(0, help="processes; 0: one for each core")


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowOptions:
    """A fleet that follows the planner's desired engines."""

    scenario: str = option(
        "Mixed", help="ChatBot, Coder, Summarizer, Mixed, ToolLLM or Reasoning, or classes:FILE"
    )
    rates: tuple[float, ...] = option(
        (4.0, 8.0, 4.0, 2.0), help="programs/s offered to the fleet, phase by phase"
    )
    phase_s: Positive = option(600.0, help="seconds of each phase")
    fleet: str = option("prefill=1,decode=1", help="engines at the beginning")
    most: Count = option(8, help="engines of each role at most")
    start_s: NotNegative = option(60.0, help="seconds from starting an engine to its attachment")
    hold_s: Positive = option(300.0, help="as scale_down_after_s of the planner")
    window_s: Positive = option(120.0, help="as scale_window_s of the planner")
    hardware: str = option(
        "", help=f"a table of shared/hardware; default: the scenario's own, of classes {OF_CLASSES}"
    )
    speculation: bool = option(False, help="engines have their draft models")
    seed: Natural = option(1, help="of arrivals, lengths and noise")
    json: bool = option(False, help="print one JSON object instead of a table")


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterfactualOptions:
    """The planner's replay beside the simulator."""

    scenario: str = option(
        "Mixed", help="ChatBot, Coder, Summarizer, Mixed, ToolLLM or Reasoning, or classes:FILE"
    )
    rate: Positive = option(8.0, help="programs/s offered to the fleet")
    seconds: Positive = option(120.0, help="how long requests arrive; the later half is judged")
    fleets: tuple[str, ...] = option(
        ("1", "2", "3", "4", "1+1", "1+2", "2+2"),
        help="fleets that are compared: 4, or 1+3 for one prefill engine and three that decode",
    )
    seen_by: str = option("2", help="the fleet whose planner tells the replay what was asked")
    hardware: str = option(
        "", help=f"a table of shared/hardware; default: the scenario's own, of classes {OF_CLASSES}"
    )
    speculation: bool = option(False, help="engines have their draft models")
    seed: Natural = option(1, help="of arrivals, lengths and noise")
    json: bool = option(False, help="print one JSON object instead of a table")


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPrefixesOptions:
    """Systems beside each other on loads of prompts that share prefixes."""

    engines: tuple[Count, ...] = option((4, 16), help="engines of the fleets")
    loads: tuple[str, ...] = option((), help="by name; default: all")
    hardware: str = option(OF_CLASSES, help="a table of shared/hardware")
    seed: Natural = option(1, help="of arrivals, lengths and noise")
    json: bool = option(False, help="print a JSON array instead of Markdown")
