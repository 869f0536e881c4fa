import os
from pathlib import Path

import pytest

from services.node.signs import Patience, sign_of
from shared.errors import DeadlinePassed


def test_a_start_may_last_for_ever_while_it_makes_progress() -> None:
    patience = Patience(limit_s=10.0)

    for second in range(0, 10_000, 9):
        patience.observe({"decode-0": second}, float(second))


def test_a_start_without_progress_ends_after_the_limit_and_names_the_late_parts() -> None:
    patience = Patience(limit_s=10.0)
    patience.observe({"prefill-0": 1, "decode-0": 1}, 0.0)
    patience.observe({"decode-0": 1}, 8.0)  # the other is ready, which is progress
    patience.observe({"decode-0": 1}, 18.0)

    with pytest.raises(DeadlinePassed, match=r"no progress for 10 s: decode-0\. .*--start-limit-s"):
        patience.observe({"decode-0": 1}, 18.5)


def test_the_wait_for_attachment_has_the_same_limit() -> None:
    patience = Patience(limit_s=10.0)
    patience.observe({}, 0.0)

    with pytest.raises(DeadlinePassed, match="attachment"):
        patience.observe({}, 11.0)


def test_a_line_in_the_log_is_a_sign(tmp_path: Path) -> None:
    log = tmp_path / "log"
    before = sign_of(log, None)
    log.write_text("Loading safetensors checkpoint shards: 10%")

    assert sign_of(log, None) > before


def test_a_process_that_is_gone_is_no_error(tmp_path: Path) -> None:
    assert sign_of(tmp_path / "log", 2**22 + 1) == 0
    assert sign_of(tmp_path / "log", os.getpid()) >= 0
