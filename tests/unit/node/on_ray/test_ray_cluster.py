"""How a driver finds its cluster; Ray itself is replaced by answers that it gives."""

from typing import Any

import pytest

from shared.errors import ConfigError

ray_cluster: Any = pytest.importorskip("services.node.on_ray.ray_cluster")

LOST_SERVER = ConnectionAbortedError("Initialization failure from server")


def answering(
    monkeypatch: pytest.MonkeyPatch, *answers: Exception | None
) -> list[Exception | None]:
    """Lets Ray answer so, one try after the other. Returns what was not asked for yet."""
    left = list(answers)

    def init(**_: object) -> None:
        if (answer := left.pop(0)) is not None:
            raise answer

    monkeypatch.setattr(ray_cluster.ray, "init", init)
    return left


def test_a_cluster_whose_server_for_the_driver_died_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = answering(monkeypatch, LOST_SERVER, LOST_SERVER, None)

    ray_cluster.connect("ray://127.0.0.1:10001")

    assert left == []


def test_a_cluster_that_can_start_no_server_is_not_called_absent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = answering(monkeypatch, *[LOST_SERVER] * 3)

    with pytest.raises(ConfigError, match=r"could not start a server .* ray_client_server"):
        ray_cluster.connect("ray://127.0.0.1:10001")

    assert left == []


def test_a_cluster_that_is_not_there_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    left = answering(monkeypatch, ConnectionError("refused"), None)

    with pytest.raises(ConfigError, match="There is no Ray cluster at ray"):
        ray_cluster.connect("ray://127.0.0.1:10001")

    assert left == [None]
