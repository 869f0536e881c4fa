"""Runs a process of ours: it ends with an exit status, and errors with one line on stderr."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from shared.errors import SlosError
from shared.garbage import collect_seldom

FAILED = 2
INTERRUPTED = 130  # what shells expect of a program that Ctrl-C ended
CUT_OFF = 141  # and of one that wrote to a closed pipe (SIGPIPE)


_ERROR = ": error: "


def error_in(said: str) -> str:
    """The message in what a program that ended by `exit_status` wrote to stderr."""
    last = said.strip().rpartition("\n")[2]
    return last.partition(_ERROR)[2] or last


def end_at_once(status: int) -> NoReturn:
    """Ends this process without the interpreter's own end, once all that is ours has ended.

    With vLLM loaded that end takes 2.5 s of CPU time and up to 15 s, as libraries wait for threads.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def exit_status(main: Callable[[Sequence[str]], int], argv: Sequence[str], *, program: str) -> int:
    """Runs `main`. A SlosError becomes one line and status 2, Ctrl-C becomes status 130."""
    collect_seldom()  # before `main` imports vLLM
    try:
        status = main(argv)
        sys.stdout.flush()
    except SlosError as error:
        print(f"{program}{_ERROR}{error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CUT_OFF
    return status
