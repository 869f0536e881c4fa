"""One node for the tests of this folder: a prefill engine and two decode engines, with LoRA, the
classes of the example, and prefixes that are pulled. test_sudden_end.py, the last file, kills it.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml

from tests.integration.node import Node, pids_with_text, running_node

CLASSES = Path(__file__).parents[3] / "examples" / "classes.yaml"
OPENED = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
LORA = {"vllm": {"enable_lora": True, "max_loras": 2}}
SHORT_STEPS = {"max_step_tokens": 128}  # a prefix takes many, an export of it two


@pytest.fixture(scope="package")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("two-decodes")
    gateway = yaml.safe_load(CLASSES.read_text())["gateway"] | LORA
    config = folder / "node.yaml"
    parts = {
        "gateway": gateway,
        "planner": {"pull_prefixes": True},
        "prefill": LORA,
        "decode": LORA | SHORT_STEPS,
    }
    config.write_text(json.dumps(parts))
    with (
        patch.dict(os.environ, OPENED),
        running_node("tiny", folder, "--config", str(config), decode=2) as running,
    ):
        yield running
    assert pids_with_text(str(folder)) == []
