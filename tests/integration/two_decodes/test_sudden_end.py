"""The end of the node of this folder, so this file is the last of the folder by name."""

import signal

import psutil
import pytest

from tests.integration.node import Node

pytestmark = pytest.mark.engines


def test_a_node_that_is_killed_outright_leaves_nothing(node: Node) -> None:
    parts = psutil.Process(node.process.pid).children(recursive=True)
    assert len(parts) > 7  # keeper, planner, gateway, three hosts with a core each

    assert node.end(signal.SIGKILL) == -signal.SIGKILL
