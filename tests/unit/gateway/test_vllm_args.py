from typing import Any

import pytest

from services.gateway.config import GatewayOptions
from services.gateway.vllm_args import frontend_namespace
from shared.errors import ConfigError


def namespace(**changes: Any) -> Any:
    return frontend_namespace(GatewayOptions(**changes), "folder")


def test_our_options_become_vllms() -> None:
    args = namespace(
        model="m",
        api_key=("a", "b"),
        max_model_len=512,
        tool_call_parser="hermes",
        reasoning_parser="deepseek_r1",
    )

    assert (args.model, args.served_model_name, args.max_model_len) == ("folder", ["m"], 512)
    assert args.api_key is None  # the gateway asks for keys itself
    assert args.enable_auto_tool_choice
    assert args.structured_outputs_config.reasoning_parser == "deepseek_r1"


def test_further_options_go_by_their_vllm_names() -> None:
    further = {
        "enable_prompt_tokens_details": True,
        "trust-request-chat-template": False,
        "default_chat_template_kwargs": {"enable_thinking": False},
        "allowed_origins": ["*"],
        "max_logprobs": 30,
        "revision": None,
    }

    args = namespace(vllm=further)

    assert args.enable_prompt_tokens_details is True
    assert args.trust_request_chat_template is False
    assert args.default_chat_template_kwargs == {"enable_thinking": False}
    assert (args.allowed_origins, args.max_logprobs) == (["*"], 30)


@pytest.mark.parametrize(
    ("further", "says"),
    [
        ({"enable_prompt_token_details": True}, "did you mean enable_prompt_tokens_details"),
        ({"port": 1}, "set the gateway's own option port instead"),
        ({"headless": True}, "leave it out"),
        ({"max_logprobs": "many"}, "max-logprobs"),
        ({"sse_keep_alive_interval": -1}, "sse-keep-alive-interval"),
    ],
)
def test_an_unfit_option_is_one_line_that_names_it(further: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        namespace(vllm=further)

    assert "\n" not in str(raised.value)


def test_a_parser_that_vllm_does_not_have_is_told_at_the_start() -> None:
    with pytest.raises(ConfigError, match="invalid tool call parser: nonsense"):
        namespace(tool_call_parser="nonsense")
