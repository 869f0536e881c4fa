from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.answer_report import StreamReporter, add_to_json, name_incomplete

SLO = {"met": True}
DONE = b"data: [DONE]\n\n"


def report() -> dict[str, Any]:
    return dict(SLO)


def chunk(**fields: Any) -> bytes:
    return b"data: " + orjson.dumps(fields) + b"\n\n"


def rewritten(*chunks: bytes) -> list[bytes]:
    reporter = StreamReporter(report)
    return [reporter.rewrite(one) for one in chunks]


def payload(event: bytes) -> Any:
    return orjson.loads(event.split(b"data: ", 1)[1])


@given(st.dictionaries(st.text(), st.text() | st.booleans() | st.none(), max_size=5))
def test_a_json_answer_keeps_all_it_had(answer: dict[str, Any]) -> None:
    assert orjson.loads(add_to_json(orjson.dumps(answer), report)) == answer | {"slo": SLO}


@pytest.mark.parametrize("body", [b"", b"[1]", b"not json", b"null"])
def test_what_is_no_json_object_stays_as_it_is(body: bytes) -> None:
    assert add_to_json(body, report) == body


def test_a_chunk_of_its_own_comes_before_done() -> None:
    first = chunk(id="1", object="chat.completion.chunk", created=5, model="m", choices=[{"i": 0}])

    kept, last = rewritten(first, DONE)

    assert kept == first
    assert last.endswith(DONE)
    assert payload(last.removesuffix(DONE)) == {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 5,
        "model": "m",
        "choices": [],
        "slo": SLO,
    }


def test_the_usage_chunk_carries_it_when_there_is_one() -> None:
    usage = chunk(id="1", choices=[], usage={"total_tokens": 3})

    with_slo, done = rewritten(usage, DONE)

    assert payload(with_slo) == {"id": "1", "choices": [], "usage": {"total_tokens": 3}, "slo": SLO}
    assert done == DONE


def test_the_word_choices_inside_generated_text_changes_nothing() -> None:
    text = chunk(id="1", choices=[{"text": '"choices":[]'}])

    assert rewritten(text) == [text]


@pytest.mark.parametrize("name", ["response.completed", "response.incomplete", "response.failed"])
def test_a_response_carries_it_in_its_last_event(name: str) -> None:
    event = f"event: {name}\n".encode() + chunk(type=name, response={"id": "r"})

    (with_slo,) = rewritten(event)

    assert with_slo.startswith(f"event: {name}\n".encode())
    assert payload(with_slo)["response"] == {"id": "r", "slo": SLO}


def test_a_message_carries_it_in_its_last_event() -> None:
    start, stop = rewritten(
        b"event: message_start\n" + chunk(type="message_start"),
        b"event: message_stop\n" + chunk(type="message_stop"),
    )

    assert b"slo" not in start
    assert payload(stop) == {"type": "message_stop", "slo": SLO}


def test_a_stream_that_ends_in_an_error_gets_none() -> None:
    error = chunk(error={"message": "gone"})

    assert rewritten(error, DONE) == [error, DONE]


def test_a_comment_passes_untouched() -> None:
    assert rewritten(b": keep-alive\n\n", DONE) == [b": keep-alive\n\n", DONE]


def test_a_response_that_was_cut_ends_under_its_true_name() -> None:
    data = {"type": "response.completed", "response": {"status": "incomplete", "id": "r"}}

    event = name_incomplete(b"event: response.completed\ndata: " + orjson.dumps(data) + b"\n\n")

    name, _, rest = event.partition(b"\n")
    assert name == b"event: response.incomplete"
    assert orjson.loads(rest.removeprefix(b"data: ")) == data | {"type": "response.incomplete"}


def test_a_whole_response_keeps_its_last_event() -> None:
    event = b'event: response.completed\ndata: {"response":{"status":"completed"}}\n\n'

    assert name_incomplete(event) == event
