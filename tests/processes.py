"""What tests ask of this machine: a port that is free, whether a process lives. Starts nothing."""

from pathlib import Path

from shared.ports import FreePorts


def free_port() -> int:
    with FreePorts() as ports:
        return ports.pick()


def is_alive(process: int) -> bool:
    """A zombie is dead: whoever adopted it will get to it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
