from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kv_transfer.pairs import Pairs, facing, usable
from shared.kv_transfer.settings import PORT_KEY, HolderPort, KvTransport, fault_in
from shared.kv_transfer.tuning import NIXL_AGAIN_S

PORT = HolderPort(host="10.0.0.7", port=8400, carriers=("nixl", "zmq"))


def transfer(**changes: Any) -> dict[str, Any]:
    return {
        "do_remote_prefill": True,
        "do_remote_decode": False,
        "remote_engine_id": "e1",
        "remote_request_id": "r1",
        "remote_host": "10.0.0.7",
        "remote_port": 8500,
        "tp_size": 1,
        "remote_num_tokens": 40,
        "remote_block_ids": [[1, 2]],
        PORT_KEY: PORT.as_plain(),
        **changes,
    }


def test_what_a_prefill_engine_says_is_accepted() -> None:
    assert fault_in(transfer()) is None
    assert fault_in({"do_remote_decode": True}) is None
    assert fault_in(None) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"remote_engine_id": None},
        {"remote_request_id": 7},
        {"remote_port": "8500"},
        {"remote_num_tokens": -1},
        {"remote_block_ids": None},
        {"remote_block_ids": [["a"]]},
        {"remote_block_ids": [[-1]]},
        {"tp_size": True},
        {"do_remote_decode": True},
        {PORT_KEY: {"host": "h", "port": 0, "carriers": []}},
        {PORT_KEY: None},
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any]) -> None:
    (name,) = changes

    assert name in (fault_in(transfer(**changes)) or "")


def test_params_that_only_ask_for_a_transfer_are_refused() -> None:
    assert fault_in({"do_remote_prefill": True}) is not None
    assert fault_in([1]) is not None


def carrier(pairs: Pairs, theirs: tuple[str, ...], now: float, *, connected: bool) -> str | None:
    return pairs.carrier("e1", theirs, nixl_is_connected=connected, now=now)


def test_with_auto_zmq_carries_until_nixl_is_connected_and_after_it_failed() -> None:
    pairs, both = Pairs(KvTransport.AUTO), ("nixl", "zmq")

    assert carrier(pairs, both, 0.0, connected=False) == "zmq"
    assert carrier(pairs, both, 1.0, connected=True) == "nixl"
    pairs.nixl_failed("e1", 2.0)
    assert carrier(pairs, both, 3.0, connected=True) == "zmq"
    assert carrier(pairs, both, 2.0 + NIXL_AGAIN_S, connected=True) == "nixl"


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (KvTransport.AUTO, ("zmq",), "zmq"),
        (KvTransport.AUTO, ("nixl",), "nixl"),
        (KvTransport.NIXL, ("nixl", "zmq"), "nixl"),
        (KvTransport.ZMQ, ("nixl", "zmq"), "zmq"),
        (KvTransport.ZMQ, ("nixl",), None),
        (KvTransport.NONE, ("nixl", "zmq"), None),
    ],
)
def test_a_pair_uses_what_both_speak(
    ours: KvTransport, theirs: tuple[str, ...], expected: str | None
) -> None:
    assert carrier(Pairs(ours), theirs, 0.0, connected=False) == expected


@pytest.mark.parametrize(
    ("theirs", "ours", "same", "expected"),
    [
        (("nixl", "zmq"), ("nixl", "zmq"), True, ("nixl", "zmq")),
        (("nixl", "zmq"), ("nixl", "zmq"), False, ("nixl",)),
        (("nixl", "zmq"), ("zmq",), False, ()),
        (("zmq",), ("nixl", "zmq"), True, ("zmq",)),
    ],
)
def test_engines_of_different_sizes_move_kv_by_nixl_alone(
    theirs: tuple[str, ...], ours: tuple[str, ...], same: bool, expected: tuple[str, ...]
) -> None:
    assert usable(theirs, ours, same_workers=same) == expected


@given(ours=st.integers(1, 16), theirs=st.integers(1, 16))
def test_all_workers_of_a_holder_hear_of_a_lease(ours: int, theirs: int) -> None:
    told = [facing(rank, ours=ours, theirs=theirs) for rank in range(ours)]

    assert {one for ranks in told for one in ranks} == set(range(theirs))
    assert all(told)
    assert ours != theirs or told == [[rank] for rank in range(ours)]


def test_settings_survive_as_plain_data() -> None:
    assert HolderPort.from_plain(PORT.as_plain()) == PORT
    assert HolderPort.from_plain("nothing of ours") is None
