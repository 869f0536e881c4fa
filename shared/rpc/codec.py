"""Converts our types to protocol messages and back, field by field."""

from shared.engines import (
    Drafts,
    EngineDescription,
    KvAddress,
    KvTransfer,
    Policy,
    PrefixNews,
    Role,
    StepReport,
)
from shared.requests import (
    DEFAULT_TENANT,
    Admission,
    EngineRef,
    OnRefuse,
    Outcome,
    Pacing,
    Placement,
    PlacementMode,
    PlacementQuery,
    PrefixExport,
    PrefixSource,
    PromptHashes,
    Reason,
    SloTargets,
    Stage,
)
from shared.rpc import slos_pb2 as pb

_ROLE_TO_WIRE = {Role.PREFILL: pb.ROLE_PREFILL, Role.DECODE: pb.ROLE_DECODE}
_ROLE_FROM_WIRE = {wire: role for role, wire in _ROLE_TO_WIRE.items()}
_NOTHING = PrefixNews()


def description_to_wire(engine: EngineDescription) -> pb.EngineDescription:
    return pb.EngineDescription(
        name=engine.name,
        engine_id=engine.engine_id,
        role=_ROLE_TO_WIRE[engine.role],
        address=engine.address,
        model=engine.model,
        vllm_version=engine.vllm_version,
        block_size_tokens=engine.block_size_tokens,
        kv_blocks=engine.kv_blocks,
        kv_bytes_per_token=engine.kv_bytes_per_token,
        max_model_len_tokens=engine.max_model_len_tokens,
        max_running_requests=engine.max_running_requests,
        max_step_tokens=engine.max_step_tokens,
        max_speculation_tokens=engine.max_speculation_tokens,
        kv_address=None if engine.kv_address is None else _kv_address_to_wire(engine.kv_address),
        metrics_address=engine.metrics_address,
        step_time=engine.step_time,
        kv_addresses=[_kv_address_to_wire(one) for one in engine.kv_addresses],
        prefix_span_tokens=engine.prefix_span_tokens,
        adapter_slots=engine.adapter_slots,
    )


def _kv_address_to_wire(address: KvAddress) -> pb.KvAddress:
    return pb.KvAddress(transport=address.transport, host=address.host, port=address.port)


def description_from_wire(wire: pb.EngineDescription) -> EngineDescription:
    """Raises KeyError for an unknown role."""
    return EngineDescription(
        name=wire.name,
        engine_id=wire.engine_id,
        role=_ROLE_FROM_WIRE[wire.role],
        address=wire.address,
        model=wire.model,
        vllm_version=wire.vllm_version,
        block_size_tokens=wire.block_size_tokens,
        kv_blocks=wire.kv_blocks,
        kv_bytes_per_token=wire.kv_bytes_per_token,
        max_model_len_tokens=wire.max_model_len_tokens,
        max_running_requests=wire.max_running_requests,
        max_step_tokens=wire.max_step_tokens,
        max_speculation_tokens=wire.max_speculation_tokens,
        kv_address=_kv_address_from_wire(wire.kv_address) if wire.HasField("kv_address") else None,
        metrics_address=wire.metrics_address,
        step_time=wire.step_time,
        kv_addresses=tuple(_kv_address_from_wire(one) for one in wire.kv_addresses),
        prefix_span_tokens=wire.prefix_span_tokens,
        adapter_slots=wire.adapter_slots,
    )


def _kv_address_from_wire(wire: pb.KvAddress) -> KvAddress:
    return KvAddress(transport=wire.transport, host=wire.host, port=wire.port)


def targets_to_wire(targets: SloTargets) -> pb.SloTargets:
    return pb.SloTargets(
        class_name=targets.class_name,
        ttft_s=targets.ttft_s,
        ttft_slowdown=targets.ttft_slowdown,
        tpot_s=targets.tpot_s,
        stages=[pb.Stage(name=stage.name, tpot_s=stage.tpot_s) for stage in targets.stages],
        on_refuse=targets.on_refuse.value,
        value=targets.value,
        pacing=targets.pacing.value,
    )


def targets_from_wire(wire: pb.SloTargets) -> SloTargets:
    return SloTargets(
        class_name=wire.class_name,
        ttft_s=wire.ttft_s if wire.HasField("ttft_s") else None,
        ttft_slowdown=wire.ttft_slowdown if wire.HasField("ttft_slowdown") else None,
        tpot_s=wire.tpot_s if wire.HasField("tpot_s") else None,
        stages=tuple(Stage(name=stage.name, tpot_s=stage.tpot_s) for stage in wire.stages),
        on_refuse=OnRefuse(wire.on_refuse),
        value=wire.value,
        pacing=Pacing(wire.pacing or Pacing.MEAN),
    )


