from collections.abc import Sequence
from pathlib import Path

from services.bench.capacity.options import CapacityOptions
from services.bench.capacity.systems import SAME_STEP_TOKENS, Systems
from services.node.plan import Part

CLASSES = Path("classes.yaml")


def systems() -> Systems:
    return Systems(options=CapacityOptions(), model="/m", run_dir=Path("logs"), environ={})


def flag(part: Part, name: str) -> str:
    """The last one counts for vLLM."""
    last = len(part.command) - 1 - part.command[::-1].index(f"--{name}")
    return part.command[last + 1]


def named(parts: Sequence[Part], name: str) -> Part:
    return next(part for part in parts if part.name == name)


def test_both_run_the_same_model_in_the_same_way_on_as_many_threads() -> None:
    stock = systems().stock("vllm-128", 128).parts[0]
    engine = named(systems().ours("ours", CLASSES).parts, "engine")

    for name in ("model", "dtype", "max-model-len"):
        assert flag(stock, name) == flag(engine, name)
    assert stock.environ["OMP_NUM_THREADS"] == engine.environ["OMP_NUM_THREADS"]
    assert flag(stock, "max-num-batched-tokens") == "128"


def test_both_draft_in_the_same_way() -> None:
    stock = systems().stock("vllm-128", 128, speculation_tokens=4).parts[0]
    engine = named(systems().ours("ours", CLASSES, 4).parts, "engine")

    assert '"num_speculative_tokens": 4' in flag(stock, "speculative-config")
    assert flag(engine, "speculation-tokens") == "4"


def test_every_part_of_ours_reads_the_classes() -> None:
    parts = systems().ours("ours", CLASSES).parts

    assert [part.environ["SLOS_CONFIG"] for part in parts] == ["classes.yaml"] * 3


def test_two_engines_have_roles_names_and_ports_of_their_own() -> None:
    parts = systems().ours_in_two("two", CLASSES, ("prefill", "decode")).parts
    engines = [part for part in parts if part.name in ("prefill-0", "decode-1")]

    assert [part.command[2] for part in engines] == ["services.prefill", "services.decode"]
    assert {flag(part, "kv-transport") for part in engines} == {"nixl"}
    for name in ("name", "port", "kv-port"):
        assert len({flag(part, name) for part in engines}) == 2
    assert len({part.address for part in parts}) == len(parts)


def test_at_saturation_both_may_compute_as_many_tokens_in_a_step() -> None:
    engine = named(systems().ours("ours", CLASSES).parts, "engine")

    assert flag(engine, "max-step-tokens") == str(SAME_STEP_TOKENS)
