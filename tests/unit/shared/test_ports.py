"""Ports that are free now and that nobody else takes by chance."""

import socket

import pytest

from shared.errors import ConfigError
from shared.ports import FreePorts


def test_ports_are_different_and_free_when_they_are_let_go_of() -> None:
    with FreePorts() as ports:
        picked = [ports.pick("127.0.0.1") for _ in range(50)]
    assert len(set(picked)) == 50
    for port in picked:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


def test_no_port_is_one_that_outgoing_connections_get() -> None:
    with socket.socket() as listener, FreePorts() as ports:
        listener.bind(("127.0.0.1", 0))
        assert ports.pick("127.0.0.1") < 32_768 <= listener.getsockname()[1]


def test_a_host_that_is_not_here_is_refused_in_words() -> None:
    with FreePorts() as ports, pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        ports.pick("192.0.2.1")


def test_ports_in_a_row_are_all_free_and_no_other_call_gets_one_of_them() -> None:
    with FreePorts() as ports:
        rows = [ports.pick("127.0.0.1", 4) for _ in range(20)]

    taken = [first + at for first in rows for at in range(4)]
    assert len(set(taken)) == len(taken)
