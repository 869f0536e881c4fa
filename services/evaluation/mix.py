"""Reads a user's classes from a file: lengths, targets, shares."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from shared.errors import ConfigError
from shared.option_values import Given, convert, parse_yaml
from shared.requests import Pacing
from shared.workloads.applications import Answer, Application, Kind, SharedPrefix, ToolLoop
from shared.workloads.arrivals import AZURE_CODE, POISSON
from shared.workloads.lengths import Lengths, log_normal

Count = Annotated[int, Field(ge=1, le=10_000_000)]
Positive = Annotated[float, Field(gt=0, le=1e9)]
Spread = Annotated[float, Field(gt=0, le=4)]
Chance = Annotated[float, Field(gt=0, lt=1)]
_SPREAD: Final = 0.8  # default deviation of the logarithm of a length
_LONGEST: Final = 8  # times the median: the longest length
_EVERYBODY: Final = "all"  # the name of all classes together in tables
_MOST_STAGES: Final = 2  # that the simulator supports
_TOOL_SPREAD: Final = 0.8  # deviation of the logarithm of a tool's time
_LONGEST_TOOL: Final = 20  # times the median


@dataclass(frozen=True, slots=True, kw_only=True)
class UserStage:
    """A stage of the answer: median length and TPOT target."""

    name: str
    output_tokens: Count
    tpot_ms: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPrefix:
    """A shared prefix of prompts with so many variants, added to `prompt_tokens`."""

    tokens: Count
    variants: Count = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class UserTools:
    """Every program makes so many calls; a tool takes `tool_ms` and returns `response_tokens`
    (medians). Each call has the class's targets.
    """

    calls: Annotated[int, Field(ge=2, le=64)]
    response_tokens: Count
    tool_ms: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class UserClass:
    """One class: median lengths (log-normal, at most eight times the median) and targets. A target
    that is left out is not asked for: a class without targets has no SLO.

    `share` is relative to the other classes' shares. `bursty` requests arrive as in the Azure
    coding trace, others as a Poisson process. `pacing`: how `tpot_ms` is meant, as in a class of
    the gateway. `ttft_ms` takes precedence over `ttft_slowdown`. `stages` replace `output_tokens`
    and `tpot_ms`. `acceptance`: the mean acceptance rate of drafts.
    """

    prompt_tokens: Count
    output_tokens: Count | None = None
    tpot_ms: Positive | None = None
    ttft_ms: Positive | None = None
    ttft_slowdown: Positive | None = None
    stages: tuple[UserStage, ...] = ()
    share: Positive = 1.0
    value: Positive = 1.0
    spread: Spread = _SPREAD
    pacing: Pacing = Pacing.MEAN
    bursty: bool = False
    acceptance: Chance = 0.7
    prefix: UserPrefix | None = None
    tools: UserTools | None = None


_FIELDS: Final = ", ".join(one.name for one in fields(UserClass))


def read_mix(path: Path) -> Application:
    """Reads YAML, or TOML where the name ends so. Raises ConfigError, with the cure."""
    plain = _read(path)
    classes = plain.get("classes") if isinstance(plain, Mapping) else None
    if not isinstance(classes, Mapping) or not classes:
        raise ConfigError(f"{path} has no mapping `classes` of names to {_FIELDS}: add one")
    if others := [str(name) for name in plain if name != "classes"]:
        raise ConfigError(f"{path}: read {', '.join(others)} beside `classes`: take it out")
    kinds = [_kind(path, str(name), one) for name, one in classes.items()]
    return Application(name=path.stem, kinds=tuple(kinds))


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text) if path.suffix == ".toml" else parse_yaml(text, str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--classes {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def _class(path: Path, name: str, plain: Any) -> UserClass:
    where = f"classes.{name} in {path}"
    if not isinstance(plain, Mapping):
        raise ConfigError(f"{where}: read {plain!r}, allowed is a mapping with {_FIELDS}")
    result: UserClass = convert(UserClass, Given(value=dict(plain), where=where, is_text=False))
    return result


def _kind(path: Path, name: str, plain: Any) -> Kind:
    if name == _EVERYBODY:
        raise ConfigError(
            f"{path}: no class may be called {name}, the name of all together: rename it"
        )
    one = _class(path, name, plain)
    _check(one, f"classes.{name} in {path}")
    return kind_of(name, one)


def _check(one: UserClass, where: str) -> None:
    """Raises ConfigError for fields that contradict each other."""
    if bool(one.stages) == (one.output_tokens is not None):
        raise ConfigError(f"{where}: give output_tokens or stages, one of them")
    if one.stages and one.tpot_ms is not None:
        raise ConfigError(f"{where}: give tpot_ms or stages, each of which has its own")
    if len(one.stages) > _MOST_STAGES:
        raise ConfigError(f"{where}: give at most {_MOST_STAGES} stages")
    if one.stages and one.tools:
        raise ConfigError(f"{where}: give stages or tools, one of them")


def kind_of(name: str, one: UserClass) -> Kind:
    """The class in the form from which loads are generated."""
    answers = tuple(
        Answer(
            stage=stage.name,
            tokens=_lengths(stage.output_tokens, one.spread),
            tpot_s=stage.tpot_ms / 1e3,
        )
        for stage in one.stages
    )
    if not answers:
        pace_s = math.inf if one.tpot_ms is None else one.tpot_ms / 1e3
        tokens = _lengths(one.output_tokens or 1, one.spread)
        answers = (Answer(stage="answer", tokens=tokens, tpot_s=pace_s),)
    prefix, tools = one.prefix, one.tools
    return Kind(
        class_name=name,
        share=one.share,
        value=one.value,
        ttft_s=None if one.ttft_ms is None else one.ttft_ms / 1e3,
        ttft_slowdown=None if one.ttft_ms is not None else one.ttft_slowdown,
        prompt=_lengths(one.prompt_tokens, one.spread),
        answers=answers,
        arrivals=AZURE_CODE if one.bursty else POISSON,
        pacing=one.pacing,
        acceptance=one.acceptance,
        shared_prefix=SharedPrefix(tokens=prefix.tokens, variants=prefix.variants)
        if prefix
        else None,
        loop=_loop(name, tools, one.spread, answers[0]) if tools else None,
    )


def _loop(name: str, tools: UserTools, spread: float, answer: Answer) -> ToolLoop:
    """The tool loop of a class: all programs have the same number of calls, each of this class."""
    return ToolLoop(
        class_name=name,
        tpot_s=answer.tpot_s,
        calls=(*(0,) * (tools.calls - 1), 1),
        response=_lengths(tools.response_tokens, spread),
        median_tool_s=tools.tool_ms / 1e3,
        sigma_tool=_TOOL_SPREAD,
        longest_tool_s=_LONGEST_TOOL * tools.tool_ms / 1e3,
    )


def _lengths(median: int, spread: float) -> Lengths:
    return log_normal(median=median, sigma=spread, least=1, most=_LONGEST * median)
