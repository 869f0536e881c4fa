"""Ends the compilation of a grammar with the request that wants it."""

from concurrent.futures import Future

from vllm.v1.request import Request


def end_compilation(request: Request) -> None:
    """Takes what has not begun out of vLLM's queue; the gateway bounds what has."""
    structured = request.structured_output_request
    if structured is not None and isinstance(structured._grammar, Future):
        structured._grammar.cancel()
