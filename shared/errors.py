"""Every error that slos-serve raises on purpose.

SlosError
├── ConfigError            the operator wrote what we cannot use; the message names the cure
├── InvalidRequest         the client wrote something we cannot use (400, with the field)
├── OverLimit              its tenant has had as much as it may (429, with the limit)
├── NotAllowed             its tenant may not ask for that (403, with what it may)
├── Refused                the planner said no, with numbers (429 or 503)
├── NoEngine               no engine can serve this now (503)
├── Overloaded             this process has as much to do as it may (503)
├── EngineLost             an engine went away while it served the request (502)
│   ├── EngineUnreachable  it could not be reached, so the request never got there
│   ├── EngineStalled      it made no progress with the work that it holds
│   └── AnswerDiverged     another engine, asked again, gave other tokens than were delivered
├── EngineDraining         the engine takes nothing new because it is being stopped (503)
├── PlannerUnavailable     the planner cannot be reached
├── UnknownDecision        the planner does not remember this decision
├── RegistrationRefused    the planner will not have this engine, and says why
│   └── EngineReplaced     an engine that started later has taken over its name
└── DeadlinePassed         a wait reached its limit
"""


class SlosError(Exception):
    """The root: anything of ours that a caller may want to catch."""


class ConfigError(SlosError):
    """The operator wrote something we cannot use; the message names the cure."""


class InvalidRequest(SlosError):
    """The client wrote something we cannot use.

    `param` is the field as the client knows it (`slo.ttft_ms`, `x-slo-tpot-ms`).
    """

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param


class OverLimit(SlosError):
    """A tenant has had as much as it may; `limit` is the option that says how much that is."""

    def __init__(self, message: str, *, limit: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after_s = retry_after_s


class NotAllowed(SlosError):
    """A tenant asked for what is not open to it; `param` is the field, as of InvalidRequest."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param


class Refused(SlosError):
    """The planner said no.

    `reason` is machine-readable (`compute`, `memory`, `never`); `retry_after_s` is None when a
    retry is of no use.
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
    """This process has as much to do as it may; another one may have less."""


class EngineLost(SlosError):
    """An engine went away while it served the request."""


class EngineUnreachable(EngineLost):
    """No connection to the engine: the request never got there."""


class EngineStalled(EngineLost):
    """The engine made no progress with the work that it holds."""


class AnswerDiverged(EngineLost):
    """Asked again on another engine, the request gave other tokens than were delivered."""


class EngineDraining(SlosError):
    """The engine takes nothing new because it is being stopped."""


class PlannerUnavailable(SlosError):
    """The planner cannot be reached."""


class UnknownDecision(SlosError):
    """The planner does not remember this decision; the message says how many it keeps."""


class RegistrationRefused(SlosError):
    """The planner will not have this engine, and says why."""


class EngineReplaced(RegistrationRefused):
    """An engine that started later has taken over its name: this one may not serve any more."""


class DeadlinePassed(SlosError):
    """A wait reached its limit."""
