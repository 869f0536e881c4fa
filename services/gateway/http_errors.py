"""Our errors as HTTP answers in the OpenAI shape."""

import math
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.types import Send

from services.gateway.report import milliseconds
from services.gateway.scope import RequestScope
from shared.errors import (
    DeadlinePassed,
    EngineDraining,
    EngineLost,
    InvalidRequest,
    NoEngine,
    NotAllowed,
    OverLimit,
    Overloaded,
    PlannerUnavailable,
    Refused,
    SlosError,
)
from shared.requests import Phase, Placement

MOST_OF_PARAM: Final = 200
FAULT: Final = (
    "The gateway failed on this request by a fault of its own; its log tells more. Other requests "
    "go on."
)
RawHeaders = list[tuple[bytes, bytes]]
_RETRY_SOON_S: Final = 1.0  # a process that drains is replaced at once, or another one answers


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpError:
    """An error answer: `code` is for programs, `message` for people, `slo` has the numbers."""

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    slo: dict[str, Any] | None = None

    def body(self, *, path: str = "") -> dict[str, Any]:
        """The answer as JSON; the Anthropic routes have an additional outer `type`."""
        error: dict[str, Any] = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        if self.slo is not None:
            error["slo"] = self.slo
        return {"type": "error", "error": error} if _is_anthropic(path) else {"error": error}

    def body_bytes(self, *, path: str = "") -> bytes:
        return orjson.dumps(self.body(path=path))

    def headers(self, body: bytes) -> RawHeaders:
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        if self.retry_after_s is not None:
            seconds = max(1, math.ceil(self.retry_after_s))
            headers.append((b"retry-after", str(seconds).encode()))
        return headers


# By class of error: status, type in vLLM's words, code.
_ANSWERS: Final[tuple[tuple[type[SlosError], int, str, str], ...]] = (
    (InvalidRequest, 400, "BadRequestError", "invalid_request"),
    (NotAllowed, 403, "PermissionDeniedError", "not_allowed"),
    (OverLimit, 429, "TooManyRequestsError", "rate_limit_exceeded"),
    (NoEngine, 503, "ServiceUnavailableError", "no_engine"),
    (Overloaded, 503, "ServiceUnavailableError", "gateway_full"),
    (EngineDraining, 503, "ServiceUnavailableError", "draining"),
    (PlannerUnavailable, 503, "ServiceUnavailableError", "planner_unavailable"),
    (EngineLost, 502, "BadGatewayError", "engine_lost"),
    (DeadlinePassed, 504, "GatewayTimeoutError", "deadline_passed"),
)
# By status, for errors of other handlers.
_KINDS: Final = {
    400: ("BadRequestError", "invalid_request"),
    401: ("AuthenticationError", "invalid_api_key"),
    403: ("PermissionDeniedError", "not_allowed"),
    404: ("NotFoundError", "not_found"),
    405: ("MethodNotAllowedError", "method_not_allowed"),
    413: ("BadRequestError", "body_too_large"),
    422: ("BadRequestError", "invalid_request"),
    429: ("TooManyRequestsError", "rate_limit_exceeded"),
    500: ("InternalServerError", "internal"),
    501: ("NotImplementedError", "not_implemented"),
    503: ("ServiceUnavailableError", "unavailable"),
}
_OTHER: Final = ("BadRequestError", "http_error")
_REFUSALS: Final = {
    "never": (400, "BadRequestError", "never_possible"),
    "no_engine": (503, "ServiceUnavailableError", "no_engine"),
    "planner_away": (503, "ServiceUnavailableError", "planner_unavailable"),
}
_REFUSED: Final = (429, "TooManyRequestsError", "refused")
_INTERNAL: Final = (500, "InternalServerError", "internal")


def from_failure(failure: SlosError, scope: RequestScope | None) -> HttpError:
    """The answer to a failure, with numbers from the placement of the sequence that failed."""
    placement = _failed_placement(failure, scope)
    status, kind, code = _answer(failure)
    return HttpError(
        status=status,
        type=kind,
        code=code,
        message=str(failure).strip() or type(failure).__name__,
        param=failure.param if isinstance(failure, (InvalidRequest, NotAllowed)) else None,
        retry_after_s=_retry_after_s(failure, placement),
        slo=_numbers(failure, placement),
    )


def draining() -> HttpError:
    return from_failure(
        EngineDraining("this gateway is being stopped and takes no new requests; send it again"),
        None,
    )


