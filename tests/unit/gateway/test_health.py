import orjson
import pytest
from starlette.applications import Starlette

from services.gateway.health import Pages
from services.gateway.lifecycle import Lifecycle
from shared.errors import NoEngine
from tests.unit.gateway.http_fakes import CATALOGUE, Answer, receiver


def fleet_is_well() -> None:
    """Raises nothing."""


def no_engine() -> None:
    raise NoEngine("No decode engine is attached.")


async def models() -> list[dict[str, str]]:
    return [{"id": "org/one"}, {"id": "two"}]


async def openapi() -> bytes:
    return b'{"openapi":"3.1.0"}'


async def get(path: str, lifecycle: Lifecycle | None = None, *, fails: bool = False) -> Answer:
    pages = Pages(
        lifecycle=lifecycle or Lifecycle(),
        check_fleet=no_engine if fails else fleet_is_well,
        catalogue=CATALOGUE,
        versions={"version": "1", "slos_serve": "2"},
        models=models,
        openapi=openapi,
    )
    answer = Answer()
    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
    await Starlette(routes=pages.routes())(scope, receiver(b""), answer.send)
    return answer


@pytest.mark.parametrize("name", ["org/one", "two"])
async def test_a_model_is_found_by_its_name(name: str) -> None:
    assert (await get(f"/v1/models/{name}")).json["id"] == name


async def test_an_unknown_model_is_a_404_that_names_those_there_are() -> None:
    answer = await get("/v1/models/three")

    assert (answer.status, answer.json["error"]["param"]) == (404, "model")
    assert "org/one, two" in answer.json["error"]["message"]


async def test_the_description_is_served_as_it_was_made() -> None:
    assert (await get("/openapi.json")).json == {"openapi": "3.1.0"}


@pytest.mark.parametrize("path", ["/live", "/ready", "/health"])
async def test_all_is_well(path: str) -> None:
    assert (await get(path)).status == 200


@pytest.mark.parametrize("path", ["/ready", "/health"])
async def test_what_is_missing_is_named(path: str) -> None:
    answer = await get(path, fails=True)

    assert answer.status == 503
    assert answer.json["error"]["message"] == "No decode engine is attached."


@pytest.mark.parametrize("path", ["/ready", "/health"])
async def test_a_draining_gateway_is_not_ready(path: str) -> None:
    lifecycle = Lifecycle()
    await lifecycle.drain(1.0)

    assert (await get(path, lifecycle)).status == 503


@pytest.mark.parametrize("path", ["/ready", "/health"])
async def test_a_gateway_that_still_serves_new_requests_while_stopping_is_not_ready(
    path: str,
) -> None:
    lifecycle = Lifecycle()
    lifecycle.stopping = True

    assert (await get(path, lifecycle)).status == 503
    assert not lifecycle.draining


async def test_it_lives_whatever_the_fleet_does() -> None:
    assert (await get("/live", fails=True)).status == 200


async def test_versions_are_ours_and_vllms() -> None:
    assert (await get("/version")).json == {"version": "1", "slos_serve": "2"}


async def test_the_classes_are_listed_with_their_targets() -> None:
    told = orjson.loads((await get("/v1/slo/classes")).body)

    assert told["default"] == "default"
    assert [one["id"] for one in told["data"]] == ["chat", "default"]
    assert (told["data"][0]["ttft_ms"], told["data"][0]["tpot_ms"]) == (500.0, 50.0)
    assert told["data"][0]["pacing"] == "mean"
