"""Classes of one's own, read from a file: lengths, targets, shares. Generates nothing."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from shared.errors import ConfigError
from shared.option_values import Given, convert, parse_yaml
from shared.requests import Pacing
from shared.workloads.applications import Answer, Application, Kind
from shared.workloads.arrivals import AZURE_CODE, POISSON
from shared.workloads.lengths import Lengths, log_normal

Count = Annotated[int, Field(ge=1, le=10_000_000)]
Positive = Annotated[float, Field(gt=0, le=1e9)]
Spread = Annotated[float, Field(gt=0, le=4)]
_SPREAD: Final = 0.8  # of the logarithm of a length, where nothing is said
_EVERYBODY: Final = "all"  # how tables call all classes together
_FIELDS = "share, prompt_tokens, output_tokens, spread, ttft_slowdown, tpot_ms, pacing, bursty"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserClass:
    """One class: median lengths (log-normal, at most eight times the median) and targets.

    `share` counts beside the other classes' shares; `bursty` requests come as in the Azure coding
    trace, others as they like. `pacing`: how `tpot_ms` is meant, as a class of the gateway says.
    """

    prompt_tokens: Count
    output_tokens: Count
    tpot_ms: Positive
    ttft_slowdown: Positive
    share: Positive = 1.0
    spread: Spread = _SPREAD
    pacing: Pacing = Pacing.MEAN
    bursty: bool = False


def read_mix(path: Path) -> Application:
    """YAML, or TOML where the name ends so. Raises ConfigError, with the cure."""
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
        raise ConfigError(f"{path}: no class may be called {name}, all together are: rename it")
    one = _class(path, name, plain)
    return Kind(
        class_name=name,
        share=one.share,
        ttft_slowdown=one.ttft_slowdown,
        prompt=_lengths(one.prompt_tokens, one.spread),
        answers=(
            Answer(
                stage="answer",
                tokens=_lengths(one.output_tokens, one.spread),
                tpot_s=one.tpot_ms / 1e3,
            ),
        ),
        arrivals=AZURE_CODE if one.bursty else POISSON,
        pacing=one.pacing,
    )


def _lengths(median: int, spread: float) -> Lengths:
    return log_normal(median=median, sigma=spread, least=1, most=8 * median)