def query_to_wire(query: PlacementQuery) -> pb.PlacementQuery:
    return pb.PlacementQuery(
        request_id=query.request_id,
        group_id=query.group_id,
        session_id=query.session_id,
        model=query.model,
        targets=targets_to_wire(query.targets),
        prompt_tokens=query.prompt_tokens,
        max_output_tokens=query.max_output_tokens,
        waited_s=query.waited_s,
        forced_way=None if query.forced_way is None else query.forced_way.value,
        whole_on_one_engine=query.whole_on_one_engine,
        avoid=query.avoid,
        tenant=query.tenant,
        weight=query.weight,
        client_id=query.client_id,
        prompt_hashes=_hashes_to_wire(query.prompt_hashes),
        adapter=query.adapter,
    )


def query_from_wire(wire: pb.PlacementQuery) -> PlacementQuery:
    return PlacementQuery(
        request_id=wire.request_id,
        group_id=wire.group_id,
        session_id=wire.session_id if wire.HasField("session_id") else None,
        model=wire.model,
        targets=targets_from_wire(wire.targets),
        prompt_tokens=wire.prompt_tokens,
        max_output_tokens=wire.max_output_tokens,
        waited_s=wire.waited_s,
        forced_way=PlacementMode(wire.forced_way) if wire.HasField("forced_way") else None,
        whole_on_one_engine=wire.whole_on_one_engine,
        avoid=tuple(wire.avoid),
        tenant=wire.tenant if wire.HasField("tenant") else DEFAULT_TENANT,
        weight=wire.weight if wire.HasField("weight") else 1.0,
        client_id=wire.client_id,
        prompt_hashes=_hashes_from_wire(wire.prompt_hashes)
        if wire.HasField("prompt_hashes")
        else None,
        adapter=wire.adapter,
    )


def _hashes_to_wire(prompt: PromptHashes | None) -> pb.PromptHashes | None:
    if prompt is None:
        return None
    return pb.PromptHashes(span_tokens=prompt.span_tokens, hashes=prompt.hashes)


def _hashes_from_wire(wire: pb.PromptHashes) -> PromptHashes:
    return PromptHashes(span_tokens=wire.span_tokens, hashes=tuple(wire.hashes))


def _ref_to_wire(ref: EngineRef | None) -> pb.EngineRef | None:
    if ref is None:
        return None
    return pb.EngineRef(name=ref.name, engine_id=ref.engine_id, address=ref.address)


def _ref_from_wire(wire: pb.EngineRef) -> EngineRef:
    return EngineRef(name=wire.name, engine_id=wire.engine_id, address=wire.address)


def placement_to_wire(placement: Placement) -> pb.Placement:
    return pb.Placement(
        decision_id=placement.decision_id,
        admission=placement.admission.value,
        reason=placement.reason.value,
        message=placement.message,
        way=placement.way.value,
        prefill=_ref_to_wire(placement.prefill),
        decode=_ref_to_wire(placement.decode),
        ttft_s=placement.ttft_s,
        tpot_s=placement.tpot_s,
        predicted_ttft_s=placement.predicted_ttft_s,
        predicted_tpot_s=placement.predicted_tpot_s,
        grace_s=placement.grace_s,
        pace_share=placement.pace_share,
        delivery_s=placement.delivery_s,
        pacing=placement.pacing.value,
        hold_s=placement.hold_s,
        retry_after_s=placement.retry_after_s,
        prefix_source=_source_to_wire(placement.prefix_source),
    )


def placement_from_wire(wire: pb.Placement) -> Placement:
    return Placement(
        decision_id=wire.decision_id,
        admission=Admission(wire.admission),
        reason=Reason(wire.reason),
        message=wire.message,
        way=PlacementMode(wire.way),
        prefill=_ref_from_wire(wire.prefill) if wire.HasField("prefill") else None,
        decode=_ref_from_wire(wire.decode) if wire.HasField("decode") else None,
        ttft_s=wire.ttft_s if wire.HasField("ttft_s") else None,
        tpot_s=wire.tpot_s if wire.HasField("tpot_s") else None,
        predicted_ttft_s=wire.predicted_ttft_s if wire.HasField("predicted_ttft_s") else None,
        predicted_tpot_s=wire.predicted_tpot_s if wire.HasField("predicted_tpot_s") else None,
        grace_s=wire.grace_s,
        pace_share=wire.pace_share if wire.HasField("pace_share") else 1.0,
        delivery_s=wire.delivery_s,
        pacing=Pacing(wire.pacing or Pacing.MEAN),
        hold_s=wire.hold_s if wire.HasField("hold_s") else None,
        retry_after_s=wire.retry_after_s if wire.HasField("retry_after_s") else None,
        prefix_source=_source_from_wire(wire),
    )


