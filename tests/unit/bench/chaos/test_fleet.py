"""Every way between the parts of a fleet leads over a link, and every request has an answer."""

from pathlib import Path

import pytest

from services.bench.chaos.fleet import Fleet, linked
from services.bench.chaos.requests import catalogue
from services.node.config import NodeOptions
from services.node.plan import Rank, Surroundings, plan_node
from services.node.ports import assign_ports
from shared.kv_transfer.settings import KvTransport


def fleet(transport: KvTransport = KvTransport.ZMQ, gateways: int = 2) -> Fleet:
    options = NodeOptions(prefill=1, decode=2, auto_ports=True, kv_transport=transport)
    around = Surroundings(model="m", model_is_local=True, shares=[], run_dir=Path("/run"))
    ports = assign_ports(options)
    return linked(plan_node(options, ports, around), ports, gateways, transport)


def flag(command: tuple[str, ...], name: str) -> str:
    assert command.count(name) == 1
    return command[command.index(name) + 1]


def test_every_part_reaches_the_planner_over_a_link_of_its_own() -> None:
    one = fleet()
    told = [
        flag(part.command, "--planner") for part in one.plan.parts if part.rank is not Rank.PLANNER
    ]

    assert one.plan.planner not in told
    assert len(set(told)) == len(told) == 5
    links = {f"{link.here[0]}:{link.here[1]}": link for link in one.links}
    there = {f"{links[address].there[0]}:{links[address].there[1]}" for address in told}
    assert there == {one.plan.planner}


def test_every_engine_is_reached_over_links() -> None:
    one = fleet()

    for part in one.engines:
        for kind, port, host in (
            ("to", "--port", "--advertise-host"),
            ("to the KV of", "--kv-port", "--kv-advertise-host"),
        ):
            link = one.link(f"{kind} {part.name}")
            assert link.here == (flag(part.command, host), int(flag(part.command, port)))
            assert link.there == ("127.0.0.1", link.here[1])


def test_kv_over_nixl_has_no_link() -> None:
    assert not [link for link in fleet(KvTransport.AUTO).links if "KV" in link.name]


@pytest.mark.parametrize("count", [1, 3])
def test_gateways_have_names_logs_and_ports_of_their_own(count: int) -> None:
    gateways = fleet(gateways=count).gateways

    assert len({part.name for part in gateways}) == count
    assert len({part.log for part in gateways}) == count
    assert len({part.address for part in gateways}) == count
    for part in gateways:
        assert part.address.endswith(f":{flag(part.command, '--port')}")


def test_a_seed_makes_the_same_requests_of_all_routes_and_a_salt_changes_no_prompt() -> None:
    requests = catalogue("m", 40, seed=3)

    assert requests == catalogue("m", 40, seed=3)
    assert requests != catalogue("m", 40, seed=4)
    assert {one.path for one in requests} == {
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
    }
    salted = requests[0].once("salt")
    assert {key: value for key, value in salted.items() if key != "cache_salt"} == requests[0].body
