"""The actors of a fleet that serve, as they report; silent ones are forgotten."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from services.node.on_ray.place import Service

_SILENT_AFTER_S: Final = 20.0  # four health checks


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An actor, with the address of its process and Ray's id of its node."""

    name: str
    service: Service
    address: str
    node: str
    actor_process: int
    process: int


@dataclass(slots=True)
class Members:
    """The members that reported within the last 20 s."""

    _heard: dict[str, tuple[Member, float]] = field(default_factory=dict)

    def hear(self, member: Member, now: float) -> None:
        self._heard[member.name] = (member, now)

    def forget(self, name: str) -> None:
        self._heard.pop(name, None)

    def known(self, now: float) -> Sequence[Member]:
        silent = [name for name, (_, at) in self._heard.items() if now - at > _SILENT_AFTER_S]
        for name in silent:
            del self._heard[name]
        return sorted((one for one, _ in self._heard.values()), key=lambda one: one.name)
