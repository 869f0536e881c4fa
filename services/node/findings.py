"""The findings of the doctor."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """The severity: nothing to do, slower or with less, or the demo cannot run."""

    OK = "ok"
    WARN = "warn"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the doctor's report."""

    what: str
    state: State
    found: str
    cure: str = ""


def finding(
    what: str, good: bool, found: str, cure: str, *, otherwise: State = State.MISSING
) -> Finding:
    state = State.OK if good else otherwise
    return Finding(what=what, state=state, found=found, cure="" if good else cure)


def amount(what: str, gib: float, *, needed: float, wanted: float, cure: str) -> Finding:
    otherwise = State.WARN if gib >= needed else State.MISSING
    return finding(what, gib >= wanted, f"{gib:.1f} GiB free", cure, otherwise=otherwise)
