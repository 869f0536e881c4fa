"""Converts what an operator wrote to a typed value, or raises an error of one line."""

import json
import math
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from shared.errors import ConfigError
from shared.spelling import nearest

_LAWS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "value_error")
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A value as written. `is_text`: it is from a flag or a variable and must be parsed."""

    value: Any
    where: str
    is_text: bool


@dataclass(frozen=True, slots=True)
class Form:
    """Metadata of an annotated type: its allowed values, in words."""

    words: str


def unfit() -> PydanticCustomError:
    """What the validator of a type with a Form raises; the Form says what is allowed."""
    return PydanticCustomError("unfit", "not of this form")


def convert(annotation: Any, given: Given) -> Any:
    """Converts the value to the type `annotation`. Raises ConfigError.

    Text is read leniently: `5` is a number, `a,b` a list, `none` or empty text is None if allowed.
    YAML is read strictly, and so are mappings written as YAML or JSON text.
    """
    value = _parse(annotation, given) if given.is_text else given.value
    refuse_unknown_keys(annotation, value, given.where)
    try:
        converted = _validate(annotation, value, lenient=given.is_text)
    except ValidationError as error:
        raise ConfigError(_explain(error, annotation, given.where)) from error
    except (TypeError, ValueError) as error:  # types that YAML has and JSON lacks
        raise ConfigError(
            f"{given.where}: read {value!r}, write dates as text and numbers finite"
        ) from error
    if isinstance(converted, float) and not math.isfinite(converted):
        raise ConfigError(f"{given.where}: read {value!r}, allowed is a finite number")
    return converted


def parse_yaml(text: str, where: str) -> Any:
    """Parses YAML or JSON, safely, and refuses duplicate keys. Raises ConfigError with the line."""
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        at = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{where}{at}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from error


def bare(annotation: Any) -> Any:
    """The type without `Annotated` and without None."""
    if get_origin(annotation) is Annotated:
        return bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        members = [one for one in get_args(annotation) if one is not types.NoneType]
        return bare(members[0]) if len(members) == 1 else annotation
    return annotation


def kind(annotation: Any) -> Any:
    """The class behind a type: `tuple` for `tuple[str, ...] | None`."""
    return get_origin(bare(annotation)) or bare(annotation)


def allowed(annotation: Any) -> str:
    """The values allowed for a type, in words."""
    what = _form(annotation) or _allowed_bare(bare(annotation))
    return f"{what}, or none" if _takes_none(annotation) else what


def _form(annotation: Any) -> str:
    notes = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return next((note.words for note in notes if isinstance(note, Form)), "")


def refuse_unknown_keys(annotation: Any, value: Any, where: str) -> None:
    """Raises ConfigError for a key that no dataclass inside `annotation` has, at any depth."""
    if isinstance(value, Mapping):
        target = bare(annotation)
        names = [one.name for one in fields(target)] if is_dataclass(target) else None
        for key, inner in value.items():
            if names is not None and key not in names:
                raise ConfigError(f"{where}: unknown key {key}{nearest(str(key), names)}")
            refuse_unknown_keys(_inside(annotation, key), inner, f"{where}, {key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            refuse_unknown_keys(_inside(annotation, index), inner, f"{where}, {index}")


class _StrictLoader(yaml.SafeLoader):
    """Refuses duplicate keys, and reads `1e-3` as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                mark = node.value[index][0].start_mark
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key} is given twice", problem_mark=mark
                )
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _parse(annotation: Any, given: Given) -> Any:
    if _takes_none(annotation) and given.value in ("", "none"):
        return None
    if kind(annotation) in (tuple, list):
        return [part.strip() for part in given.value.split(",") if part.strip()]
    if kind(annotation) is dict or is_dataclass(bare(annotation)):
        return parse_yaml(given.value, given.where)
    return given.value


def _validate(annotation: Any, value: Any, *, lenient: bool) -> Any:
    """Validates by JSON's strict rules (an enum is its value, a tuple a list) unless `lenient`."""
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    if lenient and isinstance(value, (str, list)):
        return adapter.validate_python(value)
    return adapter.validate_json(json.dumps(value, allow_nan=False), strict=True)


def _explain(error: ValidationError, annotation: Any, where: str) -> str:
    first = error.errors()[0]
    path, target = [where], annotation
    for key in first["loc"]:
        path.append(str(key))
        target = _inside(target, key)
    if first["type"] == "missing":
        return f"{', '.join(path)}: must be given, allowed is {allowed(target)}"
    law = f" ({first['msg'].removeprefix('Input ')})" if first["type"] in _LAWS else ""
    return f"{', '.join(path)}: read {first['input']!r}, allowed is {allowed(target)}{law}"


def _inside(annotation: Any, key: int | str) -> Any:
    """The type of the item under `key` in a value of this type."""
    target = bare(annotation)
    if is_dataclass(target):
        return get_type_hints(target, include_extras=True).get(str(key), Any)
    arguments = get_args(target)
    if kind(annotation) is dict and len(arguments) == 2:
        return arguments[1]
    return arguments[0] if kind(annotation) in (tuple, list) and arguments else Any


def _takes_none(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _takes_none(get_args(annotation)[0])
    return types.NoneType in get_args(annotation)


def _allowed_bare(target: Any) -> str:
    if target in _WORDS:
        return _WORDS[target]
    if isinstance(target, type) and issubclass(target, Enum):
        return "one of " + ", ".join(str(member.value) for member in target)
    if is_dataclass(target):
        return "a mapping with the keys " + ", ".join(one.name for one in fields(target))
    if get_origin(target) in (tuple, list):
        return f"a list, each {allowed(get_args(target)[0])}"
    if get_origin(target) is dict:
        return f"a mapping, each value {allowed(get_args(target)[1])}"
    return "anything" if target is Any else str(target)
