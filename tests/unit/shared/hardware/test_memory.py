"""How much KV fits."""

import pytest

from shared.hardware import KvMemory, load

OPT_13B = KvMemory(
    gpus=2, gpu_bytes=40e9, weight_bytes=26e9, activation_bytes=2e9, kv_bytes_per_token=0.82e6
)


def test_kv_gets_what_weights_and_activations_leave() -> None:
    assert OPT_13B.left_bytes == pytest.approx(2 * (36e9 - 2e9) - 26e9)
    assert OPT_13B.blocks(16) == int(42e9 / 0.82e6 / 16)


def test_a_model_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="weights and activations leave"):
        KvMemory(
            gpus=1, gpu_bytes=24e9, weight_bytes=26e9, activation_bytes=0, kv_bytes_per_token=1
        ).blocks(16)


def test_tables_hold_as_much_kv_as_was_measured_of_such_engines() -> None:
    """DistServe profiled 66,144 tokens of OPT-13B on one A100 of 80 GB; two of 40 GB hold less."""
    assert load("opt-13b-a100-40gb").kv_tokens == pytest.approx(55_000, rel=0.15)
