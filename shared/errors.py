"""Every error that slos-serve raises on purpose.

SlosError
├── ConfigError            an option or a file is invalid; the message names the cure
├── InvalidRequest         a field of the request is invalid (400, with the field)
├── OverLimit              the tenant is at a limit (429, with the limit)
├── NotAllowed             the tenant may not ask for this (403, with what it may)
├── Refused                the planner refused the request, with numbers (429 or 503)
├── NoEngine               no engine can serve this now (503)
├── Overloaded             this process is at a limit (503)
├── EngineLost             an engine went away while it served the request (502)
│   ├── EngineUnreachable  it could not be reached, so the request never got there
│   ├── EngineStalled      it made no progress with the work that it holds
│   └── AnswerDiverged     another engine, asked again, gave other tokens than were delivered
├── EngineDraining         the engine takes no new requests because it is being stopped (503)
├── PlannerUnavailable     the planner cannot be reached
├── UnknownDecision        the planner has no record of this decision
├── RegistrationRefused    the planner refused this engine, with the reason
│   └── EngineReplaced     an engine that started later has taken over its name
└── DeadlinePassed         a wait reached its limit
"""


class SlosError(Exception):
    """The base of all errors that a caller may want to catch."""


class ConfigError(SlosError):
    """An option or a file is invalid; the message names the cure."""


class InvalidRequest(SlosError):
    """A field of the request is invalid.

    `param` is its name for the client (`slo.ttft_ms`, `x-slo-tpot-ms`).
    """

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param


class OverLimit(SlosError):
    """A tenant is at a limit; `limit` is the option that sets it."""

    def __init__(self, message: str, *, limit: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after_s = retry_after_s


class NotAllowed(SlosError):
    """A tenant may not ask for this; `param` is the field, as in InvalidRequest."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param


class Refused(SlosError):
    """The planner refused the request.

    `reason` is machine-readable (`compute`, `memory`, `never`); `retry_after_s` is None if a retry
    is of no use.
    """

    def __init__(
        self, message: str, *, reason: str, decision_id: str, retry_after_s: float | None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.decision_id = decision_id
        self.retry_after_s = retry_after_s


class NoEngine(SlosError):
    """No engine can serve this now."""


class Overloaded(SlosError):
    """This process is at a limit; another one may have room."""


class EngineLost(SlosError):
    """An engine went away while it served the request."""


class EngineUnreachable(EngineLost):
    """No connection to the engine: the request never got there."""


class EngineStalled(EngineLost):
    """The engine made no progress with the work that it holds."""


class AnswerDiverged(EngineLost):
    """Computed again on another engine, the answer differs from the delivered tokens."""


class EngineDraining(SlosError):
    """The engine takes no new requests because it is being stopped."""


class PlannerUnavailable(SlosError):
    """The planner cannot be reached."""


class UnknownDecision(SlosError):
    """The planner has no record of this decision; the message says how many it keeps."""


class RegistrationRefused(SlosError):
    """The planner refused this engine; the message says why."""


class EngineReplaced(RegistrationRefused):
    """An engine that started later has taken over its name: this one may not serve any more."""


class DeadlinePassed(SlosError):
    """A wait reached its limit."""
