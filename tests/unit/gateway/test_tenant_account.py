import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.tenant_account import Account, Tenant
from shared.errors import NotAllowed, OverLimit


def account(**limits: int) -> Account:
    made = Account()
    made.change(Tenant(name="acme", **limits))  # type: ignore[arg-type]
    return made


def limit_of(one: Account, now: float) -> str:
    """The limit that keeps a request out; empty where it may come in, and ends at once."""
    try:
        with one.request(now):
            return ""
    except OverLimit as error:
        return error.limit if error.retry_after_s > 0 and "Tenant acme" in str(error) else "?"


@given(
    per_minute=st.integers(1, 50),
    gaps_s=st.lists(st.floats(0, 30), min_size=1, max_size=100),
)
def test_no_more_requests_come_in_than_the_minutes_allow(
    per_minute: int, gaps_s: list[float]
) -> None:
    one, now, came_in = account(requests_per_minute=per_minute), 0.0, 0
    for gap_s in gaps_s:
        now += gap_s
        came_in += limit_of(one, now) == ""

    assert came_in <= per_minute * (1 + now / 60) + 1e-6


@given(per_minute=st.integers(1, 1000), taken=st.integers(0, 5000))
def test_who_comes_back_when_told_to_comes_in(per_minute: int, taken: int) -> None:
    one = account(tokens_per_minute=per_minute)
    one.take_tokens(taken, 0.0)

    try:
        one.check_tokens(0.0)
        assert taken < per_minute
    except OverLimit as error:
        assert taken >= per_minute
        one.check_tokens(error.retry_after_s + 1e-6)


def test_requests_in_flight_are_limited_until_one_ends() -> None:
    one = account(requests_in_flight=1)

    with one.request(0.0):
        assert limit_of(one, 1.0) == "requests_in_flight"

    assert limit_of(one, 1.0) == ""


def test_a_request_that_was_kept_out_counts_nowhere() -> None:
    one = account(requests_per_minute=2, requests_in_flight=1)
    with one.request(0.0):
        assert limit_of(one, 0.0) == "requests_in_flight"

    assert limit_of(one, 0.0) == ""
    assert limit_of(one, 0.0) == "requests_per_minute"
    assert one.in_flight == 0


def test_tokens_that_are_given_back_are_there_again() -> None:
    one = account(tokens_per_minute=100)
    one.take_tokens(100, 0.0)
    assert limit_of(one, 0.0) == "tokens_per_minute"

    one.take_tokens(-100, 0.0)

    assert limit_of(one, 0.0) == ""


def test_a_changed_limit_keeps_what_was_taken() -> None:
    one = account(tokens_per_minute=100)
    one.take_tokens(90, 0.0)

    one.change(Tenant(name="acme", tokens_per_minute=50))

    assert limit_of(one, 0.0) == "tokens_per_minute"
    assert limit_of(one, 60.0) == ""


def test_without_limits_all_come_in() -> None:
    one = account()
    one.take_tokens(10**9, 0.0)

    assert {limit_of(one, 0.0) for _ in range(1000)} == {""}


def test_what_is_not_open_to_a_tenant_is_refused_with_what_is() -> None:
    tenant = Tenant(name="acme", classes=("chat", "batch"), models=("small",))
    tenant.check_class("chat")
    tenant.check_model("small")

    with pytest.raises(NotAllowed, match=r"'code'.*acme.*chat, batch") as found:
        tenant.check_class("code")
    assert found.value.param == "slo.class"
    with pytest.raises(NotAllowed, match=r"'large'.*small"):
        tenant.check_model("large")


@given(salts=st.lists(st.one_of(st.none(), st.text(max_size=8)), min_size=2, max_size=2))
def test_no_two_tenants_ever_have_the_same_salt(salts: list[str | None]) -> None:
    a, b = Tenant(name="a", cache_salt="a"), Tenant(name="b", cache_salt="b")

    assert a.salted(salts[0]) != b.salted(salts[1])


@given(salt=st.one_of(st.none(), st.text(max_size=8)))
def test_where_there_are_no_others_the_clients_own_salt_stays(salt: str | None) -> None:
    assert Tenant().salted(salt) == salt
