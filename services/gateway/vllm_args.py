"""Turns the gateway's options into the argparse namespace of vLLM's frontend."""

from argparse import Namespace
from typing import Any, Final, NoReturn

import orjson
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.launchers.launcher import validate_api_server_args
from vllm.utils.argparse_utils import FlexibleArgumentParser

from services.gateway.config import GatewayOptions
from shared.errors import ConfigError
from shared.spelling import nearest

# Options of vLLM that the gateway sets, with its own option for each.
_OURS: Final = {
    "model": "model",
    "model_tag": "model",
    "served_model_name": "served_model_name",
    "host": "host",
    "port": "port",
    "api_key": "api_key",
    "dtype": "dtype",
    "max_model_len": "max_model_len",
    "tool_call_parser": "tool_call_parser",
    "reasoning_parser": "reasoning_parser",
    "chat_template": "chat_template",
    "disable_uvicorn_access_log": "access_log",
}
_NOT_HERE: Final = frozenset(
    {
        "headless",
        "api_server_count",
        "config",
        "grpc",
        "grpc_port",
        "uds",
        "enable_request_id_headers",
    }
)


def frontend_namespace(options: GatewayOptions, model_path: str) -> Namespace:
    """The namespace that vLLM's own command line would give. Raises ConfigError, one line."""
    parser = make_arg_parser(FlexibleArgumentParser())
    parser.error = _refuse
    known = {action.dest: action for action in parser._actions}
    words = _our_words(options, model_path)
    for name, value in options.vllm.items():
        words += _words(_checked(name, known), value, known)
    try:
        namespace: Namespace = parser.parse_args(words)
        validate_parsed_serve_args(namespace)
        _place_reasoning_parser(namespace)
        validate_api_server_args(namespace)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"vllm: {' '.join(str(error).split())}") from error
    return namespace


def _our_words(options: GatewayOptions, model_path: str) -> list[str]:
    words = ["--model", model_path, "--dtype", options.dtype]
    words += ["--host", options.host, "--port", str(options.port)]
    words += ["--served-model-name", *options.api_model_names]
    if options.max_model_len is not None:
        words += ["--max-model-len", str(options.max_model_len)]
    if options.tool_call_parser is not None:
        words += ["--enable-auto-tool-choice", "--tool-call-parser", options.tool_call_parser]
    if options.reasoning_parser is not None:
        words += ["--reasoning-parser", options.reasoning_parser]
    if options.chat_template is not None:
        words += ["--chat-template", options.chat_template]
    return words


def _checked(name: str, known: dict[str, Any]) -> str:
    dest = name.replace("-", "_")
    if dest in _OURS:
        raise ConfigError(f"vllm.{name}: set the gateway's own option {_OURS[dest]} instead")
    if dest in _NOT_HERE:
        raise ConfigError(f"vllm.{name}: the gateway serves in its own way; leave it out")
    if dest not in known:
        raise ConfigError(f"vllm: unknown option {name}{nearest(dest, known)}")
    return dest


def _words(dest: str, value: object, known: dict[str, Any]) -> list[str]:
    """An option as words of a command line: vLLM's own parser then checks and converts it."""
    flag = "--" + dest.replace("_", "-")
    if value is None:
        return []
    if isinstance(value, bool):
        return [flag] if value else _negated(flag, known[dest])
    if isinstance(value, dict) or (isinstance(value, list) and known[dest].nargs is None):
        return [flag, orjson.dumps(value).decode()]
    if isinstance(value, list):
        return [flag, *map(str, value)]
    return [f"{flag}={value}"]


def _negated(flag: str, action: Any) -> list[str]:
    negation = "--no-" + flag.removeprefix("--")
    return [negation] if negation in action.option_strings else []


def _place_reasoning_parser(namespace: Namespace) -> None:
    """Sets the parser where vLLM's serving layer reads it, as starting an engine would."""
    if namespace.reasoning_parser:
        namespace.structured_outputs_config.reasoning_parser = namespace.reasoning_parser


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"vllm: {' '.join(message.split())}")
