"""Reads a client's SLO from its body and headers, or raises an error that names the field.

The most specific source wins: the body's `slo` object, then headers, then the class that either
names, then the default class. TTFT (`ttft_ms`, `ttft_slowdown`) and TPOT (`tpot_ms`, `stages`) are
resolved separately, each as a whole: a body that gives a slowdown also overrides a class's TTFT in
milliseconds. A field that is JSON null counts as absent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, TypeVar

from shared.errors import InvalidRequest
from shared.requests import OnRefuse, Pacing, PlacementMode, SloTargets, Stage
from shared.spelling import nearest

SHORTEST_TARGET_MS: Final = 0.001
LONGEST_TARGET_MS: Final = 3_600_000
MOST_SLOWDOWN: Final = 1000
MOST_STAGES: Final = 16
LEAST_VALUE: Final = 0.001
MOST_VALUE: Final = 1000
LONGEST_SESSION: Final = 256
LONGEST_NAME: Final = 64
# Fields of which one source may give one only: both set the same target.
EITHER_OR: Final = (("ttft_ms", "ttft_slowdown"), ("tpot_ms", "stages"))

Read = dict[str, Any]  # by field name, converted; holds only what was given
E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """The operator's SLO classes, and the targets of a request that names none."""

    classes: Mapping[str, SloTargets]
    default: SloTargets


@dataclass(frozen=True, slots=True, kw_only=True)
class SloInputs:
    """What a client asked for.

    `forced_way` is the placement mode that it requires, None if the planner may choose;
    `session_id` is None for a request without a session.
    """

    targets: SloTargets
    forced_way: PlacementMode | None = None
    wants_report: bool = False
    session_id: str | None = None


def read_inputs(body: object, headers: Mapping[str, str], catalogue: Catalogue) -> SloInputs:
    """`body` is the JSON value under `slo`, None without one; `headers` have lower-case names.

    Raises InvalidRequest with the field as its `param`.
    """
    from_body, from_headers = _read_body(body), _read_headers(headers)
    said = from_headers | from_body
    param = "slo.class" if "class" in from_body else "x-slo-class"
    targets = _of_class(said.get("class"), param, catalogue)
    for source in (from_headers, from_body):
        targets = _override(targets, source)
    return SloInputs(
        targets=targets,
        forced_way=said.get("way"),
        wants_report=said.get("report", False),
        session_id=said.get("session"),
    )


def _of_class(name: str | None, param: str, catalogue: Catalogue) -> SloTargets:
    if name is None:
        return catalogue.default
    known = {catalogue.default.class_name: catalogue.default, **catalogue.classes}
    if name not in known:
        names = ", ".join(sorted(known))
        raise InvalidRequest(
            f"{param}: read {_shown(name)}, allowed is one of {names}", param=param
        )
    return known[name]


def _override(targets: SloTargets, source: Read) -> SloTargets:
    if "ttft_ms" in source or "ttft_slowdown" in source:
        targets = replace(
            targets, ttft_s=source.get("ttft_ms"), ttft_slowdown=source.get("ttft_slowdown")
        )
    if "tpot_ms" in source or "stages" in source:
        targets = replace(targets, tpot_s=source.get("tpot_ms"), stages=source.get("stages", ()))
    return replace(
        targets,
        on_refuse=source.get("on_refuse", targets.on_refuse),
        value=source.get("value", targets.value),
        pacing=source.get("pacing", targets.pacing),
    )


def _read_body(body: object) -> Read:
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise _invalid("slo", body, "an object with any of " + ", ".join(_FIELDS))
    for key in body:
        if key not in _FIELDS:
            raise InvalidRequest(
                f"slo: unknown field {_shown(key)}{nearest(str(key)[:LONGEST_NAME], _FIELDS)}",
                param=f"slo.{str(key)[:LONGEST_NAME]}",
            )
    given = {key: value for key, value in body.items() if value is not None}
    for one, other in EITHER_OR:
        if one in given and other in given:
            raise InvalidRequest(
                f"slo.{one} and slo.{other} set the same target: give one of them",
                param=f"slo.{other}",
            )
    return {key: _FIELDS[key](value, f"slo.{key}") for key, value in given.items()}


def _read_headers(headers: Mapping[str, str]) -> Read:
    for name in headers:
        if name.startswith(_OUR_HEADERS) and name not in _KNOWN_HEADERS:
            short = name[:LONGEST_NAME]
            raise InvalidRequest(
                f"unknown header {short}{nearest(short, _KNOWN_HEADERS)}", param=short
            )
    read: Read = {}
    for header, field in _HEADERS:
        if header in headers:
            read[field] = _FIELDS[field](_header_value(field, headers[header].strip()), header)
    return read


def _header_value(field: str, text: str) -> object:
    """A header's text as a number or a boolean where its field is one; else the text."""
    if field == "report":
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if field in {"ttft_ms", "tpot_ms"}:
        return _float_or_text(text)
    return text


