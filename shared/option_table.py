"""The options of a dataclass: their names, and how `--help` and the documentation show them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, asdict, dataclass, field, fields
from enum import Enum
from typing import Any, get_type_hints

from shared.option_values import allowed, kind

SECTIONS = (
    "gateway",
    "planner",
    "prefill",
    "decode",
    "node",
    "scale",
    "down",
    "simulate",
    "capacity",
    "plan",
    "evaluate",
)
CONFIG_FLAG, CONFIG_VARIABLE = "--config", "SLOS_CONFIG"
CHECK_FLAG = "--check"


def option(
    default: Any,
    *,
    help: str,  # noqa: A002 - the word that argparse uses
    variable: str = "",
    secret: bool = False,
) -> Any:
    """A dataclass field that is an option. Each load gets its own copy of a list or a dict.

    `variable` is an environment variable that all sections share, in place of the section's own.
    A `secret` has no flag: every user of the machine can read command lines.
    """
    metadata = {"help": help, "variable": variable, "secret": secret}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option: its names, type, default and help."""

    name: str
    section: str
    annotation: Any
    help: str
    default: Any
    required: bool
    shared_variable: str
    is_secret: bool

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return self.shared_variable or f"{variable_prefix(self.section)}{self.name.upper()}"

    @property
    def is_flag_alone(self) -> bool:
        return kind(self.annotation) is bool

    @property
    def is_list(self) -> bool:
        return kind(self.annotation) in (tuple, list)

    @property
    def default_text(self) -> str:
        if self.required:
            return "none, must be given"
        if isinstance(self.default, Enum):
            return str(self.default.value)
        if self.default is None or self.default == "":
            return "none" if self.default is None else '""'
        plain = isinstance(self.default, (bool, dict, tuple, list))
        return json.dumps(self.default, default=_plain) if plain else str(self.default)


def _plain(value: Any) -> Any:
    """A dataclass inside a default as a mapping, for JSON."""
    return asdict(value)


def options_of(options: type[Any], section: str) -> Iterator[Option]:
    hints = get_type_hints(options, include_extras=True)
    for one in fields(options):
        factory = one.default_factory
        yield Option(
            name=one.name,
            section=section,
            annotation=hints[one.name],
            help=one.metadata.get("help", ""),
            default=factory() if factory is not MISSING else one.default,
            required=one.default is MISSING and factory is MISSING,
            shared_variable=one.metadata.get("variable", ""),
            is_secret=one.metadata.get("secret", False),
        )


def variable_prefix(section: str) -> str:
    return f"SLOS_{section.upper()}_"


def describe(options: type[Any], section: str) -> str:
    """A Markdown table of all options of a section, for the documentation."""
    rows = [
        "| flag, YAML key | environment variable | default | what it does |",
        "|---|---|---|---|",
    ]
    for one in options_of(options, section):
        cells = (
            f"`{section}.{one.name}`" if one.is_secret else f"`{one.flag}`, `{section}.{one.name}`",
            f"`{one.variable}`",
            f"`{one.default_text}`",
        )
        rows.append(" | ".join(("| " + cells[0], *cells[1:], one.help.replace("|", "\\|") + " |")))
    return "\n".join(rows)


def help_text(known: Iterable[Option], prog: str, *, can_check: bool) -> str:
    lines = [
        f"usage: {prog} [options]",
        "",
        "An option is a flag, an environment variable and a YAML key; the first one given counts.",
        "",
        f"  {CONFIG_FLAG} FILE",
        f"      YAML file with the sections {', '.join(SECTIONS)}",
        f"      environment: {CONFIG_VARIABLE}",
    ]
    if can_check:
        lines += [
            f"  {CHECK_FLAG}",
            "      only say whether the options are valid: exit status 0 or 2",
        ]
    for one in known:
        negation = f", --no-{one.flag[2:]}" if one.is_flag_alone else ""
        name = "(no flag)" if one.is_secret else f"{one.flag}{negation}"
        lines.append(f"  {name} ({allowed(one.annotation)})")
        lines.append(f"      {one.help}")
        lines.append(f"      environment: {one.variable}; default: {one.default_text}")
    return "\n".join(lines)
