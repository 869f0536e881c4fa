"""An agent loop: rounds of one session, in which the model asks for a tool until it answers.

python examples/agent.py "Is it warm in Rome?"

Each round sends the whole conversation under one session name. The planner then sends it to the
engine that has the KV of the rounds before, with the targets of the first round. The later a round
is, the more it is worth.
"""

import argparse
import json
import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import httpx

Message = dict[str, Any]
Tools = Mapping[str, Callable[..., str]]
MOST_ROUNDS = 6

TEMPERATURES_C = {"Oslo": 4, "Rome": 19}
LOOK_UP: Message = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "The temperature of a city at present, in degrees Celsius.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": list(TEMPERATURES_C)}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def look_up(city: str) -> str:
    return f"{TEMPERATURES_C[city]} degrees"


def run(client: httpx.Client, model: str, question: str, tools: Tools) -> list[Message]:
    """The conversation up to the answer, or up to `MOST_ROUNDS` rounds.

    The first round has to call the tool, later ones may. Raises httpx.HTTPError.
    """
    messages: list[Message] = [{"role": "user", "content": question}]
    session = f"agent-{uuid.uuid4()}"
    choice: Any = {"type": "function", "function": {"name": "look_up"}}
    for _ in range(MOST_ROUNDS):
        reply = ask(client, model, messages, session, choice)
        messages.append(reply)
        calls = reply.get("tool_calls", [])
        if not calls:
            break
        messages += [answered(call, tools) for call in calls]
        choice = "auto"
    return messages


def ask(
    client: httpx.Client, model: str, messages: list[Message], session: str, choice: Any
) -> Message:
    """One round: the message of the model. Raises httpx.HTTPError."""
    body = {
        "model": model,
        "messages": messages,
        "tools": [LOOK_UP],
        "tool_choice": choice,
        "max_tokens": 128,
        "temperature": 0,
        "slo": {"session": session, "ttft_ms": 8000, "tpot_ms": 500, "report": True},
    }
    answer = client.post("/v1/chat/completions", json=body)
    if answer.is_error:
        reason = answer.json()["error"]["message"]
        raise httpx.HTTPStatusError(reason, request=answer.request, response=answer)
    reply = answer.json()
    report = reply["slo"]
    print(f"{report['decision_id']} on {report['engines']['decode']}: {report['achieved']}")
    message: Message = reply["choices"][0]["message"]
    return {key: message[key] for key in ("role", "content", "tool_calls") if message.get(key)}


def answered(call: Message, tools: Tools) -> Message:
    """What the tool says, as a message; also where the call cannot be read."""
    function = call["function"]
    try:
        content = tools[function["name"]](**json.loads(function["arguments"]))
    except (KeyError, TypeError, ValueError) as error:
        content = f"error: {error}"
    return {"role": "tool", "tool_call_id": call["id"], "content": content}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default="embedded")
    given = parser.parse_args()
    with httpx.Client(base_url=given.url, timeout=120) as client:
        try:
            messages = run(client, given.model, given.question, {"look_up": look_up})
        except httpx.HTTPError as error:
            sys.exit(f"{given.url}: {error}")
    print("\n".join(json.dumps(message) for message in messages))


if __name__ == "__main__":
    main()
