import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.gateway.config import GatewayOptions
from services.planner.config import PlannerOptions
from shared.cluster_secret import IDENTITY_VARIABLE
from shared.engine.config import EngineOptions
from shared.listening import INSECURE_VARIABLE

FOLDER = Path(__file__).parents[3] / "deploy/compose"
TEXT = (FOLDER / "compose.yaml").read_text()
OURS = ("secret", "model", "planner", "gateway", "prefill", "decode")
SHARED = ("SLOS_CONFIG", "SLOS_LOG_FORMAT", IDENTITY_VARIABLE, INSECURE_VARIABLE)
SECTIONS = {
    "gateway": GatewayOptions,
    "planner": PlannerOptions,
    "prefill": EngineOptions,
    "decode": EngineOptions,
}


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(TEXT)["services"]
    return found


@pytest.mark.parametrize("name", OURS)
def test_a_service_has_no_rights_and_a_file_system_that_it_cannot_change(name: str) -> None:
    service = services()[name]

    assert service["user"] == "65532:65532"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service


@pytest.mark.parametrize("name", ["prefill", "decode"])
def test_an_engine_can_be_there_more_than_once(name: str) -> None:
    service = services()[name]

    assert not {"ports", "container_name", "hostname", "network_mode"} & set(service)
    assert service["environment"][f"SLOS_{name.upper()}_ADVERTISE_HOST"] == "auto"
    assert service["environment"][f"SLOS_{name.upper()}_KV_HOST"] == "auto"


@pytest.mark.parametrize("name", SECTIONS)
def test_every_variable_is_an_option_of_its_service(name: str) -> None:
    prefix = f"SLOS_{name.upper()}_"
    known = {field.name for field in fields(SECTIONS[name])}
    given = {
        key.removeprefix(prefix).lower()
        for key in services()[name]["environment"]
        if key.startswith("SLOS_") and key not in SHARED
    }

    assert given
    assert given <= known


@pytest.mark.parametrize("name", SECTIONS)
def test_every_part_waits_for_the_secret_and_reads_it_where_it_was_made(name: str) -> None:
    made, service = services()["secret"], services()[name]
    path = made["command"][-1]

    assert service["environment"][IDENTITY_VARIABLE] == path
    assert service["depends_on"]["secret"] == {"condition": "service_completed_successfully"}
    (writable,) = made["volumes"]
    assert f"{writable}:ro" in service["volumes"]
    assert path.startswith(writable.partition(":")[2])


def test_both_roles_are_told_the_same() -> None:
    prefill, decode = (services()[name] for name in ("prefill", "decode"))

    as_decode = {
        key.replace("SLOS_PREFILL_", "SLOS_DECODE_"): value
        for key, value in prefill["environment"].items()
    }
    assert as_decode == decode["environment"]


@pytest.mark.parametrize("name", ["gateway", "prefill", "decode"])
def test_a_stop_waits_for_as_long_as_a_drain_may_take_and_a_little_more(name: str) -> None:
    service = services()[name]

    assert service["stop_grace_period"] == "${DRAIN_LIMIT_S}s15s"
    assert service["environment"][f"SLOS_{name.upper()}_DRAIN_LIMIT_S"] == "${DRAIN_LIMIT_S}"


def test_only_loopback_is_open_unless_the_operator_says_otherwise() -> None:
    environment = (FOLDER / ".env").read_text()
    published = [port for one in services().values() for port in one.get("ports", ())]

    assert "\nLISTEN=127.0.0.1\n" in environment
    assert published
    assert all(port.startswith(("${LISTEN}:", "127.0.0.1:")) for port in published)


def test_every_variable_without_a_default_is_in_the_env_file() -> None:
    given = set(re.findall(r"^(\w+)=", (FOLDER / ".env").read_text(), flags=re.MULTILINE))

    assert set(re.findall(r"\$\{(\w+)\}", TEXT)) <= given


def test_secrets_are_files_and_no_variables() -> None:
    names = yaml.safe_load(TEXT)["secrets"]

    assert {"api_keys", "hf_token"} <= set(names)
    assert all(set(one) == {"file"} for one in names.values())
    for service in services().values():
        for key in service.get("environment", {}):
            assert key not in ("HF_TOKEN", "SLOS_GATEWAY_API_KEY", "GF_SECURITY_ADMIN_PASSWORD")
