from hypothesis import given
from hypothesis import strategies as st

from shared.kv_transfer.leases import LeaseEnd, LeaseTable


def granted(*request_ids: str, expires_at_s: float = 30.0) -> LeaseTable:
    table = LeaseTable(extension_s=20.0)
    table.expect(request_ids)
    for request_id in request_ids:
        table.grant(request_id, expires_at_s=expires_at_s)
    return table


def test_a_confirmed_lease_ends_and_cannot_be_confirmed_again() -> None:
    table = granted("a")

    assert table.confirm("a", readers=1)
    assert not table.confirm("a", readers=1)
    assert table.take_ended(now=0.0) == [("a", LeaseEnd.READ)]
    assert len(table) == 0


def test_a_lease_lasts_until_the_last_of_its_readers_has_confirmed() -> None:
    table = granted("a")

    assert table.confirm("a", readers=2)
    assert table.take_ended(now=0.0) == []
    assert table.confirm("a", readers=2)
    assert table.take_ended(now=0.0) == [("a", LeaseEnd.READ)]


def test_what_expired_is_never_confirmed_once_its_blocks_may_be_free() -> None:
    table = granted("a", expires_at_s=10.0)

    assert table.take_ended(now=10.0) == [("a", LeaseEnd.EXPIRED)]
    assert not table.is_held("a")
    assert not table.confirm("a", readers=1)


def test_a_renewal_lengthens_a_lease_and_never_shortens_it() -> None:
    table = granted("a", "b", expires_at_s=30.0)

    table.renew(["a", "unknown"], now=25.0)
    table.renew(["b"], now=1.0)

    assert table.take_ended(now=31.0) == [("b", LeaseEnd.EXPIRED)]
    assert table.take_ended(now=45.0) == [("a", LeaseEnd.EXPIRED)]


def test_a_prompt_that_is_still_computed_is_held_and_its_blocks_are_freed_after_the_grant() -> None:
    table = LeaseTable(extension_s=20.0)
    table.expect(["read", "released"])

    assert table.confirm("read", readers=1)
    table.release(["released"])
    assert table.take_ended(now=1e9) == []
    table.grant("read", expires_at_s=2e9)
    table.grant("released", expires_at_s=2e9)

    assert sorted(table.take_ended(now=1e9)) == [
        ("read", LeaseEnd.READ),
        ("released", LeaseEnd.RELEASED),
    ]


def test_an_aborted_prompt_is_forgotten_and_its_late_grant_ignored() -> None:
    table = LeaseTable(extension_s=20.0)
    table.expect(["a"])
    table.forget(["a"])
    table.grant("a", expires_at_s=1.0)

    assert table.take_ended(now=5.0) == []
    assert not table.confirm("a", readers=1)


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["expect", "grant", "confirm", "release", "renew", "forget", "reap"]),
        st.sampled_from("abc"),
    ),
    max_size=60,
)


@given(acts=ACTS)
def test_every_granted_lease_ends_exactly_once_and_no_confirmation_follows_its_end(
    acts: list[tuple[str, str]],
) -> None:
    table, ended, granted_ids, life = (
        LeaseTable(extension_s=2.0),
        [],
        set(),
        dict.fromkeys("abc", 0),
    )
    for now, (act, name) in enumerate(acts):
        request_id = f"{name}{life[name]}"
        if act == "expect" and request_id not in granted_ids:  # ids of requests never come again
            table.expect([request_id])
        elif act == "grant" and table.is_held(request_id):
            table.grant(request_id, expires_at_s=now + 3.0)
            granted_ids.add(request_id)
        elif act == "confirm":
            held = table.confirm(request_id, readers=1)
            assert not (held and request_id in ended)
        elif act == "release":
            table.release([request_id])
        elif act == "renew":
            table.renew([request_id], float(now))
        elif act == "forget" and request_id not in granted_ids:
            table.forget([request_id])
            life[name] += 1
        elif act == "reap":
            ended += [one for one, _ in table.take_ended(float(now))]
    ended += [one for one, _ in table.take_ended(1e9)]

    assert len(ended) == len(set(ended))
    assert granted_ids <= set(ended)
