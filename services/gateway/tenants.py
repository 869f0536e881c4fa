"""Reads the keys, rights and limits of the gateway's tenants from the tenants file."""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from services.gateway.tenant_account import Account, Tenant
from services.gateway.usage import UsageBook
from shared.errors import ConfigError
from shared.option_values import Given, convert, parse_yaml
from shared.requests import DEFAULT_TENANT
from shared.spelling import nearest

MOST_TENANTS: Final = 1000  # each is a label of several metrics
MOST_ROWS: Final = 4 * (MOST_TENANTS + 1)  # of usage: those of a former file stay while they serve
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KeyHash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PerMinute = Annotated[int, Field(gt=0, le=10**12)]
Weight = Annotated[float, Field(ge=0.001, le=1000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantOptions:
    """A tenant in the file; None means no limit."""

    keys: tuple[KeyHash, ...] = ()
    classes: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    requests_in_flight: PerMinute | None = None
    weight: Weight = 1.0


def hash_of(key: bytes) -> str:
    """The SHA-256 hash of a key, in hexadecimal, that the file holds."""
    return hashlib.sha256(key).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The names that a tenants file may use."""

    classes: Collection[str]
    models: Collection[str]


def read_tenants(path: Path, known: Known) -> dict[str, TenantOptions]:
    """The tenants of a file by name. Raises ConfigError with the place and the cure."""
    where = f"tenants_file {path}"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: cannot be read: {error}") from error
    parsed = parse_yaml(text, where)
    given = Given(value=parsed, where=where, is_text=False)
    tenants: dict[str, TenantOptions] = convert(dict[str, TenantOptions], given)
    _check(tenants, known, where)
    return tenants


def _check(tenants: Mapping[str, TenantOptions], known: Known, where: str) -> None:
    if not tenants or len(tenants) > MOST_TENANTS:
        raise ConfigError(f"{where}: names {len(tenants)} tenants, allowed are 1 to {MOST_TENANTS}")
    owners: dict[str, str] = {}
    for name, tenant in tenants.items():
        here = f"{where}, {name}"
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{here}: a name is 1 to 64 letters, digits, dots, dashes and underscores"
            )
        if not tenant.keys and name != DEFAULT_TENANT:
            raise ConfigError(f"{here}: has no keys; `slos-serve key-hash` makes the hash of one")
        _check_names(tenant.classes, known.classes, f"{here}, classes")
        _check_names(tenant.models, known.models, f"{here}, models")
        for key in tenant.keys:
            if owners.setdefault(key, name) != name:
                raise ConfigError(f"{here}: has a key of {owners[key]}; a key is of one tenant")


def _check_names(names: Sequence[str] | None, known: Collection[str], where: str) -> None:
    if names is not None and not names:
        raise ConfigError(f"{where}: is empty; leave it out to allow all")
    for name in names or ():
        if name not in known:
            raise ConfigError(f"{where}: there is no {name}{nearest(name, known)}")


@dataclass(slots=True)
class Tenants:
    """The accounts of all tenants, by the hash of a key.

    Keys of the gateway's own options (`own_keys`) belong to the tenant `default`.
    """

    own_keys: Sequence[str] = ()
    usage: UsageBook = field(default_factory=lambda: UsageBook.of_one_process(MOST_ROWS))
    _accounts: dict[str, Account] = field(default_factory=dict)
    _by_hash: dict[str, Account] = field(default_factory=dict)
    _named: bool = False

    def __post_init__(self) -> None:
        self._fill({})

    @property
    def is_open(self) -> bool:
        """Whether requests need no key."""
        return not self._by_hash

    @property
    def default(self) -> Account:
        return self._accounts[DEFAULT_TENANT]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._accounts)

    def of_key(self, key: bytes) -> Account | None:
        """Looks a key up by its hash, so that the time taken reveals nothing of a key."""
        return self._by_hash.get(hash_of(key))

    def take(self, tenants: Mapping[str, TenantOptions]) -> None:
        """Replaces all tenants; running requests of removed ones continue."""
        self._named = True
        self._fill(tenants)
        self.usage.keep_only(self._accounts)

    def _fill(self, tenants: Mapping[str, TenantOptions]) -> None:
        options = {DEFAULT_TENANT: TenantOptions(), **tenants}
        own = tuple(hash_of(key.encode()) for key in self.own_keys)
        before, self._accounts, self._by_hash = self._accounts, {}, {}
        for name, one in options.items():
            account = before.get(name) or Account(usage=self.usage)
            account.change(self._tenant(name, one))
            self._accounts[name] = account
            for key in (*one.keys, *(own if name == DEFAULT_TENANT else ())):
                self._by_hash[key] = account

    def _tenant(self, name: str, options: TenantOptions) -> Tenant:
        return Tenant(
            name=name,
            classes=options.classes,
            models=options.models,
            requests_per_minute=options.requests_per_minute,
            tokens_per_minute=options.tokens_per_minute,
            requests_in_flight=options.requests_in_flight,
            weight=options.weight,
            cache_salt=name if self._named else "",
        )
