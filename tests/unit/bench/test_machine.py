import subprocess
import sys

from services.bench.machine import busy_s, own_s


def test_work_adds_to_what_the_machine_has_done() -> None:
    before_s = busy_s()
    while busy_s() == before_s:  # the test's own limit ends this where nothing counts
        pass

    assert busy_s() > before_s > 0


def test_own_work_counts_children_and_is_part_of_all_work() -> None:
    own_before_s, all_before_s = own_s(), busy_s()

    subprocess.run([sys.executable, "-c", "sum(range(5_000_000))"], check=True, timeout=60)

    own = own_s() - own_before_s
    assert own > 0.02
    assert own <= busy_s() - all_before_s + 0.1