def too_large(limit_bytes: int) -> HttpError:
    why = f"the request body is larger than the {limit_bytes} bytes that this gateway takes"
    return _bad_request(413, "body_too_large", why)


def too_slow(limit_s: float) -> HttpError:
    why = f"the request body did not arrive within {limit_s:g} s"
    return _bad_request(408, "body_too_slow", why)


def head_too_large(limit_bytes: int) -> HttpError:
    why = f"the request's first line and headers are larger than {limit_bytes} bytes"
    return _bad_request(431, "headers_too_large", why)


def head_too_slow(limit_s: float) -> HttpError:
    why = f"the request's headers did not arrive within {limit_s:g} s"
    return _bad_request(408, "headers_too_slow", why)


def not_http(why: str) -> HttpError:
    return _bad_request(400, "invalid_http", why)


def too_complex(count: int, limit: int, what: str) -> HttpError:
    why = f"the request body holds {count} {what}; this gateway takes at most {limit}"
    return _bad_request(400, "body_too_complex", why, param="body")


def not_unicode(param: str) -> HttpError:
    shown = param[:MOST_OF_PARAM]
    why = f"{shown} holds half of a surrogate pair, which is no text"
    return _bad_request(400, "invalid_request", why, param=shown)


def full(of_what: str) -> HttpError:
    """This gateway is at a limit; another one may have room."""
    why = f"this gateway has no room: it takes no more than its {of_what}; send it again"
    return from_failure(Overloaded(why), None)


def fault() -> HttpError:
    return from_failure(SlosError(FAULT), None)


def kind_of(status: int) -> tuple[str, str]:
    """`type` and `code` of an error of which only the status is known."""
    return _KINDS.get(status, _OTHER)


async def send_error(
    send: Send, error: HttpError, *, path: str = "", headers: RawHeaders | None = None
) -> None:
    """Sends one complete error answer."""
    body = error.body_bytes(path=path)
    start = {
        "type": "http.response.start",
        "status": error.status,
        "headers": error.headers(body) + (headers or []),
    }
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _bad_request(status: int, code: str, why: str, param: str | None = None) -> HttpError:
    return HttpError(status=status, type="BadRequestError", code=code, message=why, param=param)


def _is_anthropic(path: str) -> bool:
    return path == "/v1/messages" or path.startswith("/v1/messages/")


def _answer(failure: SlosError) -> tuple[int, str, str]:
    if isinstance(failure, Refused):
        return _REFUSALS.get(failure.reason, _REFUSED)
    for kind, status, name, code in _ANSWERS:
        if isinstance(failure, kind):
            return status, name, code
    return _INTERNAL


def _failed_placement(failure: SlosError, scope: RequestScope | None) -> Placement | None:
    """The placement of the refused decision, else of a failed sequence, else the last one."""
    if scope is None:
        return None
    placed = [one for one in scope.sequences.values() if one.placement is not None]
    wanted = failure.decision_id if isinstance(failure, Refused) else None

    def fit(index: int) -> tuple[bool, bool, int]:
        placement = placed[index].placement
        same = placement is not None and placement.decision_id == wanted
        return same, placed[index].phase is Phase.FAILED, index

    return placed[max(range(len(placed)), key=fit)].placement if placed else None


def _retry_after_s(failure: SlosError, placement: Placement | None) -> float | None:
    if isinstance(failure, (Refused, OverLimit)):
        return failure.retry_after_s
    if isinstance(failure, (EngineDraining, Overloaded)):
        return _RETRY_SOON_S
    return placement.retry_after_s if placement else None


def _numbers(failure: SlosError, placement: Placement | None) -> dict[str, Any] | None:
    """`decision_id`, `reason` and whichever numbers are known."""
    numbers: dict[str, Any] = {}
    if placement is not None:
        numbers = {
            "decision_id": placement.decision_id,
            "admission": placement.admission.value,
            "reason": placement.reason.value,
            "predicted_ttft_ms": milliseconds(placement.predicted_ttft_s),
            "predicted_tpot_ms": milliseconds(placement.predicted_tpot_s),
        }
    if isinstance(failure, Refused):
        numbers |= {"decision_id": failure.decision_id, "reason": failure.reason}
    numbers["retry_after_ms"] = milliseconds(_retry_after_s(failure, placement))
    known = {name: value for name, value in numbers.items() if value is not None}
    return known if "decision_id" in known else None
