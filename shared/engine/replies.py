"""What goes back to gateways: the outputs of requests and their ends, as messages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import grpc
from vllm.v1.engine import EngineCoreOutput

from shared.engine.streams import DuplicateRequest, RequestEnded
from shared.engine.wire import encode_outputs
from shared.errors import EngineDraining, EngineLost, EngineStalled, SlosError
from shared.rpc import slos_pb2 as pb


class OtherStart(SlosError):
    """The request is meant for another start of the engine."""


class Unreadable(SlosError):
    """This engine cannot run what came; the message says why."""


_STATUS: Final[dict[type[SlosError], grpc.StatusCode]] = {
    EngineDraining: grpc.StatusCode.FAILED_PRECONDITION,
    DuplicateRequest: grpc.StatusCode.ALREADY_EXISTS,
    EngineLost: grpc.StatusCode.UNAVAILABLE,
    EngineStalled: grpc.StatusCode.ABORTED,
    OtherStart: grpc.StatusCode.NOT_FOUND,
    Unreadable: grpc.StatusCode.INVALID_ARGUMENT,
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """One output of one step on its way to its stream."""

    output: EngineCoreOutput
    core_time_s: float
    weight_version: str


def is_last(item: Delivery | RequestEnded | None) -> bool:
    """Whether a request has nothing more to come after this."""
    return isinstance(item, RequestEnded) or (item is not None and bool(item.output.finished))


def status_of(error: SlosError) -> grpc.StatusCode:
    return _STATUS.get(type(error), grpc.StatusCode.INTERNAL)


def joined(items: Sequence[Delivery | RequestEnded]) -> Iterator[pb.EngineReplies]:
    """One message for all items: a message costs more than its content."""
    ends = [_end(one) for one in items if isinstance(one, RequestEnded)]
    given = [one for one in items if not isinstance(one, RequestEnded)]
    yield pb.EngineReplies(replies=_replies(given), ends=ends)


def _end(ended: RequestEnded) -> pb.RequestEnd:
    if ended.error is None:
        return pb.RequestEnd(request_id=ended.request_id)
    code: int = status_of(ended.error).value[0]
    return pb.RequestEnd(request_id=ended.request_id, code=code, details=str(ended.error))


def _replies(deliveries: Sequence[Delivery]) -> Iterator[pb.GenerateReply]:
    """One for all that were given by the same weights. Its time is that of the last."""
    for weight_version, group in groupby(deliveries, key=lambda one: one.weight_version):
        together = list(group)
        yield pb.GenerateReply(
            outputs=encode_outputs([one.output for one in together]),
            core_time_s=together[-1].core_time_s,
            weight_version=weight_version,
        )
