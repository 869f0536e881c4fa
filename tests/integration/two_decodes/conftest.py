"""One node for the tests of this folder: a prefill engine and two decode engines, with LoRA."""

import json
import os
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from tests.integration.node import Node, running_node

OPENED = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
LORA = {"vllm": {"enable_lora": True, "max_loras": 2}}
ENGINE = {**LORA, "profile": "off"}  # no test here has a target


@pytest.fixture(scope="package")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("two-decodes")
    config = folder / "node.yaml"
    config.write_text(json.dumps({"gateway": LORA, "prefill": ENGINE, "decode": ENGINE}))
    with (
        patch.dict(os.environ, OPENED),
        running_node("tiny", folder, "--config", str(config), decode=2) as running,
    ):
        yield running
