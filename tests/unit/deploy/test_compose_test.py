from deploy.compose_test.dashboard import Expression
from deploy.compose_test.steps import listening_ports, sample_values

PAGE = """\
# HELP slos_kv_transfers_total KV transfers that ended
# TYPE slos_kv_transfers_total counter
slos_kv_transfers_total{engine="d0",transport="zmq",outcome="used"} 3.0
slos_kv_transfers_total{engine="d0",transport="nixl",outcome="used"} 4.0
slos_kv_transfers_total{engine="d0",transport="zmq",outcome="lost"} 5.0
slos_kv_transfers_created{engine="d0",transport="zmq",outcome="used"} 1.7e9
slos_inflight_requests 2.0
"""


def test_a_metric_is_read_by_its_name_and_labels() -> None:
    assert sample_values(PAGE, "slos_kv_transfers_total", transport="zmq", outcome="used") == [3.0]
    assert sample_values(PAGE, "slos_kv_transfers_total", transport="zmq") == [3.0, 5.0]
    assert sample_values(PAGE, "slos_inflight_requests") == [2.0]
    assert sample_values(PAGE, "slos_kv_transfers") == []


def test_ports_are_those_that_listen_beyond_loopback() -> None:
    table = """\
  sl  local_address rem_address   st tx_queue rx_queue
   0: 00000000:2008 00000000:0000 0A 00000000:00000000
   1: 040013AC:20D0 00000000:0000 0A 00000000:00000000
   2: 0100007F:901B 00000000:0000 0A 00000000:00000000
   3: 040013AC:9A73 050013AC:1F90 01 00000000:00000000
"""
    assert listening_ports(table) == {8200, 8400}


def test_an_expression_is_asked_over_a_given_interval() -> None:
    one = Expression(panel="p", text="rate(a[$__rate_interval])")

    assert one.over("2m") == "rate(a[2m])"
