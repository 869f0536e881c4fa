"""Builds the request that continues a sequence on another engine."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

from vllm.sampling_params import SamplingType
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest

from services.gateway.continuation import continued, goes_on_from_prompt
from shared.errors import AnswerDiverged


@dataclass(slots=True)
class Replay:
    """Drops from an answer that is computed again the tokens that the client has already.

    Attributes:
        delivered: The tokens that the client has; the answer must begin with them.
    """

    delivered: Sequence[int]
    _compared: int = 0

    def unseen(self, outputs: list[EngineCoreOutput]) -> list[EngineCoreOutput]:
        """The outputs from the first new token on. Raises AnswerDiverged."""
        if self._compared == len(self.delivered):
            return outputs
        return [one for output in outputs if (one := self._new_part(output)) is not None]

    def _new_part(self, output: EngineCoreOutput) -> EngineCoreOutput | None:
        tokens, left = output.new_token_ids, self.delivered[self._compared :]
        if not left:
            return output
        known = tokens[: len(left)]
        ended = output.finish_reason is not None and len(tokens) <= len(left)
        if ended or list(left[: len(known)]) != known:
            raise AnswerDiverged(
                "The engine of this request was lost, and the answer of another one differs after "
                f"{self._compared} tokens; send the request again."
            )
        self._compared += len(known)
        return _without_first(output, len(known)) if len(tokens) > len(known) else None


def why_it_ends_here(request: EngineCoreRequest, delivered: Sequence[int]) -> str:
    """Why the answer cannot go on exactly on another engine; empty when it can."""
    params = request.sampling_params
    if not delivered or params is None:
        return ""
    if goes_on_from_prompt(request) or params.sampling_type is not SamplingType.RANDOM:
        return ""
    return "its sampling looks back at earlier tokens and has no seed to repeat it by"


def rest_of(
    request: EngineCoreRequest, delivered: Sequence[int]
) -> tuple[EngineCoreRequest, Replay | None]:
    """The request for the next engine.

    The delivered tokens join the prompt if that changes nothing. Otherwise the request starts
    over, and the Replay drops what the client has.
    """
    if not delivered:
        return request, None
    if goes_on_from_prompt(request):
        return continued(request, delivered), None
    return request, Replay(tuple(delivered))


def named(request: EngineCoreRequest, leg: int) -> EngineCoreRequest:
    """The request with an id of its leg: late outputs of an earlier leg belong to no later one."""
    if leg == 0:
        return request
    other = copy(request)
    other.request_id = f"{request.request_id}~{leg}"
    return other


def _without_first(output: EngineCoreOutput, tokens: int) -> EngineCoreOutput:
    """The output without its first `tokens` tokens."""
    rest = copy(output)
    rest.new_token_ids = output.new_token_ids[tokens:]
    if output.new_logprobs is not None:
        rest.new_logprobs = output.new_logprobs.slice_request(tokens, len(rest.new_token_ids))
    return rest
