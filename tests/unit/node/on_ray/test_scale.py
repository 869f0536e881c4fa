from pathlib import Path

import pytest

from services.node.on_ray import down, scale, up
from services.node.on_ray.config import UpOptions
from services.node.on_ray.members import Member
from services.node.on_ray.place import Service
from services.node.on_ray.scale import wanted_counts
from services.node.on_ray.state import ServiceState
from services.node.on_ray.up import fleet_options, member_lines, missing, raise_if_failed, urls
from shared.errors import ConfigError, EngineLost


def state(*, running: int, others: int = 0, status: str = "RUNNING") -> ServiceState:
    return ServiceState(status=status, message="no room", running=running, others=others)


def test_words_become_numbers_and_auto_gives_a_service_back() -> None:
    counts = wanted_counts(["decode=4", "prefill=0", "gateway=auto"])
    assert counts == {Service.DECODE: 4, Service.PREFILL: 0, Service.GATEWAY: None}


@pytest.mark.parametrize(
    ("word", "cure"),
    [
        ("decod=4", "decode"),
        ("decode=many", "say decode=4"),
        ("planner=2", "say decode=4"),
        ("decode=0", "at least one decode"),
        ("decode=-1", "say decode=4"),
    ],
)
def test_what_cannot_be_scaled_is_told_with_a_cure(word: str, cure: str) -> None:
    with pytest.raises(ConfigError, match=cure):
        wanted_counts([word])


def test_a_scale_is_done_when_all_serve_and_none_drains() -> None:
    wanted = {Service.DECODE: 2}
    assert missing({Service.DECODE: state(running=2)}, wanted) == ""
    assert missing({Service.DECODE: state(running=1, others=1)}, wanted) == "1 decode"
    assert missing({Service.DECODE: state(running=3)}, wanted) == "1 decode to end"
    assert missing({Service.DECODE: state(running=2, others=1)}, wanted) == "1 decode to end"
    assert missing({}, wanted) == "2 decode"


def test_a_service_that_ray_gave_up_is_an_error_with_its_words() -> None:
    raise_if_failed({Service.DECODE: state(running=0, status="DEPLOYING")})
    with pytest.raises(EngineLost, match=r"decode \(DEPLOY_FAILED\): no room"):
        raise_if_failed({Service.DECODE: state(running=0, status="DEPLOY_FAILED")})


def test_the_text_of_options_and_the_kind_of_hardware_travel_to_the_nodes(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("gateway: {access_log: true}\n")
    environ = {"SLOS_DECODE_PROFILE": "off"}

    made = fleet_options(UpOptions(on="auto"), str(config), environ, gpus=True)
    assert made.config == config.read_text()
    assert made.environ == environ
    assert made.gpus_per_engine == 1
    assert fleet_options(UpOptions(), None, {}, gpus=False).gpus_per_engine == 0
    assert fleet_options(UpOptions(gpus_per_engine=4), None, {}, gpus=False).gpus_per_engine == 4


def test_a_missing_ray_is_told_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "find_spec", lambda _name: None)
    cure = r"pip install 'slos-serve\[ray\]'"
    with pytest.raises(ConfigError, match=cure):
        up.run_on_ray(UpOptions(on="ray"), config=None)
    with pytest.raises(ConfigError, match=cure):
        scale.main(["decode=2"])
    with pytest.raises(ConfigError, match=cure):
        down.main([])


def test_clients_are_told_of_every_gateway_and_of_no_engine() -> None:
    gateway = member("g", Service.GATEWAY, "http://10.0.0.1:8000")
    engine = member("d", Service.DECODE, "10.0.0.2:12345")
    assert urls([gateway, engine]) == ["http://10.0.0.1:8000/v1"]
    assert ["10.0.0.2:12345" in line for line in member_lines([gateway, engine])] == [False, True]


def member(name: str, service: Service, address: str) -> Member:
    return Member(name=name, service=service, address=address, node="n", actor_process=1, process=2)
