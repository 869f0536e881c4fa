import os
import subprocess
import sys

import pytest

from services.bench.answers import Answer
from services.bench.gateway_cpu import ProcessMissing, Server, cpu_in_turns, cpu_ms, pid_of
from shared.clock import VirtualClock


async def test_servers_are_asked_in_turns_and_what_they_spend_between_is_not_theirs() -> None:
    asked: list[str] = []

    def server(name: str, rounds: int) -> Server:
        async def ask() -> Answer:
            asked.append(name)
            sum(range(rounds))
            return Answer(first_s=0.0, last_s=1.0, tokens=2)

        return Server(ask=ask, pid=os.getpid())

    servers = {"idle": server("idle", 1), "busy": server("busy", 3_000_000)}

    spent = await cpu_in_turns(servers, 3, VirtualClock())

    assert asked == ["idle", "busy"] * (len(asked) // 2)
    assert spent["idle"].p50_ms < spent["busy"].p50_ms


def test_a_process_is_found_by_its_whole_command_line() -> None:
    command = [sys.executable, "-c", "print(flush=True); input()", "a word"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()  # before it runs, it has the command line of this test

        assert pid_of(command) == process.pid
        assert cpu_ms(process.pid) > 0
        with pytest.raises(ProcessMissing, match="another word"):
            pid_of([*command[:-1], "another word"])
        process.stdin.write(b"\n")
        process.stdin.flush()
