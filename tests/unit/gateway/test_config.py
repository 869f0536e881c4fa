import pytest

from services.gateway.config import GatewayOptions
from shared.errors import ConfigError
from shared.options import load
from shared.requests import Pacing, SloTargets, Stage

CLASSES = (
    "{chat: {ttft_ms: 500, value: 2, pacing: deadlines, stages: [{name: answer, tpot_ms: 50}]}}"
)


def options(*argv: str) -> GatewayOptions:
    return load(
        GatewayOptions, section="gateway", argv=["--model", "m", *argv], environ={}, prog="test"
    )


def test_it_listens_on_loopback_unless_told_otherwise() -> None:
    assert (options().host, options().port) == ("127.0.0.1", 8000)


def test_classes_become_targets_in_seconds() -> None:
    catalogue = options("--classes", CLASSES, "--default-class", "chat").catalogue()

    expected = SloTargets(
        class_name="chat",
        ttft_s=0.5,
        stages=(Stage(name="answer", tpot_s=0.05),),
        value=2.0,
        pacing=Pacing.DEADLINES,
    )
    assert catalogue.classes == {"chat": expected}
    assert catalogue.default == expected


def test_without_classes_nothing_is_asked() -> None:
    assert options().catalogue().default.asks_for_nothing


def test_a_default_class_that_does_not_exist_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean chat"):
        options("--classes", CLASSES, "--default-class", "caht").catalogue()


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ("{chat: {tftt_ms: 1}}", "did you mean ttft_ms"),
        ("{chat: {ttft_ms: 0}}", "chat, ttft_ms"),
        ("{chat: {value: 0}}", "chat, value"),
        ("{chat: {pacing: median}}", "chat, pacing: read 'median', .*mean, deadlines"),
        ("{chat: {stages: [{name: a, tpot_ms: 1}, {name: a, tpot_ms: 2}]}}", "distinct names"),
        ("{chat: {ttft_ms: 9, ttft_slowdown: 2}}", "ttft_ms and ttft_slowdown set the same"),
        (
            "{chat: {tpot_ms: 9, stages: [{name: a, tpot_ms: 1}]}}",
            "tpot_ms and stages set the same",
        ),
    ],
)
def test_an_unfit_class_is_an_error_that_names_the_field(classes: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        options("--classes", classes)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--default-class", "chat"), "default_class names no class"),
        (("--tenants-file", "/not/there"), "/not/there: cannot be read"),
        (("--api-key-file", "/not/there"), "api_key_file: cannot read /not/there"),
    ],
)
def test_files_and_names_that_do_not_exist_are_found_without_vllm(
    words: tuple[str, ...], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        options(*words).check()
