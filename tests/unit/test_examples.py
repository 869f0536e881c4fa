"""What the scripts of examples/ do with answers that a tiny model does not give."""

import json

import httpx

from examples import agent


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
