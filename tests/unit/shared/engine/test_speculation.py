from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from shared.engine.speculation import Speculation, speculative_config
from shared.errors import ConfigError
from shared.models.tiny import make_tiny_model

WITHOUT_MODEL = [one for one in Speculation if not one.needs_model]


def config(method: Speculation, model: str = "", *, cpu: bool = False) -> dict[str, object]:
    return speculative_config(method, tokens=3, model_path=model, cpu=cpu)


@pytest.mark.parametrize("method", WITHOUT_MODEL)
def test_a_method_without_a_model_is_told_to_vllm_by_its_own_name(method: Speculation) -> None:
    told = config(method)

    assert told["method"] == method.value
    assert told["num_speculative_tokens"] == 3
    assert "model" not in told


@pytest.mark.parametrize("method", [one for one in Speculation if one.needs_model])
def test_a_method_that_drafts_with_a_model_asks_for_one(method: Speculation) -> None:
    with pytest.raises(ConfigError, match=f"{method} needs a draft model.*--speculation-model"):
        config(method)


@pytest.mark.parametrize("method", WITHOUT_MODEL)
def test_a_model_that_nobody_would_load_is_refused(method: Speculation) -> None:
    with pytest.raises(ConfigError, match="speculation_model"):
        config(method, "/some/model")


def test_drafts_on_a_gpu_are_refused_on_cpus() -> None:
    with pytest.raises(ConfigError, match="--speculation ngram"):
        config(Speculation.NGRAM_GPU, cpu=True)


def test_any_model_may_be_a_draft_model(tmp_path: Path) -> None:
    folder = str(make_tiny_model(tmp_path))

    assert config(Speculation.DRAFT_MODEL, folder)["model"] == folder


@pytest.mark.parametrize("method", [Speculation.EAGLE, Speculation.EAGLE3])
def test_a_whole_model_is_no_eagle_head(method: Speculation, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path)

    with pytest.raises(ConfigError, match=f"no {method} head"):
        config(method, str(folder))
    save_file({"fc.weight": np.ones((2, 2), np.float32)}, folder / "head.safetensors")
    assert config(method, str(folder))["method"] == method.value


def test_a_head_on_a_hub_is_vllms_to_check() -> None:
    assert config(Speculation.EAGLE, "owner/head")["model"] == "owner/head"
