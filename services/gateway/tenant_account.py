"""A tenant's rights and limits, and what it has used of them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from shared.errors import NotAllowed, OverLimit
from shared.requests import DEFAULT_TENANT

_MINUTE_S: Final = 60.0
_RETRY_IN_FLIGHT_S: Final = 1.0  # it is unknown when one of them ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant's rights and limits; None means no limit.

    `cache_salt` keeps its prefixes in the KV caches apart from those of other tenants; empty if
    there are none.
    """

    name: str = DEFAULT_TENANT
    classes: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_in_flight: int | None = None
    weight: float = 1.0
    cache_salt: str = ""

    def check_class(self, name: str) -> None:
        """Raises NotAllowed."""
        self._check("slo.class", "class", name, self.classes)

    def check_model(self, name: str) -> None:
        """Raises NotAllowed."""
        self._check("model", "model", name, self.models)

    def _check(self, param: str, what: str, name: str, allowed: tuple[str, ...] | None) -> None:
        if allowed is not None and name not in allowed:
            raise NotAllowed(
                f"The {what} {name[:64]!r} is not open to tenant {self.name}; it may ask for "
                f"{', '.join(allowed)}.",
                param=param,
            )

    def salted(self, salt: str | None) -> str | None:
        """The cache salt of a request that came with `salt`.

        Tenant names have no slash, so no request of another tenant ever has the same one.
        """
        return f"{self.cache_salt}/{salt or ''}" if self.cache_salt else salt


@dataclass(slots=True)
class _Allowance:
    """A token bucket of one minute's size.

    `left` falls below 0 by use that is known only afterwards; nothing passes until it is refilled.
    """

    per_minute: int
    left: float
    at_s: float

    def refill(self, now: float) -> None:
        gained = (now - self.at_s) * self.per_minute / _MINUTE_S
        self.left, self.at_s = min(float(self.per_minute), self.left + gained), now

    def ready_in_s(self, least: float) -> float:
        """Seconds until `least` is left."""
        return max(0.0, least - self.left) * _MINUTE_S / self.per_minute


@dataclass(slots=True)
class Account:
    """One tenant's use of its limits at one gateway."""

    tenant: Tenant = field(default_factory=Tenant)
    in_flight: int = 0
    _requests: _Allowance | None = None
    _tokens: _Allowance | None = None

    def change(self, tenant: Tenant) -> None:
        """Sets other limits. What was used of a limit that stays remains used."""
        self.tenant = tenant
        self._requests = _changed(self._requests, tenant.requests_per_minute)
        self._tokens = _changed(self._tokens, tenant.tokens_per_minute)

    @contextmanager
    def request(self, now: float) -> Iterator[None]:
        """Counts a request for as long as it is served. Raises OverLimit at a limit."""
        limit = self.tenant.requests_in_flight
        if limit is not None and self.in_flight >= limit:
            raise self._over("requests_in_flight", limit, _RETRY_IN_FLIGHT_S)
        self.check_tokens(now)
        if self._requests is not None:
            self._requests.refill(now)
            wait_s = self._requests.ready_in_s(1.0)
            if wait_s > 0:
                raise self._over("requests_per_minute", self._requests.per_minute, wait_s)
            self._requests.left -= 1
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def check_tokens(self, now: float) -> None:
        """Raises OverLimit while none are left."""
        if self._tokens is not None:
            self._tokens.refill(now)
            if self._tokens.left <= 0:
                wait_s = self._tokens.ready_in_s(1.0)
                raise self._over("tokens_per_minute", self._tokens.per_minute, wait_s)

    def take_tokens(self, tokens: int, now: float) -> None:
        """Charges tokens, whatever is left; a negative number refunds them."""
        if self._tokens is not None:
            self._tokens.refill(now)
            self._tokens.left -= tokens

    def _over(self, limit: str, number: int, wait_s: float) -> OverLimit:
        return OverLimit(
            f"Tenant {self.tenant.name} is at its limit of {number} {limit}; "
            f"try again in {max(1, math.ceil(wait_s))} s.",
            limit=limit,
            retry_after_s=wait_s,
        )


def _changed(before: _Allowance | None, per_minute: int | None) -> _Allowance | None:
    if per_minute is None:
        return None
    if before is None:
        return _Allowance(per_minute, float(per_minute), -math.inf)
    return _Allowance(per_minute, before.left + per_minute - before.per_minute, before.at_s)
