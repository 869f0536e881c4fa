import pytest

from services.evaluation.baselines.sarathi import budget_tokens
from services.evaluation.baselines.vllm import tightness
from services.evaluation.settings import Setting, TuningCase
from services.evaluation.systems import OURS, SYSTEMS
from shared.engines import Role
from shared.hardware.catalogue import load
from shared.workloads.applications import CHATBOT, MIXED
from shared.workloads.calls import Load
from shared.workloads.generate import generate
from tests.unit.evaluation.baselines.steps import TABLE

OPT = load("opt-13b-a100-40gb")
UNDRAFTED = load("r1-distill-qwen-1.5b-a100-40gb")
CHATS = generate(CHATBOT, rate=1.0, requests=20, seed=1)
MIX = generate(MIXED, rate=1.0, requests=30, seed=1)


def case(replicas: int = 4, programs: Load = MIX) -> TuningCase:
    return TuningCase(hardware=OPT, replicas=replicas, load=programs)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("replicas", [1, 2, 4, 64])
def test_settings_are_all_different_and_every_fleet_decodes(name: str, replicas: int) -> None:
    settings = list(SYSTEMS[name].settings(case(replicas)))

    assert settings
    assert len({setting.label for setting in settings}) == len(settings)
    assert all(Role.DECODE in setting.roles for setting in settings)
    assert all(len(setting.roles) == replicas or replicas == 1 for setting in settings)


@pytest.mark.parametrize("name", SYSTEMS)
def test_drafts_are_tried_where_there_is_a_draft_model_and_only_there(name: str) -> None:
    with_model = {one.drafts for one in SYSTEMS[name].settings(case())}
    without = TuningCase(hardware=UNDRAFTED, replicas=4, load=MIX)

    assert with_model == ({0, 4} if name == OURS else {0, 2, 3, 4})
    assert {one.drafts for one in SYSTEMS[name].settings(without)} == {0}


def test_disaggregated_baselines_try_every_ratio_there_is() -> None:
    single = {(one.prefill, one.decode) for one in SYSTEMS["distserve"].settings(case(1))}
    four = {(one.prefill, one.decode) for one in SYSTEMS["distserve"].settings(case(4))}

    assert single == {(1, 1), (1, 2), (2, 1), (1, 3), (3, 1)}
    assert four == {(1, 3), (2, 2), (3, 1)}


def test_priorities_are_tried_where_classes_differ() -> None:
    mixed = SYSTEMS["vllm"].settings(case())
    same = SYSTEMS["vllm"].settings(case(programs=CHATS))

    assert {one.by_priority for one in mixed} == {None, True}
    assert {one.by_priority for one in same} == {None}


def test_slai_orders_prompts_by_pace_where_paces_differ() -> None:
    mixed = {(one.shortest_first, one.by_priority) for one in SYSTEMS["slai"].settings(case())}
    chats = SYSTEMS["slai"].settings(case(programs=CHATS))

    assert mixed == {(None, None), (True, None), (True, True)}
    assert {(one.shortest_first, one.by_priority) for one in chats} == mixed - {(True, True)}


def test_the_tightest_ttft_ranks_first_then_the_tightest_pace() -> None:
    assert tightness(MIX) == {"summarizer": 0, "coder": 1, "chatbot": 2}


@pytest.mark.parametrize(("share", "decodes"), [(1.0, 0), (1.0, 64), (0.5, 16)])
def test_the_budget_of_sarathi_keeps_its_share_of_the_tightest_pace(
    share: float, decodes: int
) -> None:
    setting = Setting(pace_share=share, assumed_decodes=decodes)

    budget = budget_tokens(setting, TABLE, case(programs=CHATS))

    # 100 ms: 10 ms, and 0.1 ms for each token, in grains of 32
    assert budget == (int(share * 1000 - 100) // 32) * 32


def test_a_label_names_what_the_system_has_and_nothing_else() -> None:
    vllm = Setting(decode=4, drafts=3, budget_tokens=512, by_priority=True)
    dynamo = Setting(prefill=1, decode=3, threshold_tokens=1024)

    assert vllm.label == "drafts of 3, steps of 512 tokens, tight classes first"
    assert dynamo.label == "1 prefill + 3 decode, no drafts, prompts from 1024 tokens on"
