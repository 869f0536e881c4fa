"""An engine of one's own, from its profile."""

import json
from pathlib import Path

import numpy as np
import pytest

from shared.batch_time import Kind, Step, to_plain
from shared.batch_time.profile_fit import MeasuredStep, fit_of
from shared.batch_time.table import counts_of
from shared.errors import ConfigError
from shared.hardware import Hardware, from_profile, load, noisy_s, profiled, true_s
from shared.hardware.profile import measured

ENGINE = {
    "model": "mine",
    "device": "some GPU",
    "gpus": 1,
    "block_size_tokens": 32,
    "kv_blocks": 1000,
    "kv_bytes_per_token": 46_080,
    "max_step_tokens": 2048,
    "max_running_requests": 64,
    "max_model_len_tokens": 2048,
}
STEPS = {
    Kind.DECODE: Step(decodes=16, decode_context_tokens=8000),
    Kind.PREFILL: Step().with_chunk(512),
    Kind.MIXED: Step(decodes=16, decode_context_tokens=8000).with_chunk(512),
}
REAL = load("opt-13b-a100-40gb")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Hardware:
    """Profiled on an engine that is known."""
    fit = fit_of(measured(REAL))
    assert fit is not None
    path = tmp_path_factory.mktemp("profiles") / "mine.json"
    path.write_text(json.dumps({"fit": to_plain(fit), "engine": ENGINE}))
    return from_profile(path)


def test_a_profile_says_what_the_engine_can_hold(own: Hardware) -> None:
    assert (own.name, own.model, own.gpu) == ("mine", "mine", "some GPU")
    assert own.kv_tokens == 32_000
    assert own.max_step_tokens == 2048


@pytest.mark.parametrize("kind", list(Kind))
def test_steps_last_as_long_as_they_did_on_the_engine(own: Hardware, kind: Kind) -> None:
    counts = counts_of(STEPS[kind])

    real_s = true_s(REAL.step.numbers, counts)

    assert true_s(own.step.numbers, counts) == pytest.approx(real_s, rel=0.05)


@pytest.mark.parametrize("kind", list(Kind))
def test_steps_spread_as_much_as_they_did_on_the_engine(own: Hardware, kind: Kind) -> None:
    counts = counts_of(STEPS[kind])
    normals = np.random.default_rng(1).standard_normal(2000)

    seconds = np.array([noisy_s(own.step.numbers, counts, one) for one in normals])
    ratios = seconds / true_s(own.step.numbers, counts)

    assert np.log(ratios).std() == pytest.approx(REAL.step.noise_sigma, rel=0.6)
    assert ratios.mean() == pytest.approx(1.0, abs=0.01)


def test_a_batch_that_a_quicker_kernel_computes_is_as_quick_when_it_is_simulated(
    tmp_path: Path,
) -> None:
    """Which no curve says: more decodes never take less by it."""
    usual = measured(REAL)
    odd = [one for one in usual if one.step.kind is not Kind.DECODE]
    for size, ratio in ((1, 1.0), (2, 1.2), (4, 0.8), (16, 1.0)):
        step = Step(decodes=size, decode_context_tokens=64 * size)
        seconds = ratio * true_s(REAL.step.numbers, counts_of(step))
        odd += [MeasuredStep(step=step, seconds=seconds)] * 4
    fit = fit_of(usual)
    assert fit is not None
    path = tmp_path / "odd.json"
    plain = {"fit": to_plain(fit), "engine": ENGINE, "measured": [one.plain for one in odd]}
    path.write_text(json.dumps(plain))

    own = from_profile(path)

    for size, ratio in ((2, 1.2), (4, 0.8), (16, 1.0), (64, 1.0)):
        counts = counts_of(Step(decodes=size, decode_context_tokens=64 * size))
        real_s = ratio * true_s(REAL.step.numbers, counts)
        assert true_s(own.step.numbers, counts) == pytest.approx(real_s, rel=0.05)
    assert own.slower(2.0).step.numbers[5:13] == pytest.approx(own.step.numbers[5:13])


def test_a_measured_step_comes_back_from_its_file_as_it_was() -> None:
    for one in measured(REAL):
        assert MeasuredStep.of_plain(json.loads(json.dumps(one.plain))) == one


def test_a_planner_can_profile_it_again(own: Hardware) -> None:
    table = profiled(own)

    for step in STEPS.values():
        real_s = true_s(own.step.numbers, counts_of(step))
        assert table.expected_s(step) == pytest.approx(real_s, rel=0.1)


@pytest.mark.parametrize("text", ["", "{}", '{"fit": {}, "engine": {}}'])
def test_a_file_that_is_no_profile_is_an_error_that_says_how_to_make_one(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)

    with pytest.raises(ConfigError, match="slos-serve profile --json"):
        from_profile(path)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        from_profile(tmp_path / "none.json")
