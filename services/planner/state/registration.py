"""Checks whether an engine may join the fleet; a refusal says what to change."""

from collections.abc import Iterable

from shared.engines import EngineDescription


def why_unfit(
    engine: EngineDescription,
    fleet: Iterable[EngineDescription],
    *,
    model: str | None,
    vllm_version: str | None,
) -> str | None:
    """Why the engine may not join; None when it may.

    `model` and `vllm_version` are the operator's; without them the attached engines set them.
    """
    others = [other for other in fleet if other.name != engine.name]
    for unfit in (
        _unusable(engine),
        _differs("model", engine.model, model, others[0].model if others else None),
        _differs(
            "vllm_version",
            engine.vllm_version,
            vllm_version,
            others[0].vllm_version if others else None,
        ),
        _other_blocks(engine, others),
    ):
        if unfit:
            return f"Engine {engine.name or '(without a name)'} is refused: {unfit}"
    return None


def _unusable(engine: EngineDescription) -> str | None:
    for field in ("name", "engine_id", "address"):
        if not getattr(engine, field):
            return f"its {field} is empty; give it one."
    for field in (
        "block_size_tokens",
        "kv_blocks",
        "max_model_len_tokens",
        "max_running_requests",
        "max_step_tokens",
    ):
        if getattr(engine, field) < 1:
            return f"its {field} is {getattr(engine, field)}; at least 1 is needed to serve."
    return None


def _differs(what: str, registered: str, demanded: str | None, serving: str | None) -> str | None:
    if demanded is not None and registered != demanded:
        return (
            f"it registered {what} {registered!r}, this planner was started for {demanded!r}. "
            "Start the engine with that one, or the planner with the engine's."
        )
    if serving is not None and registered != serving:
        return (
            f"it registered {what} {registered!r}, the engines attached here serve {serving!r}. "
            "Start the engine with that one, or attach it to a planner of its own."
        )
    return None


def _other_blocks(engine: EngineDescription, others: list[EngineDescription]) -> str | None:
    if not engine.transports:
        return None
    for other in others:
        if other.transports and other.block_size_tokens != engine.block_size_tokens:
            return (
                f"its KV blocks hold {engine.block_size_tokens} tokens, those of {other.name}, "
                f"with which it would exchange KV, hold {other.block_size_tokens}. "
                f"Start it with --block-size {other.block_size_tokens}."
            )
    return None
