"""What the scripts of examples/ do with answers that a tiny model does not give."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from examples import agent, client


def reply(message: dict[str, object]) -> httpx.Response:
    report = {"decision_id": "d-1", "engines": {"decode": "decode-0"}, "achieved": {}}
    return httpx.Response(200, json={"choices": [{"message": message}], "slo": report})


def call(arguments: str) -> dict[str, object]:
    function = {"name": "look_up", "arguments": arguments}
    one = {"id": "call-1", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [one]}


def conversation(*answers: dict[str, object]) -> tuple[list[agent.Message], list[agent.Message]]:
    """The messages at the end, and the bodies that the model was asked with."""
    asked: list[agent.Message] = []
    left = iter(answers)

    def serve(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return reply(next(left))

    with httpx.Client(base_url="http://gateway", transport=httpx.MockTransport(serve)) as client:
        return agent.run(client, "tiny", "Rome?", {"look_up": agent.look_up}), asked


def test_the_agent_gives_the_model_what_its_tool_says() -> None:
    messages, asked = conversation(
        call('{"city": "Rome"}'), {"role": "assistant", "content": "It is warm."}
    )

    assert [one["role"] for one in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[2]["content"] == "19 degrees"
    assert asked[1]["messages"] == messages[:3]


def test_all_rounds_of_the_agent_are_one_session() -> None:
    _, asked = conversation(call('{"city": "Oslo"}'), {"role": "assistant", "content": "No."})

    assert len({body["slo"]["session"] for body in asked}) == 1


def test_a_call_that_cannot_be_read_is_answered_with_its_error() -> None:
    messages, _ = conversation(
        call('{"city": "Ro'), call('{"city": "Paris"}'), {"role": "assistant", "content": "?"}
    )

    told = [one["content"] for one in messages if one["role"] == "tool"]
    assert len(told) == 2
    assert all(one.startswith("error: ") for one in told)


def test_an_agent_that_never_stops_calling_is_ended() -> None:
    messages, asked = conversation(*[call('{"city": "Rome"}')] * (agent.MOST_ROUNDS + 1))

    assert len(asked) == agent.MOST_ROUNDS
    assert messages[-1]["role"] == "tool"


def test_the_client_reads_text_and_report_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    report = {"met": True}
    text = {"choices": [{"delta": {"content": "Par"}}]}
    stream(monkeypatch, 200, text, text, {"choices": [], "slo": report})

    answer = client.ask("http://gateway", {}, {})

    assert (answer.text, answer.report) == ("ParPar", report)


def test_the_client_says_that_an_answer_broke_off(monkeypatch: pytest.MonkeyPatch) -> None:
    stream(monkeypatch, 200, {"choices": []}, {"error": {"message": "engine d-0 is gone"}})

    with pytest.raises(client.Failed, match="engine d-0 is gone"):
        client.ask("http://gateway", {}, {})


def test_the_client_comes_back_after_the_time_that_a_refusal_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    stream(monkeypatch, 429, {"error": {"code": "refused", "message": "later"}})

    with pytest.raises(client.Refused, match="later"):
        client.ask_patiently("http://gateway", {}, {}, tries=3)

    assert slept == [7.0, 7.0]


def stream(monkeypatch: pytest.MonkeyPatch, status: int, *events: object) -> None:
    """Every request of httpx gets these events, or the last one as an error."""

    @contextmanager
    def answer(method: str, url: str, **_: object) -> Iterator[httpx.Response]:
        data = [json.dumps(event) for event in events]
        body = (
            data[-1] if status != 200 else "".join(f"data: {one}\n\n" for one in [*data, "[DONE]"])
        )
        headers = {"retry-after": "7"}
        request = httpx.Request(method, url)
        yield httpx.Response(status, headers=headers, text=body, request=request)

    monkeypatch.setattr(httpx, "stream", answer)
