from services.bench.machine import busy_s


def test_work_adds_to_what_the_machine_has_done() -> None:
    before_s = busy_s()
    while busy_s() == before_s:  # the test's own limit ends this where nothing counts
        pass

    assert busy_s() > before_s > 0
