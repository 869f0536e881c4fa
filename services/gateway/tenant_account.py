"""A tenant's rights and limits, and what it has used of them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from services.gateway.usage import (
    AT_S,
    LEFT,
    PER_MINUTE,
    REQUESTS,
    TOKENS,
    Row,
    UsageBook,
    in_flight,
)
from shared.errors import NotAllowed, OverLimit
from shared.requests import DEFAULT_TENANT

_MINUTE_S: Final = 60.0
_RETRY_IN_FLIGHT_S: Final = 1.0  # it is unknown when one of them ends
_BELOW_ONE: Final = math.nextafter(1.0, 0.0)
_LIMITS: Final = {REQUESTS: "requests_per_minute", TOKENS: "tokens_per_minute"}


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
class Account:
    """One tenant's use of its limits at one gateway.

    `requests` and `tokens` are token buckets of one minute's size. What is left of tokens falls
    below 0 by use that is known only afterwards; nothing passes until it is refilled.
    """

    tenant: Tenant = field(default_factory=Tenant)
    usage: UsageBook = field(default_factory=UsageBook.of_one_process)

    @property
    def in_flight(self) -> int:
        with self.usage.row(self.tenant.name) as row:
            return in_flight(row)

    def change(self, tenant: Tenant) -> None:
        """Sets other limits. What was used remains used, also where a limit goes and comes back."""
        self.tenant = tenant
        with self.usage.row(tenant.name) as row:
            if tenant.requests_per_minute is not None:
                _change(row, REQUESTS, tenant.requests_per_minute)
            if tenant.tokens_per_minute is not None:
                _change(row, TOKENS, tenant.tokens_per_minute)

    @contextmanager
    def request(self, now: float) -> Iterator[None]:
        """Counts a request for as long as it is served. Raises OverLimit at a limit."""
        name, limit = self.tenant.name, self.tenant.requests_in_flight
        with self.usage.row(name) as row:
            if limit is not None and in_flight(row) >= limit:
                raise self._over("requests_in_flight", limit, _RETRY_IN_FLIGHT_S)
            self._check(row, TOKENS, self.tenant.tokens_per_minute, now, above=0.0)
            per_minute = self.tenant.requests_per_minute
            if per_minute is not None:
                self._check(row, REQUESTS, per_minute, now, above=_BELOW_ONE)
                row[REQUESTS + LEFT] -= 1
            self.usage.count_in_flight(row, 1)
        try:
            yield
        finally:
            with self.usage.row(name) as row:
                self.usage.count_in_flight(row, -1)

    def check_tokens(self, now: float) -> None:
        """Raises OverLimit while none are left."""
        per_minute = self.tenant.tokens_per_minute
        if per_minute is not None:
            with self.usage.row(self.tenant.name) as row:
                self._check(row, TOKENS, per_minute, now, above=0.0)

    def take_tokens(self, tokens: int, now: float) -> None:
        """Charges tokens, whatever is left; a negative number refunds them."""
        if self.tenant.tokens_per_minute is not None:
            with self.usage.row(self.tenant.name) as row:
                _refill(row, TOKENS, now)
                row[TOKENS + LEFT] -= tokens

    def _check(self, row: Row, bucket: int, limit: int | None, now: float, *, above: float) -> None:
        """Raises OverLimit where no more than `above` is left."""
        if limit is None:
            return
        if not row[bucket + PER_MINUTE]:  # another worker has freed the row
            _change(row, bucket, limit)
        _refill(row, bucket, now)
        left, per_minute = row[bucket + LEFT], row[bucket + PER_MINUTE]
        if left <= above:
            wait_s = max(0.0, 1.0 - left) * _MINUTE_S / per_minute
            raise self._over(_LIMITS[bucket], round(per_minute), wait_s)

    def _over(self, limit: str, number: int, wait_s: float) -> OverLimit:
        return OverLimit(
            f"Tenant {self.tenant.name} is at its limit of {number} {limit}; "
            f"try again in {max(1, math.ceil(wait_s))} s.",
            limit=limit,
            retry_after_s=wait_s,
        )


def _refill(row: Row, bucket: int, now: float) -> None:
    per_minute = row[bucket + PER_MINUTE]
    gained = max(0.0, now - row[bucket + AT_S]) * per_minute / _MINUTE_S
    row[bucket + LEFT] = min(per_minute, row[bucket + LEFT] + gained)
    row[bucket + AT_S] = now


def _change(row: Row, bucket: int, per_minute: int) -> None:
    before = row[bucket + PER_MINUTE]
    if before:
        row[bucket + LEFT] += per_minute - before
    else:
        row[bucket + LEFT], row[bucket + AT_S] = float(per_minute), -math.inf
    row[bucket + PER_MINUTE] = float(per_minute)
