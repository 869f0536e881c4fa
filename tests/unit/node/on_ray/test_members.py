from services.node.on_ray.members import Member, Members
from services.node.on_ray.place import Service


def member(name: str) -> Member:
    return Member(
        name=name,
        service=Service.DECODE,
        address="10.0.0.1:1",
        node="n",
        actor_process=1,
        process=2,
    )


def test_a_member_is_known_while_it_is_heard_of_and_until_it_says_goodbye() -> None:
    members = Members()
    members.hear(member("b"), now=0.0)
    members.hear(member("a"), now=0.0)
    members.hear(member("b"), now=15.0)
    assert [one.name for one in members.known(now=15.0)] == ["a", "b"]
    assert [one.name for one in members.known(now=30.0)] == ["b"]
    members.forget("b")
    assert members.known(now=30.0) == []
