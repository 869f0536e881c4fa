"""A process as the child of an actor: starts it, waits until it is ready, drains and ends it."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import services
from services.node.machine import memory_gib
from services.node.on_ray.config import FleetOptions
from services.node.on_ray.place import Here, config_path, secret_path
from services.node.plan import Part
from services.node.processes import Keeper, tail
from services.node.ready import IsReady, is_ready
from services.node.shares import share_cpu
from shared.clock import Clock
from shared.errors import DeadlinePassed, EngineLost
from shared.telemetry.log_files import append_to

_ASK_EVERY_S: Final = 0.5
_KILL_LIMIT_S: Final = 5.0
# Ray sets these for its own worker; engines would read them as the operator's.
_RAYS_OWN: Final = ("OMP_NUM_THREADS",)


@dataclass(slots=True)
class Supervised:
    """A running part. Its process group ends with the actor, also when that is killed."""

    part: Part
    keeper: Keeper
    process: "subprocess.Popen[bytes]"
    stopping: bool = False

    @classmethod
    def start(cls, part: Part, keeper: Keeper) -> "Supervised":
        part.log.parent.mkdir(parents=True, exist_ok=True)
        with append_to(part.log) as log:
            process = subprocess.Popen(
                part.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=child_environment(os.environ, part.environ),
                start_new_session=True,
            )
        keeper.add(process.pid)
        with suppress(ProcessLookupError):
            nice = os.getpriority(os.PRIO_PROCESS, 0) + part.nice
            os.setpriority(os.PRIO_PROCESS, process.pid, nice)
        return cls(part, keeper, process)

    async def until_ready(self, clock: Clock, limit_s: float, ask: IsReady = is_ready) -> None:
        """Waits until the part is ready. Raises EngineLost, with the end of its log, when it has
        ended, and DeadlinePassed.
        """
        until_s = clock.now() + limit_s
        while not await ask(self.part):
            self.raise_if_ended()
            if clock.now() > until_s:
                raise DeadlinePassed(
                    f"{self.part.name} was not ready after {limit_s:g} s. See {self.part.log}, "
                    "or give more time with --start-limit-s."
                )
            await clock.sleep(_ASK_EVERY_S)

    def raise_if_ended(self) -> None:
        status = self.process.poll()
        if status is not None:
            raise EngineLost(
                f"{self.part.name} ended with status {status}. The end of its log "
                f"({self.part.log}):\n{tail(self.part.log)}"
            )

    def stop(self) -> None:
        """Sends SIGTERM, waits for the drain, then sends SIGKILL to the group. Idempotent."""
        self.stopping = True
        with suppress(ProcessLookupError):
            self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(self.part.stop_limit_s)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_KILL_LIMIT_S)
        self.keeper.remove(self.process.pid)


def child_environment(own: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """The actor's environment, for the same packages and GPUs, with the part's variables."""
    kept = {key: value for key, value in own.items() if key not in _RAYS_OWN}
    roots = [str(Path(services.__file__).parents[1]), *filter(None, [own.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(roots), "PYTHONUNBUFFERED": "1", **wanted}


def here(fleet: FleetOptions, address: str) -> Here:
    """Describes this node, and writes the configuration and the secret to its run folder."""
    if fleet.config:
        _lay(config_path(fleet), fleet.config)
    if fleet.secret:
        _lay(Path(secret_path(fleet)), fleet.secret)
    if fleet.gpus_per_engine:
        return Here(address=address, kv_cache_gib=None)
    share = share_cpu([0], memory_gib(), 1, fleet.up.kv_cache_gib)[0]
    return Here(address=address, kv_cache_gib=share.kv_cache_gib)


def _lay(path: Path, text: str) -> None:
    """Writes a file atomically, since other actors of this node write it, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(f".{os.getpid()}")
    new.touch(mode=0o600)
    new.write_text(text)
    new.rename(path)


def end_actor_with(supervised: Supervised, *, after_s: float) -> None:
    """Ends the actor `after_s` after its process, so that Ray starts another one.

    Until then the actor can still report why.
    """

    def watch() -> None:
        supervised.process.wait()
        time.sleep(after_s)
        if not supervised.stopping:
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