def _float_or_text(text: str) -> float | str:
    try:
        return text if "_" in text else float(text)  # Python alone reads 1_0 as ten
    except ValueError:
        return text


def _number(value: object, param: str, least: float, most: float, allowed: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _invalid(param, value, allowed)
    if not least <= value <= most:  # also false for NaN
        raise _invalid(param, value, allowed)
    return float(value)


def _seconds(value: object, param: str) -> float:
    allowed = f"a number from {SHORTEST_TARGET_MS} to {LONGEST_TARGET_MS} (milliseconds)"
    return _number(value, param, SHORTEST_TARGET_MS, LONGEST_TARGET_MS, allowed) / 1000


def _slowdown(value: object, param: str) -> float:
    allowed = (
        f"a number from 1 to {MOST_SLOWDOWN} (multiples of the time that an idle engine takes)"
    )
    return _number(value, param, 1, MOST_SLOWDOWN, allowed)


def _value(value: object, param: str) -> float:
    allowed = f"a number from {LEAST_VALUE} to {MOST_VALUE} (1 is the usual worth of a request)"
    return _number(value, param, LEAST_VALUE, MOST_VALUE, allowed)


def _stages(value: object, param: str) -> tuple[Stage, ...]:
    allowed = f'a list of 1 to {MOST_STAGES} objects {{"name", "tpot_ms"}} with distinct names'
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_STAGES:
        raise _invalid(param, value, allowed)
    stages = tuple(_stage(one, f"{param}[{index}]") for index, one in enumerate(value))
    if len({stage.name for stage in stages}) < len(stages):
        names = ", ".join(stage.name for stage in stages)
        raise InvalidRequest(f"{param}: read the names {names}, allowed is {allowed}", param=param)
    return stages


def _stage(value: object, param: str) -> Stage:
    if not isinstance(value, dict) or value.keys() != {"name", "tpot_ms"}:
        raise _invalid(param, value, 'an object with exactly "name" and "tpot_ms"')
    return Stage(
        name=_name(value["name"], f"{param}.name"),
        tpot_s=_seconds(value["tpot_ms"], f"{param}.tpot_ms"),
    )


def _name(value: object, param: str) -> str:
    return _text(value, param, LONGEST_NAME)


def _session(value: object, param: str) -> str:
    return _text(value, param, LONGEST_SESSION)


def _text(value: object, param: str, longest: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        raise _invalid(param, value, f"text of 1 to {longest} characters")
    return value


def _report(value: object, param: str) -> bool:
    if not isinstance(value, bool):
        raise _invalid(param, value, "true or false")
    return value


def _one_of(words: type[E]) -> Callable[[object, str], E]:
    def read(value: object, param: str) -> E:
        known: dict[object, E] = {word.value: word for word in words}
        if not isinstance(value, str) or value not in known:
            raise _invalid(param, value, "one of " + ", ".join(word.value for word in words))
        return known[value]

    return read


def _invalid(param: str, value: object, allowed: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: read {_shown(value)}, allowed is {allowed}", param=param)


def _shown(value: object) -> str:
    """The value for a message: short, and quick to write, whatever its size or depth."""
    if isinstance(value, list):
        return f"a list of {len(value)} items"
    if isinstance(value, dict):
        return f"an object with {len(value)} fields"
    if isinstance(value, str):
        return repr(value[:LONGEST_NAME]) + ("..." if len(value) > LONGEST_NAME else "")
    if isinstance(value, int) and abs(value) > 1 << 64:
        return "a number beyond 64 bits"
    return "null" if value is None else repr(value).lower()


_FIELDS: Final[Mapping[str, Callable[[object, str], Any]]] = {
    "ttft_ms": _seconds,
    "ttft_slowdown": _slowdown,
    "tpot_ms": _seconds,
    "stages": _stages,
    "pacing": _one_of(Pacing),
    "class": _name,
    "on_refuse": _one_of(OnRefuse),
    "way": _one_of(PlacementMode),
    "report": _report,
    "value": _value,
    "session": _session,
}

# Later ones win: llm-d's names are the canonical ones.
_HEADERS: Final = (
    ("x-slo-ttft-ms", "ttft_ms"),
    ("x-slo-tpot-ms", "tpot_ms"),
    ("x-llm-d-slo-ttft-ms", "ttft_ms"),
    ("x-llm-d-slo-tpot-ms", "tpot_ms"),
    ("x-slo-pacing", "pacing"),
    ("x-slo-class", "class"),
    ("x-slo-on-refuse", "on_refuse"),
    ("x-slo-way", "way"),
    ("x-slo-report", "report"),
    ("x-session-id", "session"),
)
_OUR_HEADERS: Final = "x-slo-"
_KNOWN_HEADERS: Final = (*(header for header, _ in _HEADERS), "x-slo-decision-id")
