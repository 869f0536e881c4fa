"""Asks a running gateway with latency targets, reads the stream, and prints the report.

python examples/client.py "What is the capital of France?" --ttft-ms 2000 --tpot-ms 200
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A finished answer.

    Attributes:
        text: The whole text.
        report: The `slo` object of the gateway: targets, times in milliseconds, and the decision.
    """

    text: str
    report: dict[str, Any]


class Refused(Exception):
    """The gateway cannot promise the targets now; `retry_after_s` is None if it never can."""

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Failed(Exception):
    """The answer broke off after its first token; the message says why."""


def ask(url: str, body: dict[str, Any], slo: dict[str, Any], *, limit_s: float = 60.0) -> Answer:
    """Sends a chat request with targets and reads its stream.

    Raises Refused, Failed where the answer breaks off, and httpx.HTTPError.
    """
    body = {**body, "stream": True, "slo": {"on_refuse": "refuse", **slo, "report": True}}
    text, report = "", dict[str, Any]()
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=limit_s) as reply:
        if reply.is_error:
            raise refusal(reply)
        for event in events(reply):
            if "error" in event:
                raise Failed(event["error"]["message"])
            for choice in event["choices"]:
                text += choice["delta"].get("content") or ""
            report = event.get("slo", report)
    return Answer(text=text, report=report)


def ask_patiently(url: str, body: dict[str, Any], slo: dict[str, Any], *, tries: int = 3) -> Answer:
    """As `ask`, but comes back after the time that a refusal names. Raises Refused at the end."""
    for _ in range(tries - 1):
        try:
            return ask(url, body, slo)
        except Refused as refused:
            if refused.retry_after_s is None:
                raise
            time.sleep(refused.retry_after_s)
    return ask(url, body, slo)


def events(reply: httpx.Response) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events."""
    for line in reply.iter_lines():
        data = line.removeprefix("data: ")
        if data != line and data != "[DONE]":
            yield json.loads(data)


def refusal(reply: httpx.Response) -> Exception:
    """The error that an answer with an error status stands for."""
    reply.read()
    error = reply.json()["error"]
    if error["code"] not in ("refused", "never_possible"):
        return httpx.HTTPStatusError(error["message"], request=reply.request, response=reply)
    after = reply.headers.get("retry-after")
    return Refused(error["message"], None if after is None else float(after))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--ttft-ms", type=float, default=2000)
    parser.add_argument("--tpot-ms", type=float, default=200)
    given = parser.parse_args()
    body = {
        "model": given.model,
        "messages": [{"role": "user", "content": given.question}],
        "max_tokens": 64,
        "temperature": 0,
    }
    try:
        answer = ask_patiently(
            given.url, body, {"ttft_ms": given.ttft_ms, "tpot_ms": given.tpot_ms}
        )
    except (Refused, Failed, httpx.HTTPError) as error:
        sys.exit(f"{given.url}: {error}")
    print(answer.text)
    print(json.dumps(answer.report, indent=2))


if __name__ == "__main__":
    main()
