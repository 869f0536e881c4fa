"""Where a request carries its terms into the engine core. Pure."""

from collections.abc import Mapping
from typing import Any

from shared.scheduling.terms import Terms, terms_from_plain

TERMS_KEY = "slos"
"""In `sampling_params.extra_args`, beside what the client sent."""


def terms_in(extra_args: Mapping[str, Any] | None) -> Terms:
    """The terms that the host attached; a request without any asked for nothing."""
    raw = (extra_args or {}).get(TERMS_KEY)
    return terms_from_plain(raw) if raw else Terms()