def _source_to_wire(source: PrefixSource | None) -> pb.PrefixSource | None:
    if source is None:
        return None
    return pb.PrefixSource(
        engine=_ref_to_wire(source.engine),
        tokens=source.tokens,
        limit_s=source.limit_s,
        forecast_s=source.forecast_s,
    )


def _source_from_wire(wire: pb.Placement) -> PrefixSource | None:
    if not wire.HasField("prefix_source"):
        return None
    source = wire.prefix_source
    return PrefixSource(
        engine=_ref_from_wire(source.engine),
        tokens=source.tokens,
        limit_s=source.limit_s,
        forecast_s=source.forecast_s,
    )


def report_to_wire(report: StepReport) -> pb.StepReport:
    return pb.StepReport(
        step=report.step,
        ended_at_s=report.ended_at_s,
        duration_s=report.duration_s,
        prefill_tokens=report.prefill_tokens,
        decode_tokens=report.decode_tokens,
        decode_context_tokens=report.decode_context_tokens,
        speculated_tokens=report.speculated_tokens,
        accepted_tokens=report.accepted_tokens,
        running=report.running,
        waiting=report.waiting,
        queued_prefill_tokens=report.queued_prefill_tokens,
        free_kv_blocks=report.free_kv_blocks,
        kv_transfers_failed=report.kv_transfers_failed,
        finished=report.finished,
        longest_context_tokens=report.longest_context_tokens,
        chunks=report.chunks,
        earlier_tokens=report.earlier_tokens,
        attention_pairs=report.attention_pairs,
        longest_prompt_tokens=report.longest_prompt_tokens,
        predicted_s=report.predicted_s,
        busy_s=report.busy_s,
        late=report.late,
        worst_late_s=report.worst_late_s,
        evicted=report.evicted,
        drafts=[_drafts_to_wire(each) for each in report.drafts],
        requests=report.requests,
        shared_tokens=report.shared_tokens,
        step_time=report.step_time,
        kv_transfers=[transfer_to_wire(each) for each in report.kv_transfers],
        prefixes=_prefixes_to_wire(report.prefixes),
        adapters=report.adapters,
    )


def _prefixes_to_wire(news: PrefixNews) -> pb.PrefixNews | None:
    if not news:
        return None
    return pb.PrefixNews(stored=news.stored, removed=news.removed, anew=news.anew)


def _prefixes_from_wire(wire: pb.PrefixNews) -> PrefixNews:
    return PrefixNews(stored=tuple(wire.stored), removed=tuple(wire.removed), anew=wire.anew)


def report_from_wire(wire: pb.StepReport) -> StepReport:
    return StepReport(
        step=wire.step,
        ended_at_s=wire.ended_at_s,
        duration_s=wire.duration_s,
        prefill_tokens=wire.prefill_tokens,
        decode_tokens=wire.decode_tokens,
        decode_context_tokens=wire.decode_context_tokens,
        speculated_tokens=wire.speculated_tokens,
        accepted_tokens=wire.accepted_tokens,
        running=wire.running,
        waiting=wire.waiting,
        queued_prefill_tokens=wire.queued_prefill_tokens,
        free_kv_blocks=wire.free_kv_blocks,
        kv_transfers_failed=wire.kv_transfers_failed,
        finished=tuple(wire.finished),
        longest_context_tokens=wire.longest_context_tokens,
        chunks=wire.chunks,
        earlier_tokens=wire.earlier_tokens,
        attention_pairs=wire.attention_pairs,
        longest_prompt_tokens=wire.longest_prompt_tokens,
        predicted_s=wire.predicted_s,
        busy_s=wire.busy_s,
        late=wire.late,
        worst_late_s=wire.worst_late_s,
        evicted=wire.evicted,
        drafts=tuple(_drafts_from_wire(each) for each in wire.drafts),
        requests=wire.requests,
        shared_tokens=wire.shared_tokens,
        step_time=wire.step_time,
        kv_transfers=tuple(transfer_from_wire(each) for each in wire.kv_transfers),
        prefixes=_prefixes_from_wire(wire.prefixes) if wire.HasField("prefixes") else _NOTHING,
        adapters=tuple(wire.adapters),
    )


