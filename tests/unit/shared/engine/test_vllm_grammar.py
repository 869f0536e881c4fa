from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.structured_output.request import StructuredOutputRequest

from shared.engine.vllm_grammar import end_compilation


def request(grammar: Any) -> Any:
    wanted = StructuredOutputRequest(params=StructuredOutputsParams(regex="a"), _grammar=grammar)
    return SimpleNamespace(structured_output_request=wanted)


def test_a_compilation_that_waits_ends_with_its_request() -> None:
    waiting: Future[Any] = Future()

    end_compilation(request(waiting))

    assert waiting.cancelled()


def test_a_compilation_that_has_begun_is_left_to_end() -> None:
    running: Future[Any] = Future()
    running.set_running_or_notify_cancel()

    end_compilation(request(running))

    assert not running.cancelled()


@pytest.mark.parametrize(
    "ended", [request(None), request(object()), SimpleNamespace(structured_output_request=None)]
)
def test_a_request_without_a_compilation_ends_as_ever(ended: Any) -> None:
    before = vars(ended).copy()

    end_compilation(ended)

    assert vars(ended) == before
