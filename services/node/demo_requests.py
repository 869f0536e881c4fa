"""The dozen requests of the demo: own texts, three classes, both ways."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from shared.requests import PlacementMode

_CODE: Final = (
    "Write a Python function that returns the n-th Fibonacci number without recursion.",
    "Write a Python function that tells whether a word is a palindrome.",
    "Write a Python function that counts the vowels of a text.",
    "Write a Python function that returns the largest number of a list.",
)
_CHAT: Final = (
    "What is the capital of France?",
    "Give me three ideas for a rainy afternoon with children.",
    "Why is the sky blue? Answer in two sentences.",
    "How do I make a simple tomato soup?",
)
_ANSWER_TOKENS: Final = {"summary": 40, "code": 60, "chat": 40}
_WAYS: Final = (
    PlacementMode.COLOCATED,
    PlacementMode.DISAGGREGATED,
    None,
    None,
)  # None: the planner chooses


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRequest:
    """One request; `way` None: the planner chooses."""

    class_name: str
    prompt: str
    answer_tokens: int
    way: PlacementMode | None = None

    def body(self, model: str) -> dict[str, Any]:
        """The body for the OpenAI API, with our `slo` object."""
        slo: dict[str, Any] = {"class": self.class_name, "report": True}
        if self.way is not None:
            slo["way"] = self.way.value
        return {
            "model": model,
            "messages": [{"role": "user", "content": self.prompt}],
            "max_tokens": self.answer_tokens,
            "temperature": 0,
            "stream": True,
            "slo": slo,
        }


def demo_requests() -> list[DemoRequest]:
    """Twelve requests, with the classes in turn."""
    prompts: Mapping[str, list[str]] = {
        "summary": [f"Summarize this text in two sentences.\n\n{text}" for text in _texts()],
        "code": list(_CODE),
        "chat": list(_CHAT),
    }
    return [
        DemoRequest(
            class_name=name,
            prompt=prompts[name][turn],
            answer_tokens=_ANSWER_TOKENS[name],
            way=way,
        )
        for turn, way in enumerate(_WAYS)
        for name in prompts
    ]


def _texts() -> list[str]:
    """Four texts of about 230 words each."""
    paragraphs = (files("services.node") / "demo_texts.txt").read_text("utf-8").split("\n\n")
    return [" ".join(paragraph.split()) for paragraph in paragraphs]


def first_requests() -> list[DemoRequest]:
    """One short request for each way, so that engines have connected before times are measured."""
    return [
        DemoRequest(class_name="chat", prompt="Say hello.", answer_tokens=4, way=way)
        for way in PlacementMode
    ]
