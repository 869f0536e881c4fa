import pytest

from shared.engine.config import EngineOptions
from shared.engine.start import check
from shared.engines import Role
from shared.errors import ConfigError
from shared.options import load


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--cores", "all"), "cores: read 'all'"),
        (("--host", "0.0.0.0", "--insecure"), "advertise_host: other machines cannot reach"),
        (("--host", "10.0.0.1"), "host"),
        (("--speculation-tokens", "4", "--speculation", "eagle"), "eagle needs a draft model"),
        (("--speculation-tokens", "4", "--speculation-model", "m"), "drafts without a model"),
        (("--vllm", "{model: m}"), "vllm: model: this is the option --model"),
    ],
)
def test_options_that_no_engine_can_have_are_found_without_vllm(
    words: tuple[str, ...], says: str
) -> None:
    options = load(EngineOptions, section="decode", argv=words, environ={}, prog="it")

    with pytest.raises(ConfigError, match=says):
        check(options, role=Role.DECODE)


def test_the_defaults_and_a_name_that_only_vllm_can_judge_pass() -> None:
    check(EngineOptions(), role=Role.PREFILL)
    check(EngineOptions(vllm={"seed": 1, "sead": 1}), role=Role.PREFILL)
