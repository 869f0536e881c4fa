"""Parses the engines of a fleet, as `4` or `prefill=1,decode=3`, and builds them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shared.batch_time import StepTable
from shared.engines import Role
from shared.errors import ConfigError
from shared.hardware import Hardware
from shared.simulation.engine import SimEngine

_CURE = "write a number of engines, as 4, or how many of each role, as prefill=1,decode=3"
_MOST_ENGINES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Number of prefill engines, and of decode engines (which may also prefill)."""

    decode: int
    prefill: int = 0

    @property
    def engines(self) -> int:
        return self.prefill + self.decode

    @property
    def roles(self) -> tuple[Role, ...]:
        return (Role.PREFILL,) * self.prefill + (Role.DECODE,) * self.decode

    def __str__(self) -> str:
        if not self.prefill:
            return str(self.decode)
        return f"prefill={self.prefill},decode={self.decode}"


def fleet_of(roles: Sequence[Role]) -> Fleet:
    """The fleet with these roles."""
    return Fleet(
        prefill=sum(role is Role.PREFILL for role in roles),
        decode=sum(role is Role.DECODE for role in roles),
    )


def parse_fleet(spec: str) -> Fleet:
    """Parses a fleet. Raises ConfigError, with the cure, where `spec` is none."""
    if "=" not in spec:
        return _checked(Fleet(decode=_count(spec, spec)), spec)
    counts: dict[str, int] = {}
    for part in spec.split(","):
        role, _, number = part.strip().partition("=")
        if role not in ("prefill", "decode") or role in counts:
            raise ConfigError(f"--fleet {spec}: {role!r} is unknown or given twice; {_CURE}")
        counts[role] = _count(number, spec)
    fleet = Fleet(prefill=counts.get("prefill", 0), decode=counts.get("decode", 0))
    return _checked(fleet, spec)


def make_engines(
    roles: Sequence[Role], hardware: Hardware, table: StepTable, *, seed: int
) -> list[SimEngine]:
    """One simulated engine for each role; prefill engines come first."""
    ordered = sorted(roles, key=lambda role: role is not Role.PREFILL)
    names = _names(ordered)
    return [
        SimEngine(name, role, hardware, StepTable(table.numbers.copy()), seed=seed)
        for name, role in zip(names, ordered, strict=True)
    ]


def _names(roles: Sequence[Role]) -> Iterator[str]:
    """Names in fixed width, so that their order as text is their order."""
    for number, role in enumerate(roles):
        yield f"{role.value[0]}{number:03d}"


def _count(number: str, spec: str) -> int:
    try:
        return int(number)
    except ValueError:
        raise ConfigError(f"--fleet {spec}: {number!r} is no number; {_CURE}") from None


def _checked(fleet: Fleet, spec: str) -> Fleet:
    if fleet.decode < 1 or fleet.prefill < 0:
        raise ConfigError(f"--fleet {spec}: at least one engine must decode; {_CURE}")
    if fleet.engines > _MOST_ENGINES:
        raise ConfigError(f"--fleet {spec}: more than {_MOST_ENGINES} engines; ask for fewer")
    return fleet
