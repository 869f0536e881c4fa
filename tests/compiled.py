"""Compiles what tests use, once and on disk: `python -m tests.compiled`.

It takes more than a minute of a core in a fresh clone and a moment later. Processes that tests
start find it there.
"""

from pathlib import Path

from filelock import FileLock

_KEPT = Path(__file__).parents[1] / ".slos"


def compile_all() -> None:
    """Another process that compiles meanwhile is waited for."""
    # Not what every run of tests needs to import.
    from services.planner.scaling.warm_up import warm_up
    from services.planner.server.prepare import prepare
    from shared.kv_transfer.layout import warm_up as warm_up_kv

    _KEPT.mkdir(exist_ok=True)
    with FileLock(_KEPT / "compile.lock"):
        prepare()
        warm_up()
        warm_up_kv()


if __name__ == "__main__":
    compile_all()
