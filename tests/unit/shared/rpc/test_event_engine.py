from shared.rpc.event_engine import without_event_engine


def test_every_part_of_the_event_engine_is_off_unless_the_operator_says_else() -> None:
    ours: dict[str, str] = {}
    theirs = {"GRPC_EXPERIMENTS": "event_engine_client"}
    without_event_engine(ours)
    without_event_engine(theirs)

    assert all(part.startswith("-event_engine_") for part in ours["GRPC_EXPERIMENTS"].split(","))
    assert theirs == {"GRPC_EXPERIMENTS": "event_engine_client"}
