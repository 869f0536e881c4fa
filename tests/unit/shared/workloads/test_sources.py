"""The figures of the applications are those of the public data that they are said to be from."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from shared.workloads.applications import CHATBOT, CODER, SUMMARIZER, TOOLLLM, Application
from shared.workloads.arrivals import AZURE_CODE
from shared.workloads.lengths import QUANTILES
from shared.workloads.traces import read_rows

DATA = Path(__file__).parents[4] / ".." / "shared" / "data" / "traces"
WINDOW_S = 300.0
CONTEXT = 2048
# What the paper prints (8.1), cut to whole numbers: mean, p99 and deviation of prompt and answer.
PAPER = {
    "ChatBot": ((763, 1591, 424), (266, 619, 160)),
    "Coder": ((847, 2010, 617), (26, 232, 47)),
}


def real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    return path


def lengths_of(name: str, start_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Prompts and answers of a part of an Azure trace, of requests that fit the paper's models."""
    part = [
        (row.prompt_tokens, row.output_tokens)
        for row in read_rows(real(name))
        if start_s <= row.arrival_s < start_s + WINDOW_S
        and row.prompt_tokens + row.output_tokens <= CONTEXT
    ]
    prompts, answers = np.array(part).T
    return prompts, answers


def of_arxiv() -> tuple[np.ndarray, np.ndarray]:
    with gzip.open(real("arxiv_summarization_lengths.csv.gz"), "rt") as lines:
        pairs = np.array(
            [(int(row["input_tokens"]), int(row["output_tokens"])) for row in csv.DictReader(lines)]
        )
    prompts, answers = pairs[pairs.sum(axis=1) <= CONTEXT].T
    return prompts, answers


def data_of(application: Application) -> tuple[np.ndarray, np.ndarray]:
    if application is SUMMARIZER:
        return of_arxiv()
    if application is CHATBOT:
        return lengths_of("azure2023_conv.csv.gz", 900.0)
    return lengths_of("azure2023_code.csv.gz", 1786.0)


@pytest.mark.parametrize("application", [CHATBOT, CODER], ids=["ChatBot", "Coder"])
def test_the_papers_lengths_are_those_of_the_azure_trace(application: Application) -> None:
    for found, published in zip(data_of(application), PAPER[application.name], strict=True):
        figures = (found.mean(), np.percentile(found, 99), found.std())
        assert figures == pytest.approx(published, abs=1.5)


@pytest.mark.parametrize(
    "application", [CHATBOT, CODER, SUMMARIZER], ids=["ChatBot", "Coder", "Summarizer"]
)
def test_our_quantiles_are_those_of_the_data(application: Application) -> None:
    kind = application.kinds[0]
    ours = (kind.prompt, kind.answers[0].tokens)
    for found, lengths in zip(data_of(application), ours, strict=True):
        quantiles = np.percentile(found, [100 * level for level in QUANTILES])
        assert lengths.tokens == pytest.approx(np.maximum(quantiles, 1), abs=0.51)


@pytest.mark.parametrize(
    "application", [CHATBOT, CODER, SUMMARIZER], ids=["ChatBot", "Coder", "Summarizer"]
)
def test_long_prompts_have_the_answers_that_they_have_in_the_data(application: Application) -> None:
    prompts, answers = data_of(application)
    draw = np.random.default_rng(1)
    first, second = (
        np.argsort(np.argsort(one + draw.random(len(one)))) for one in (prompts, answers)
    )
    found = np.corrcoef(first, second)[0, 1]
    # A normal pair of correlation r has ranks of correlation 6 / pi * asin(r / 2).
    ours = 6 / np.pi * np.arcsin(application.kinds[0].correlation / 2)
    assert ours == pytest.approx(found, abs=0.03)


def test_tool_loops_have_the_calls_and_the_prompt_shape_of_toolbench() -> None:
    with gzip.open(real("toolbench_first_prompt.csv.gz"), "rt") as lines:
        rows = list(csv.DictReader(lines))
    loop = TOOLLLM.kinds[0].loop
    assert loop is not None
    assert tuple(np.bincount([int(row["n_tool_calls"]) for row in rows])[1:]) == loop.calls
    prompts = np.array([int(row["first_prompt_tok_mistral"]) for row in rows])
    assert prompts.std() / prompts.mean() == pytest.approx(356 / 690, abs=0.03)


def test_the_gaps_are_those_of_the_azure_coding_trace() -> None:
    gaps = np.diff([row.arrival_s for row in read_rows(real("azure2023_code.csv.gz"))])
    quantiles = np.percentile(gaps / gaps.mean(), [100 * level for level in AZURE_CODE.at])
    assert AZURE_CODE.gaps[1:] == pytest.approx(quantiles[1:], rel=0.02)