def transfer_to_wire(transfer: KvTransfer) -> pb.KvTransfer:
    return pb.KvTransfer(
        request_id=transfer.request_id,
        peer_engine_id=transfer.peer_engine_id,
        transport=transfer.transport,
        bytes=transfer.bytes,
        seconds=transfer.seconds,
        outcome=transfer.outcome,
    )


def transfer_from_wire(wire: pb.KvTransfer) -> KvTransfer:
    return KvTransfer(
        request_id=wire.request_id,
        peer_engine_id=wire.peer_engine_id,
        transport=wire.transport,
        bytes=wire.bytes,
        seconds=wire.seconds,
        outcome=wire.outcome,
    )


def _drafts_to_wire(drafts: Drafts) -> pb.Drafts:
    return pb.Drafts(
        class_name=drafts.class_name,
        verifications=drafts.verifications,
        drafted_tokens=drafts.drafted_tokens,
        accepted_tokens=drafts.accepted_tokens,
    )


def _drafts_from_wire(wire: pb.Drafts) -> Drafts:
    return Drafts(
        class_name=wire.class_name,
        verifications=wire.verifications,
        drafted_tokens=wire.drafted_tokens,
        accepted_tokens=wire.accepted_tokens,
    )


def policy_to_wire(policy: Policy) -> pb.Policy:
    return pb.Policy(
        version=policy.version,
        max_step_tokens=policy.max_step_tokens,
        speculation_tokens=policy.speculation_tokens,
        speculation_by_class=policy.speculation_by_class,
        longest_step_s=policy.longest_step_s,
        kept_blocks=policy.kept_blocks,
    )


def policy_from_wire(wire: pb.Policy) -> Policy:
    return Policy(
        version=wire.version,
        max_step_tokens=wire.max_step_tokens,
        speculation_tokens=wire.speculation_tokens if wire.HasField("speculation_tokens") else None,
        speculation_by_class=dict(wire.speculation_by_class),
        longest_step_s=wire.longest_step_s,
        kept_blocks=wire.kept_blocks,
    )


def outcome_to_wire(outcome: Outcome) -> pb.Outcome:
    return pb.Outcome(
        decision_id=outcome.decision_id,
        request_id=outcome.request_id,
        finished=outcome.finished,
        output_tokens=outcome.output_tokens,
        ttft_s=outcome.ttft_s,
        tpot_s=outcome.tpot_s,
        met=outcome.met,
        recomputed=outcome.recomputed,
        message=outcome.message,
        transfer_s=outcome.transfer_s,
        held_s=outcome.held_s,
        queue_s=outcome.queue_s,
        prefill_s=outcome.prefill_s,
        stage_lateness=outcome.stage_lateness,
        moves=outcome.moves,
    )


def outcome_from_wire(wire: pb.Outcome) -> Outcome:
    return Outcome(
        decision_id=wire.decision_id,
        request_id=wire.request_id,
        finished=wire.finished,
        output_tokens=wire.output_tokens,
        ttft_s=wire.ttft_s if wire.HasField("ttft_s") else None,
        tpot_s=wire.tpot_s if wire.HasField("tpot_s") else None,
        met=wire.met if wire.HasField("met") else None,
        recomputed=wire.recomputed,
        message=wire.message,
        transfer_s=wire.transfer_s if wire.HasField("transfer_s") else None,
        held_s=wire.held_s if wire.HasField("held_s") else None,
        queue_s=wire.queue_s if wire.HasField("queue_s") else None,
        prefill_s=wire.prefill_s if wire.HasField("prefill_s") else None,
        stage_lateness=wire.stage_lateness if wire.HasField("stage_lateness") else None,
        moves=wire.moves,
    )


def export_to_wire(export: PrefixExport) -> pb.PrefixExport:
    return pb.PrefixExport(
        decision_id=export.decision_id, seconds=export.seconds, exported=export.exported
    )


def export_from_wire(wire: pb.PrefixExport) -> PrefixExport:
    return PrefixExport(decision_id=wire.decision_id, seconds=wire.seconds, exported=wire.exported)
