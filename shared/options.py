"""Options of a process: each a flag, an environment variable and a YAML key, strict everywhere."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from shared.errors import ConfigError
from shared.option_table import (
    CHECK_FLAG,
    CONFIG_FLAG,
    CONFIG_VARIABLE,
    SECTIONS,
    Option,
    help_text,
    option,
    options_of,
    variable_prefix,
)
from shared.option_values import Given, convert, parse_yaml
from shared.spelling import nearest

__all__ = ["CHECK_FLAG", "SECTIONS", "load", "option"]

T = TypeVar("T")


def load(
    options: type[T],
    *,
    section: str,
    argv: Sequence[str],
    environ: Mapping[str, str],
    prog: str,
    check: Callable[[T], object] | None = None,
) -> T:
    """Reads `options` (a frozen dataclass): flag over environment variable over YAML over default.

    `check` raises ConfigError for values that do not fit each other or this machine. With it there
    is a flag `--check`, which ends the process where it would start to work.

    Raises ConfigError, one line, on anything unknown or unfit; SystemExit(0) once `-h` is answered,
    and where `--check` finds no fault.
    """
    known = {one.name: one for one in options_of(options, section)}
    if {"-h", "--help"} & set(argv):
        print(help_text(known.values(), prog, can_check=check is not None))
        raise SystemExit(0)
    only_check = check is not None and CHECK_FLAG in argv
    words = [word for word in argv if not (only_check and word == CHECK_FLAG)]
    read = _read(options, section, words, environ, known)
    if check is not None:
        check(read)
    if only_check:
        raise SystemExit(0)
    return read


def _read(
    options: type[T],
    section: str,
    argv: Sequence[str],
    environ: Mapping[str, str],
    known: Mapping[str, Option],
) -> T:
    flags, config = _read_flags(argv, known)
    config = config or environ.get(CONFIG_VARIABLE) or None
    given = _read_yaml(config, section, known) if config else {}
    given |= _read_environment(environ, section, known)
    given |= flags
    missing = next((one for one in known.values() if one.required and one.name not in given), None)
    if missing:
        raise ConfigError(f"{missing.flag} (or {missing.variable}) must be given: {missing.help}")
    try:
        return options(
            **{name: convert(known[name].annotation, value) for name, value in given.items()}
        )
    except ValueError as error:
        raise ConfigError(f"{section}: {error}") from error


def _read_flags(
    argv: Sequence[str], known: Mapping[str, Option]
) -> tuple[dict[str, Given], str | None]:
    """The values of flags by option name, and the file that `--config` names."""
    names = {one.flag: one for one in known.values()}
    negations = {f"--no-{one.flag[2:]}": one for one in known.values() if one.is_flag_alone}
    given: dict[str, Given] = {}
    config: str | None = None
    rest = iter(argv)
    for word in rest:
        flag, equals, text = word.partition("=")
        if flag == CONFIG_FLAG:
            config = text if equals else _next_word(rest, flag)
        elif flag in negations and not equals:
            _add(given, negations[flag], "false", flag)
        elif flag in names:
            if names[flag].is_secret:
                raise ConfigError(_secret_as_flag(names[flag]))
            alone = names[flag].is_flag_alone and not equals
            value = text if equals else "true" if alone else _next_word(rest, flag)
            _add(given, names[flag], value, flag)
        else:
            raise ConfigError(_unknown_word(word, flag, [*names, *negations, CONFIG_FLAG]))
    return given, config


def _unknown_word(word: str, flag: str, flags: Sequence[str]) -> str:
    if not word.startswith("-"):
        return f"unexpected {word!r}: every option starts with --"
    return f"unknown flag {flag}{nearest(flag, flags)}"


def _secret_as_flag(one: Option) -> str:
    return (
        f"{one.flag} would show a secret to every user of this machine: set {one.variable}, or "
        f"{one.section}.{one.name} in the YAML file, or name a file where there is an option for it"
    )


def _next_word(rest: Iterator[str], flag: str) -> str:
    word = next(rest, None)
    if word is None or word.startswith("--"):
        raise ConfigError(f"{flag} needs a value: {flag} VALUE or {flag}=VALUE")
    return word


def _add(given: dict[str, Given], one: Option, text: str, flag: str) -> None:
    """Adds a flag's value. Repeated flags extend a list; other options allow one flag."""
    before = given.get(one.name)
    if before and not one.is_list:
        raise ConfigError(f"{flag} is given twice: keep one")
    joined = f"{before.value},{text}" if before else text
    given[one.name] = Given(value=joined, where=flag, is_text=True)


def _read_environment(
    environ: Mapping[str, str], section: str, known: Mapping[str, Option]
) -> dict[str, Given]:
    by_variable = {one.variable: one.name for one in known.values()}
    ours = {
        name: text
        for name, text in environ.items()
        if name.startswith(variable_prefix(section)) or name in by_variable
    }
    for name in ours:
        if name not in by_variable:
            raise ConfigError(f"unknown environment variable {name}{nearest(name, by_variable)}")
    return {
        by_variable[name]: Given(value=text, where=name, is_text=True)
        for name, text in ours.items()
    }


def _read_yaml(path: str, section: str, known: Mapping[str, Option]) -> dict[str, Given]:
    """The values of this section of the file. Other sections are checked by their services."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error}") from error
    sections = _mapping(parse_yaml(text, path), path)
    for name in sections:
        if name not in {*SECTIONS, section}:
            raise ConfigError(f"unknown section {name} in {path}{nearest(str(name), SECTIONS)}")
    ours = _mapping(sections.get(section), f"{section} in {path}")
    for key in ours:
        if key not in known:
            raise ConfigError(f"unknown key {section}.{key} in {path}{nearest(str(key), known)}")
    return {
        key: Given(value=value, where=f"{section}.{key} in {path}", is_text=False)
        for key, value in ours.items()
    }


def _mapping(value: Any, where: str) -> Mapping[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: read {value!r}, allowed is a mapping of keys to values")
    return value
