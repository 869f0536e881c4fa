from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from services.gateway.api_keys import ApiKeys, all_keys
from services.gateway.tenants import Tenants
from shared.errors import ConfigError
from tests.unit.gateway.http_fakes import Answer, receiver, send_json


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive
    await send_json(send, {"served": True})


async def ask(keys: list[str], *, method: str = "POST", path: str, sent: str = "") -> Answer:
    headers = [(b"authorization", sent.encode())] if sent else []
    scope: Scope = {"type": "http", "method": method, "path": path, "headers": headers}
    answer = Answer()
    await ApiKeys(app, Tenants(own_keys=keys))(scope, receiver(), answer.send)
    return answer


@pytest.mark.parametrize("path", ["/v1/completions", "/invocations", "/tokenize", "/v1x", "//v1"])
@pytest.mark.parametrize("sent", ["", "Bearer", "Bearer c", "a", "Basic a", "Bearer  a"])
async def test_without_a_known_key_nothing_that_costs_is_served(path: str, sent: str) -> None:
    answer = await ask(["a", "b"], path=path, sent=sent)

    assert answer.status == 401
    assert answer.json["error"]["code"] == "invalid_api_key"
    assert "Authorization: Bearer" in answer.json["error"]["message"]


@pytest.mark.parametrize("sent", ["Bearer a", "bearer b"])
async def test_any_of_the_keys_opens(sent: str) -> None:
    assert (await ask(["a", "b"], path="/v1/completions", sent=sent)).status == 200


@pytest.mark.parametrize("path", ["/live", "/ready", "/health", "/metrics", "/version"])
async def test_what_watches_needs_no_key(path: str) -> None:
    assert (await ask(["a"], method="GET", path=path)).status == 200


async def test_a_browser_may_ask_what_it_may_send() -> None:
    assert (await ask(["a"], method="OPTIONS", path="/v1/completions")).status == 200


async def test_without_keys_set_all_is_open() -> None:
    assert (await ask([], path="/v1/completions")).status == 200


async def test_a_socket_without_a_key_is_closed() -> None:
    answer = Answer()
    scope: Scope = {"type": "websocket", "path": "/v1/realtime", "headers": []}

    await ApiKeys(app, Tenants(own_keys=["a"]))(scope, receiver(), answer.send)

    assert answer.messages == [{"type": "websocket.close"}]


def test_keys_of_a_file_come_after_those_of_the_options(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# of the team\nfrom-file \n\n")

    assert all_keys(("a",), str(file)) == ("a", "from-file")
    assert all_keys(("a",), "") == ("a",)


@pytest.mark.parametrize("text", ["", "\n", "# nothing but words\n", None])
def test_a_file_without_a_key_is_an_error(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    if text is not None:
        file.write_text(text)

    with pytest.raises(ConfigError, match="api_key_file"):
        all_keys((), str(file))
