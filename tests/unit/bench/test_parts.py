from pathlib import Path

import pytest

from services.bench.__main__ import main
from services.bench.gateway_options import GatewayBenchOptions
from services.bench.parts import Parts, Ports
from shared.errors import ConfigError

PORTS = Ports(planner=1, planner_metrics=2, engine=3, engine_kv=4, gateway=5, stock=6, router=7)


def parts(options: GatewayBenchOptions) -> Parts:
    return Parts(options=options, ports=PORTS, model="/m", run_dir=Path("logs"))


def flags(command: tuple[str, ...], *names: str) -> dict[str, str]:
    return {name: command[command.index(f"--{name}") + 1] for name in names}


def test_our_engine_and_the_stock_server_get_the_same_model_and_threads() -> None:
    made = parts(GatewayBenchOptions(threads=3, max_model_len=512))
    ours, stock = made.engine(), made.stock()
    names = ("model", "served-model-name", "dtype", "max-model-len")

    assert flags(ours.command, *names) == flags(stock.command, *names)
    assert ours.environ == stock.environ
    assert ours.environ["OMP_NUM_THREADS"] == "3"


def test_no_port_is_used_twice_in_one_set() -> None:
    made = parts(GatewayBenchOptions(router="other"))
    started = [made.planner(), made.engine(), made.gateway(), made.stock(), made.router()]

    assert len({part.address for part in started}) == len(started)


def test_an_unknown_measurement_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean gateway"):
        main(["gatway"])


def test_help_names_every_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "kv" in shown
    assert "gateway" in shown


def test_the_frontend_whose_cpu_is_compared_has_its_engine_in_another_process() -> None:
    made = parts(GatewayBenchOptions())

    assert made.stock_frontend().command == made.stock().command
    assert made.stock_frontend().environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "1"
    assert made.stock().environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


def test_a_measurement_of_nothing_is_an_error_that_names_the_switches() -> None:
    with pytest.raises(ConfigError, match="--no-cpu leave nothing to measure"):
        main(["gateway", "--no-engines", "--no-stub", "--no-cpu"])


def test_on_a_gpu_both_engines_get_the_same_share_of_it_and_vllm_s_own_limits() -> None:
    made = parts(GatewayBenchOptions(gpu_share=0.4))
    ours, stock = made.engine(), made.stock()
    of_cpu = ("--enforce-eager", "--kv-cache-gib", "--max-num-seqs", "--max-running-requests")

    assert flags(ours.command, "gpu-memory-utilization") == {"gpu-memory-utilization": "0.4"}
    assert flags(stock.command, "gpu-memory-utilization") == {"gpu-memory-utilization": "0.4"}
    assert not {*of_cpu} & {*ours.command, *stock.command}
    assert "OMP_NUM_THREADS" not in {**ours.environ, **stock.environ}


def test_the_old_name_of_a_measurement_works_with_its_variables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.environ", {"SLOS_BENCH_REALITY_POINT_S": "none"})

    with pytest.raises(ConfigError, match="SLOS_BENCH_FIDELITY_POINT_S"):
        main(["reality"])
    assert "slos-serve bench fidelity" in capsys.readouterr().err


def test_the_command_of_another_gateway_gets_a_port_and_the_stock_server() -> None:
    made = parts(GatewayBenchOptions(router="other --to {stock} --port {port} 'a b'"))

    words = ("other", "--to", "http://127.0.0.1:6", "--port", "7", "a b")
    assert made.router().command == words


@pytest.mark.parametrize("command", ["other {host}", "other {", "other 'a", "other {0}"])
def test_a_command_of_another_gateway_that_cannot_be_read_is_an_error_with_the_cure(
    command: str,
) -> None:
    with pytest.raises(ConfigError, match=r"give a command with \{port\} and \{stock\}"):
        parts(GatewayBenchOptions(router=command)).router()


def test_another_gateway_without_the_stock_server_is_an_error() -> None:
    with pytest.raises(ConfigError, match="drop --no-stock"):
        main(["gateway", "--router", "other", "--no-stock"])
