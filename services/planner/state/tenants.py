"""Shares the fleet between tenants by weighted virtual token counters, as VTC (Sheng et al.,
"Fairness in Serving Large Language Models", OSDI 2024).

A tenant's counter grows by the tokens of its requests over its weight. Where not all requests can
be served, the tenant with the lowest counter comes first. A tenant that returns after it had no
waiting request is lifted to the lowest counter of the waiting tenants, as of a few seconds ago. So
it saves up no more than those seconds of service, and its bursts still come first while it stays
below its share.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Final

from services.planner.state.demand import Demand
from shared.bounded import remember
from shared.requests import PlacementQuery

_KEPT_TENANTS: Final = 1024
_KEPT_CHARGES: Final = 65_536
_SAVED_S: Final = 10.0  # of service to others that a tenant that was away may catch up on
_MARK_EVERY_S: Final = 1.0
_AWAY_S: Final = 2.0  # without a waiting request; gateways ask again after half a second
_SHARES_S: Final = 600.0  # since its last request, in which a tenant counts as sharing the fleet
_HALF_S: Final = 60.0
_SOON_S: Final = 30.0  # since its last request, in which room is left for its next one


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedRequest:
    """A recent request of a tenant, which may come again."""

    demand: Demand
    class_name: str

    def asked_at(self, now: float) -> Demand:
        """The same demand arriving `now`, with nothing cached."""
        due_s = now + self.demand.due_s - self.demand.arrived_at_s
        return replace(self.demand, arrived_at_s=now, due_s=due_s, cached_tokens={}, key=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """The tenants of one round, in the order in which they are served.

    Attributes:
        tenants: Those with a waiting request.
        line: Those and the tenants that asked a short time ago, each with what it may ask for next.
        several: Whether more than one tenant asked in the last ten minutes.
    """

    tenants: tuple[str, ...]
    line: tuple[tuple[str, ExpectedRequest | None], ...]
    several: bool

    def comes_first(self, tenant: str) -> bool:
        """Whether the tenant is the first of several that wait."""
        return len(self.tenants) > 1 and tenant == self.tenants[0]

    def alternate(self, numbers: Sequence[int], tenant_of: Callable[[int], str]) -> list[int]:
        """The numbers, one of each tenant in turn (round robin); unchanged for one tenant."""
        if len(self.tenants) < 2:
            return list(numbers)
        lines: dict[str, list[int]] = {tenant: [] for tenant in self.tenants}
        for number in numbers:
            lines[tenant_of(number)].append(number)
        rows = zip_longest(*lines.values())
        return [number for row in rows for number in row if number is not None]


@dataclass(slots=True, kw_only=True)
class _Account:
    counter: float = 0.0
    asked_at_s: float = 0.0
    waited_at_s: float = -math.inf  # the last round with a request that an earlier round left over
    expected: ExpectedRequest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Charge:
    """What was charged for a running request; its answer's length is known only at its end."""

    tenant: str
    weight: float
    prompt_tokens: int
    charged_tokens: int


@dataclass(slots=True)
class TenantShares:
    """The counters of the latest tenants. Bounded."""

    _accounts: OrderedDict[str, _Account] = field(default_factory=OrderedDict)
    _charges: OrderedDict[str, _Charge] = field(default_factory=OrderedDict)  # by decision id
    _round_s: float = -1.0
    _last: float = 0.0  # the counter of the tenant that was served last
    _marks: deque[tuple[float, float]] = field(default_factory=deque)  # times, and the least then

    def turns(self, waiting: Iterable[tuple[str, float]], now: float) -> Turns:
        """The tenants of a round, from the tenant and the start of the wait of each request."""
        since_s: dict[str, float] = {}
        for tenant, asked_s in waiting:
            since_s[tenant] = min(asked_s, since_s.get(tenant, asked_s))
        self._lift(since_s, now)
        for tenant in since_s:
            self._accounts[tenant].asked_at_s = now
            self._accounts.move_to_end(tenant)
        self._forget(now)
        self._round_s = now
        soon = (name for name, one in self._accounts.items() if now - one.asked_at_s <= _SOON_S)
        line = sorted(soon, key=self.counter)
        return Turns(
            tenants=tuple(tenant for tenant in line if tenant in since_s),
            line=tuple((tenant, self._accounts[tenant].expected) for tenant in line),
            several=len(self._accounts) > 1,
        )

    def asks(self, query: PlacementQuery, demand: Demand, now: float) -> None:
        """Notes a demand with targets as one that the tenant may repeat."""
        account = self._accounts.get(query.tenant)
        if account is not None and demand.asks:
            expected = ExpectedRequest(demand=demand, class_name=query.targets.class_name)
            account.expected = max(expected, account.expected or expected, key=_weight_now(now))

    def placed(self, query: PlacementQuery, decision_id: str, answer_tokens: int) -> None:
        """Charges a request that runs for its prompt and an answer of `answer_tokens`."""
        tokens = query.prompt_tokens + answer_tokens
        charge = _Charge(
            tenant=query.tenant,
            weight=query.weight,
            prompt_tokens=query.prompt_tokens,
            charged_tokens=tokens,
        )
        remember(self._charges, decision_id, charge, _KEPT_CHARGES)
        self._last = self._add(charge, tokens)

    def ended(self, decision_id: str, output_tokens: int) -> None:
        """Corrects the charge to the real answer's tokens; ignores unknown decisions."""
        charge = self._charges.pop(decision_id, None)
        if charge is not None:
            self._add(charge, charge.prompt_tokens + output_tokens - charge.charged_tokens)

    def counter(self, tenant: str) -> float:
        """Tokens served over weight."""
        return self._accounts[tenant].counter if tenant in self._accounts else 0.0

    def _lift(self, since_s: dict[str, float], now: float) -> None:
        for tenant, asked_s in since_s.items():
            if asked_s <= self._round_s and tenant in self._accounts:
                self._accounts[tenant].waited_at_s = now
        stayed = [one for one in since_s if self._waited(one, now)]
        least = min(map(self.counter, stayed), default=self._last)
        while self._marks and now - self._marks[0][0] > _SAVED_S:
            self._marks.popleft()
        if not self._marks or now - self._marks[-1][0] >= _MARK_EVERY_S:
            self._marks.append((now, least))
        start = min(least, self._marks[0][1])
        for tenant in since_s:
            account = self._accounts.get(tenant) or _Account()
            if tenant not in stayed:
                account.counter = max(account.counter, start)
            remember(self._accounts, tenant, account, _KEPT_TENANTS)

    def _waited(self, tenant: str, now: float) -> bool:
        account = self._accounts.get(tenant)
        return account is not None and now - account.waited_at_s <= _AWAY_S

    def _add(self, charge: _Charge, tokens: int) -> float:
        account = self._accounts.get(charge.tenant) or _Account()
        account.counter += tokens / charge.weight
        return account.counter

    def _forget(self, now: float) -> None:
        while self._accounts and now - next(iter(self._accounts.values())).asked_at_s > _SHARES_S:
            self._accounts.popitem(last=False)


def _weight_now(now: float) -> Callable[[ExpectedRequest], float]:
    """Weighs a demand by its prompt tokens, halved with every minute of age."""

    def weigh(expected: ExpectedRequest) -> float:
        age_s = now - expected.demand.arrived_at_s
        return expected.demand.prompt_tokens * math.exp2(-age_s / _HALF_S)

    return weigh
