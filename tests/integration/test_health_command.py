"""`slos-serve health` against real servers on loopback."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from shared.errors import ConfigError
from shared.rpc.health import main

Reply = health_pb2.HealthCheckResponse


@contextmanager
def grpc_service(status: int) -> Iterator[str]:
    servicer = health.HealthServicer()
    servicer.set("", status)
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait(10)


@contextmanager
def http_service(status: int) -> Iterator[str]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/ready"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.mark.parametrize(("status", "exit_status"), [(Reply.SERVING, 0), (Reply.NOT_SERVING, 1)])
def test_the_exit_status_is_what_the_grpc_service_says(status: int, exit_status: int) -> None:
    with grpc_service(status) as address:
        assert main([address]) == exit_status


@pytest.mark.parametrize(("status", "exit_status"), [(200, 0), (503, 1)])
def test_the_exit_status_is_what_the_page_says(status: int, exit_status: int) -> None:
    with http_service(status) as url:
        assert main([url]) == exit_status


@pytest.mark.parametrize("address", ["127.0.0.1:9", "http://127.0.0.1:9/ready"])
def test_a_closed_port_does_not_serve(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([address]) == 1
    assert capsys.readouterr().out.startswith(address)


@pytest.mark.parametrize("words", [[], ["a:1", "b:2"], ["--port=1"]])
def test_anything_but_one_address_is_an_error(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="one address"):
        main(words)
