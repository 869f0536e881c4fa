"""Converts engine views, decisions and scale advice to protocol messages and back."""

from shared.engines import EngineView, ScaleAdvice
from shared.requests import Explanation, PlacementMode, PlacementOption, StepSums
from shared.rpc import codec
from shared.rpc import slos_pb2 as pb


def view_to_wire(view: EngineView) -> pb.EngineView:
    return pb.EngineView(
        description=codec.description_to_wire(view.description),
        draining=view.draining,
        running=view.running,
        waiting=view.waiting,
        free_kv_blocks=view.free_kv_blocks,
        stalled=view.stalled,
    )


def view_from_wire(wire: pb.EngineView) -> EngineView:
    return EngineView(
        description=codec.description_from_wire(wire.description),
        draining=wire.draining,
        running=wire.running,
        waiting=wire.waiting,
        free_kv_blocks=wire.free_kv_blocks,
        stalled=wire.stalled,
    )


def considered_to_wire(considered: PlacementOption) -> pb.Option:
    return pb.Option(
        way=considered.way.value,
        prefill=considered.prefill or "",
        decode=considered.decode or "",
        queue_s=considered.queue_s,
        prefill_s=considered.prefill_s,
        transfer_s=considered.transfer_s,
        decode_s=considered.decode_s,
        ttft_s=considered.ttft_s,
        tpot_s=considered.tpot_s,
        finish_s=considered.finish_s,
        rejected=considered.rejected,
        source=considered.source or "",
        cached_tokens=considered.cached_tokens,
    )


def considered_from_wire(wire: pb.Option) -> PlacementOption:
    return PlacementOption(
        way=PlacementMode(wire.way),
        prefill=wire.prefill or None,
        decode=wire.decode or None,
        queue_s=wire.queue_s if wire.HasField("queue_s") else None,
        prefill_s=wire.prefill_s if wire.HasField("prefill_s") else None,
        transfer_s=wire.transfer_s if wire.HasField("transfer_s") else None,
        decode_s=wire.decode_s if wire.HasField("decode_s") else None,
        ttft_s=wire.ttft_s if wire.HasField("ttft_s") else None,
        tpot_s=wire.tpot_s if wire.HasField("tpot_s") else None,
        finish_s=wire.finish_s if wire.HasField("finish_s") else None,
        rejected=wire.rejected,
        source=wire.source or None,
        cached_tokens=wire.cached_tokens,
    )


def sums_to_wire(sums: StepSums) -> pb.StepSums:
    return pb.StepSums(
        engine=sums.engine,
        steps=sums.steps,
        real_s=sums.real_s,
        expected_s=sums.expected_s,
        sure_s=sums.sure_s,
        beyond_sure=sums.beyond_sure,
        worst_excess_s=sums.worst_excess_s,
        prefill_tokens=sums.prefill_tokens,
        decode_tokens=sums.decode_tokens,
    )


def sums_from_wire(wire: pb.StepSums) -> StepSums:
    return StepSums(
        engine=wire.engine,
        steps=wire.steps,
        real_s=wire.real_s,
        expected_s=wire.expected_s,
        sure_s=wire.sure_s,
        beyond_sure=wire.beyond_sure,
        worst_excess_s=wire.worst_excess_s,
        prefill_tokens=wire.prefill_tokens,
        decode_tokens=wire.decode_tokens,
    )


def explanation_to_wire(explanation: Explanation) -> pb.ExplainReply:
    outcome, transfer = explanation.outcome, explanation.transfer
    before, after = explanation.before_first, explanation.after_first
    return pb.ExplainReply(
        found=True,
        query=codec.query_to_wire(explanation.query),
        placement=codec.placement_to_wire(explanation.placement),
        decided_at_epoch_s=explanation.decided_at_epoch_s,
        options=[considered_to_wire(considered) for considered in explanation.ways],
        outcome=None if outcome is None else codec.outcome_to_wire(outcome),
        before_first=None if before is None else sums_to_wire(before),
        after_first=None if after is None else sums_to_wire(after),
        transfer=None if transfer is None else codec.transfer_to_wire(transfer),
    )


def explanation_from_wire(wire: pb.ExplainReply) -> Explanation:
    return Explanation(
        query=codec.query_from_wire(wire.query),
        placement=codec.placement_from_wire(wire.placement),
        decided_at_epoch_s=wire.decided_at_epoch_s,
        ways=tuple(considered_from_wire(option) for option in wire.options),
        outcome=codec.outcome_from_wire(wire.outcome) if wire.HasField("outcome") else None,
        before_first=sums_from_wire(wire.before_first) if wire.HasField("before_first") else None,
        after_first=sums_from_wire(wire.after_first) if wire.HasField("after_first") else None,
        transfer=codec.transfer_from_wire(wire.transfer) if wire.HasField("transfer") else None,
    )


def scale_to_wire(advice: ScaleAdvice) -> pb.ScaleAdvice:
    return pb.ScaleAdvice(
        desired_prefill=advice.desired_prefill,
        desired_decode=advice.desired_decode,
        present_prefill=advice.present_prefill,
        present_decode=advice.present_decode,
        window_s=advice.window_s,
        reason=advice.reason,
    )


def scale_from_wire(wire: pb.ScaleAdvice) -> ScaleAdvice:
    return ScaleAdvice(
        desired_prefill=wire.desired_prefill,
        desired_decode=wire.desired_decode,
        present_prefill=wire.present_prefill,
        present_decode=wire.present_decode,
        window_s=wire.window_s,
        reason=wire.reason,
    )
