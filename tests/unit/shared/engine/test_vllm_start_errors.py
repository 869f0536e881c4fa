import json
import logging
from logging.config import dictConfig
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shared.engine.vllm_logging import keep_errors, with_file
from shared.engine.vllm_start_errors import RECORD, cure_of, root_cause, start_error

WORKER = f"""{RECORD}WorkerProc failed to start.
Traceback (most recent call last):
  File "multiproc_executor.py", line 902, in worker_main
    worker = WorkerProc(*args, **kwargs)
ValueError: Free memory on device cuda:0 (3.1/79.2 GiB) on startup is less than desired GPU memory
utilization (0.92, 72.9 GiB).
"""
CORE = f"""{RECORD}EngineCore failed to start.
Traceback (most recent call last):
  File "core.py", line 1400, in run_engine_core
    engine_core = EngineCoreProc(*args)
Exception: WorkerProc initialization failed due to an exception in a background process.
"""
CHAINED = f"""{RECORD}EngineCore failed to start.
Traceback (most recent call last):
  File "a.py", line 1, in a
KeyError: 'x'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "a.py", line 2, in b
RuntimeError: The checkpoint has no layer x
"""


def test_the_cause_is_what_the_first_process_raised_not_what_others_say_of_it() -> None:
    for log in (WORKER + CORE, CORE + WORKER):
        assert root_cause(log).startswith("ValueError: Free memory on device cuda:0 (3.1/79.2 GiB)")


def test_a_message_of_several_lines_becomes_one() -> None:
    assert root_cause(WORKER).endswith("utilization (0.92, 72.9 GiB).")


def test_of_chained_exceptions_the_last_one_counts() -> None:
    assert root_cause(CHAINED) == "RuntimeError: The checkpoint has no layer x"
    assert root_cause(CHAINED + WORKER) == "RuntimeError: The checkpoint has no layer x"


@pytest.mark.parametrize("log", ["", "words\nValueError: no traceback", CORE])
def test_a_log_without_a_cause_leaves_what_was_raised_here(log: str) -> None:
    assert "KeyError: 'here'" in start_error("m", KeyError("here"), log)


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate", "--max-step-tokens"),
        ("ValueError: Free memory on device cuda:0", "nvidia-smi"),
        ("ValueError: To serve at least one request with the model's max seq len", "--max-model-"),
        ("ValueError: World size (4) is larger than the number of available GPUs (2)", "CUDA_VIS"),
        ("ValueError: heads (9) must be divisible by tensor parallel size (2)", "divides"),
        ("OSError: You are trying to access a gated repo.", "HF_TOKEN"),
        ("ModuleNotFoundError: No module named 'arctic_inference'", "install"),
        ("RuntimeError: anything else", "the log"),
    ],
)
def test_every_cause_comes_with_a_cure_in_one_line(said: str, cure: str) -> None:
    kind, _, words = said.partition(": ")
    line = start_error(
        "m", RuntimeError("elsewhere"), f"Traceback (most recent call last):\n{said}"
    )

    assert cure in cure_of(said)
    assert cure in line
    assert f"{kind}: {words}" in line
    assert "\n" not in line


def test_what_pydantic_says_around_a_validator_s_words_is_left_out() -> None:
    words = (
        "1 validation error for ModelConfig\n  Value error, It is too long. [type=value_error, x]"
    )

    line = start_error("m", type("ValidationError", (ValueError,), {})(words))

    assert "did not start m: It is too long. (cure:" in line


def vllm_config(own: Path | None = None, *, on: bool = True) -> Any:
    logging_config = SimpleNamespace(
        configure_logging=on, pylogging_config_file=str(own) if own else None
    )
    return SimpleNamespace(logging_config=logging_config)


def test_errors_of_vllm_s_processes_reach_the_file_with_their_tracebacks(tmp_path: Path) -> None:
    logger, handlers = logging.getLogger("vllm"), list(logging.getLogger("vllm").handlers)
    own = {"version": 1, "disable_existing_loggers": False, "loggers": {"vllm": {"level": "INFO"}}}
    dictConfig(with_file(own, tmp_path / "errors"))
    try:
        logger.info("nothing of note")
        assert not (tmp_path / "errors").exists()
        try:
            raise ValueError("why")
        except ValueError:
            logger.exception("EngineCore failed to start.")
    finally:
        for handler in logger.handlers:
            handler.close()
        logger.handlers[:] = handlers

    assert root_cause((tmp_path / "errors").read_text()) == "ValueError: why"


def test_the_operator_s_own_logging_stays(tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"version": 1, "loggers": {"vllm": {"handlers": ["mine"]}}}))
    config = vllm_config(own)

    keep_errors(config, tmp_path / "errors")

    wanted = json.loads(Path(config.logging_config.pylogging_config_file).read_text())
    assert "mine" in wanted["loggers"]["vllm"]["handlers"]
    assert len(wanted["loggers"]["vllm"]["handlers"]) == 2


def test_an_engine_without_logging_gets_none(tmp_path: Path) -> None:
    config = vllm_config(on=False)

    keep_errors(config, tmp_path / "errors")

    assert config.logging_config.pylogging_config_file is None
