"""NIXL as vLLM's connector calls it: prepared descriptor lists, one read, polled until done."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from services.bench.kv_layout import Bytes, KvLayout, Numbers
from shared.errors import DeadlinePassed, SlosError

_OURSELVES = "NIXL_INIT_AGENT"
_NOTICE = b"bench:1"


class TransferFailed(SlosError):
    """NIXL reported that a transfer failed."""


def set_ucx_environment(transports: str) -> dict[str, str]:
    """Sets UCX's environment; call it before NIXL is loaded. Returns all variables of UCX.

    Variables that the operator set stay as they are.
    """
    os.environ.setdefault("UCX_TLS", transports)
    os.environ.setdefault("UCX_RCACHE_MAX_UNRELEASED", "1024")  # as vLLM sets it
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith("UCX_")}


@dataclass(slots=True)
class NixlSide:
    """One agent with registered memory; both ends of a pair have one."""

    agent: Any
    layout: KvLayout
    memory: Bytes

    @classmethod
    def make(cls, name: str, layout: KvLayout, memory: Bytes, threads: int) -> "NixlSide":
        """Starts an agent. Raises TransferFailed if NIXL does not start with UCX's settings."""
        # UCX reads its environment when this is loaded: see set_ucx_environment
        from nixl._api import nixl_agent, nixl_agent_config

        from shared.kv_transfer.nixl_progress import let_progress_thread_sleep

        logging.getLogger("nixl").setLevel(logging.ERROR)
        let_progress_thread_sleep()  # as our engines do
        try:
            agent = nixl_agent(name, nixl_agent_config(num_threads=threads, capture_telemetry=True))
        except Exception as error:  # NIXL's errors have no common base class
            raise TransferFailed(
                f"NIXL does not start with UCX_TLS={os.environ.get('UCX_TLS')!r} ({error}): "
                "it needs a transport for messages too, such as tcp."
            ) from error
        side = cls(agent, layout, memory)
        whole = [(side.base_address, memory.nbytes, 0, "")]
        agent.register_memory(agent.get_reg_descs(whole, "DRAM"), backends=["UCX"])
        return side

    @property
    def base_address(self) -> int:
        return int(self.memory.ctypes.data)

    @property
    def metadata(self) -> bytes:
        return bytes(self.agent.get_agent_metadata())

    def prepare(self, peer: str, base_address: int) -> Any:
        descriptors = self.agent.get_xfer_descs(self.layout.table(base_address), "DRAM")
        return self.agent.prep_xfer_dlist(peer, descriptors)


@dataclass(slots=True)
class NixlReader:
    """The side that pulls. `now` is a clock in seconds."""

    side: NixlSide
    now: Callable[[], float]
    limit_s: float
    handshake_s: float
    _local: Any
    _remote: Any

    @classmethod
    def connect(
        cls,
        side: NixlSide,
        metadata: bytes,
        base_address: int,
        now: Callable[[], float],
        limit_s: float,
    ) -> "NixlReader":
        """Connects to the peer. Raises TransferFailed.

        `handshake_s` is the time from the peer's metadata to addressable blocks. It excludes UCX's
        connection, which is made by the first transfer.
        """
        local = side.prepare(_OURSELVES, side.base_address)
        started_at_s = now()
        try:
            peer = side.agent.add_remote_agent(metadata)
            remote = side.prepare(peer, base_address)
        except Exception as error:  # NIXL's errors have no common base class
            raise TransferFailed(
                f"NIXL cannot reach the other process ({error}); look at UCX_TLS, now "
                f"{os.environ.get('UCX_TLS')!r}, and for UCX's words above."
            ) from error
        return cls(side, now, limit_s, now() - started_at_s, local, remote)

    def read(self, local: Numbers, remote: Numbers) -> float:
        """Pulls `remote` blocks into `local` ones; returns seconds.

        Raises DeadlinePassed and TransferFailed.
        """
        agent = self.side.agent
        started_at_s = self.now()
        handle = agent.make_prepped_xfer(
            "READ", self._local, local, self._remote, remote, notif_msg=_NOTICE
        )
        try:
            self._wait(handle, agent.transfer(handle), started_at_s + self.limit_s)
            return self.now() - started_at_s
        finally:
            agent.release_xfer_handle(handle)

    def _wait(self, handle: Any, state: str, until_s: float) -> None:
        while state != "DONE":
            if state == "ERR":
                raise TransferFailed("NIXL gave up a transfer; look for UCX's words above.")
            if self.now() > until_s:
                raise DeadlinePassed(f"NIXL moved nothing within {self.limit_s:g} s.")
            state = self.side.agent.check_xfer_state(handle)
