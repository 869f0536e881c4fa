"""Compiles each grammar of structured output on trial, in a separate process.

The gateway forks the server before it has threads or an event loop, and the server forks once per
grammar. The kernel ends a process that exceeds its processor time or memory, and a process after
the gateway has closed its connection.
"""

import fcntl
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import orjson
import setproctitle
import xgrammar
from vllm.config import VllmConfig
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.structured_output.backend_guidance import GuidanceBackend
from vllm.v1.structured_output.backend_outlines import OutlinesBackend
from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend
from vllm.v1.structured_output.request import get_structured_output_key

from services.gateway.grammar_limits import GrammarLimits
from shared.parent import end_with_parent

_LENGTH_BYTES: Final = 8
_LONGEST_MESSAGE: Final = 64 * 1024
_NICER: Final = 5  # than the gateway: its streams go first
_OTHER_BACKENDS: Final = {"guidance": GuidanceBackend, "outlines": OutlinesBackend}

# Makes vLLM's configuration from the folder or hub name of the model.
Configure = Callable[[str], VllmConfig]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrammarServer:
    """The gateway's end of the server, which ends when `control` is closed."""

    control: socket.socket

    def __enter__(self) -> "GrammarServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.control.close()

    def prepare(self, model: str) -> None:
        """Makes the server load the tokenizer; the first check waits for it."""
        self.control.send(orjson.dumps({"model": model}))

    def connect(self) -> socket.socket:
        """A connection to a process for one grammar. Raises OSError where the server has ended."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self.control, [b"{}"], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        return ours


def fork_server(
    configure: Configure, limits: GrammarLimits, to_close: socket.socket
) -> GrammarServer:
    """Forks the server. This process must have no event loop, nor threads that hold locks."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent_pid = os.getpid()
    if os.fork() == 0:
        try:
            ours.close()
            to_close.close()
            end_with_parent(parent_pid)
            _serve(theirs, configure, limits)
        finally:
            os._exit(1)
    theirs.close()
    return GrammarServer(control=ours)


def _serve(control: socket.socket, configure: Configure, limits: GrammarLimits) -> NoReturn:
    setproctitle.setproctitle("slos-serve grammars")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # it ends with its gateway
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps its children
    logging.disable(logging.CRITICAL)  # what clients send is answered, not logged
    os.nice(_NICER)
    compiler: _Compiler | None = None
    while True:
        message, descriptors, *_ = socket.recv_fds(control, _LONGEST_MESSAGE, 1)
        if not message:
            os._exit(0)
        if not descriptors:
            compiler = _Compiler(configure(orjson.loads(message)["model"]))
        for descriptor in descriptors:
            if compiler is not None and os.fork() == 0:
                _work(compiler, socket.socket(fileno=descriptor), limits)
            os.close(descriptor)


def _work(compiler: "_Compiler", connection: socket.socket, limits: GrammarLimits) -> NoReturn:
    try:
        asked = _read(connection)
        _end_with_peer(connection)
        signal.setitimer(signal.ITIMER_PROF, limits.time_s)  # its signal ends the process
        memory_bytes = _data_bytes() + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
        answer = orjson.dumps(compiler.check(orjson.loads(asked)))
        connection.sendall(answer)
    finally:
        os._exit(0)


def _end_with_peer(connection: socket.socket) -> None:
    """Has the kernel send SIGIO, which ends this process, once the gateway closes its end."""
    descriptor = connection.fileno()
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)
    with suppress(BlockingIOError):  # nothing to read: the other end is open
        if not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
            os._exit(0)  # it closed before O_ASYNC was set


def _read(connection: socket.socket) -> bytes:
    stream = connection.makefile("rb")
    length = int.from_bytes(stream.read(_LENGTH_BYTES), "big")
    return stream.read(length)


def framed(message: bytes) -> bytes:
    """`message` with its length in front, as a process of the server reads it."""
    return len(message).to_bytes(_LENGTH_BYTES, "big") + message


def _data_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


def _tokens_alone(tokens: Any, **_: Any) -> Any:
    return tokens


class _Compiler:
    """Runs vLLM's own checks, then its compilation with a single thread."""

    def __init__(self, config: VllmConfig) -> None:
        self._config = config
        self._tokenizer = cached_tokenizer_from_config(model_config=config.model_config)
        self._vocabulary = config.model_config.get_vocab_size()
        # A compiler's threads do not survive a fork, so each process makes its own compiler.
        self._make_compiler = xgrammar.GrammarCompiler
        setattr(xgrammar, "GrammarCompiler", _tokens_alone)  # noqa: B010 - a type to mypy
        self._xgrammar = self._backend(XgrammarBackend)
        setattr(xgrammar, "GrammarCompiler", self._make_compiler)  # noqa: B010 - the same
        self._tokens = self._xgrammar.compiler

    def check(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields to send to an engine under `params`, or a text under `error`."""
        try:
            asked = StructuredOutputsParams(**fields)
            params = SamplingParams(structured_outputs=asked)
            params._validate_structured_outputs(
                self._config.model_config, self._config.structured_outputs_config, self._tokenizer
            )
            checked = params.structured_outputs
            self._compile(checked)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client's grammar caused it
            return {"error": str(error) or type(error).__name__}
        return {"params": vars(checked)}

    def _compile(self, asked: StructuredOutputsParams) -> None:
        kind, text = get_structured_output_key(asked)
        if asked._backend in _OTHER_BACKENDS:
            backend = self._backend(_OTHER_BACKENDS[asked._backend])
        else:
            backend = self._xgrammar
            backend.compiler = self._make_compiler(self._tokens, max_threads=1, cache_enabled=False)
        grammar = backend.compile_grammar(kind, text)
        allowed = backend.allocate_token_bitmask(1)
        grammar.fill_bitmask(allowed, 0)
        if not allowed.any():
            raise ValueError("no text fits this")

    def _backend(self, kind: Any) -> Any:
        return kind(self._config, tokenizer=self._tokenizer, vocab_size=self._vocabulary)
