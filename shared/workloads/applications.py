"""The six applications of the paper as plain data: lengths, targets and arrivals.

From SLOs-Serve (arXiv 2504.08784) and its authors' code:

- Targets: tight is a TTFT of 3 times an idle engine's and a TPOT of 50 ms, loose is 5 times and
  100 ms. The paper calls a tool loop's final answer loose; its code, which we follow, loosens only
  TPOT.
- Lengths of ChatBot and Coder: the paper names ShareGPT and HumanEval, but its figures are those of
  the Azure LLM inference trace 2023: requests of at most 2,048 tokens, chat from 900 s on and code
  from 1,786 s on, 300 s each. Mean, p99 and deviation agree to the token. So the data sets gave
  the texts and the trace their lengths; we take the trace's quantiles. Those of Summarizer are the
  arXiv data set's, requests of at most 2,048 tokens, which agree as well.
- ToolLLM: mean, p99 and deviation are the paper's. We read its prompt as the first one of a
  program, since the first prompts of ToolBench have that shape (their deviation is half their
  mean). The number of calls and the tools' answers are ToolBench's. The time of a tool is not
  published; half a second is our choice.
- Reasoning: the prompt is the paper's. It gives only the means of thinking and answer; their
  deviations are our choice.
- Arrivals: bursty for Coder and ToolLLM, as in the Azure coding trace, stable for the others. Mixed
  is the first three in equal shares, each with its own arrivals.
- Drafts: the code has one acceptance probability, 0.6 or 0.8, and the paper does not say which. We
  take 0.7, with a draw around it for each request.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from shared.requests import Pacing
from shared.workloads.arrivals import AZURE_CODE, POISSON, Arrivals
from shared.workloads.lengths import Lengths, log_normal

_TIGHT_TTFT: Final = 3.0  # multiples of the zero-load TTFT
_LOOSE_TTFT: Final = 5.0
_TIGHT_TPOT_S: Final = 0.050
_LOOSE_TPOT_S: Final = 0.100
_CONTEXT: Final = 2048  # prompt and answer, of the OPT models of the paper


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A stage of an answer: its lengths, and its TPOT target, infinite for none."""

    stage: str
    tokens: Lengths
    tpot_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolLoop:
    """Calls before the last one; the answer of each goes to a tool, which returns a response.

    `calls` has the shares of programs with one call, two calls and so on, the last one included.
    The time of a tool is log-normal, at most `longest_tool_s`.
    """

    class_name: str
    tpot_s: float
    calls: tuple[float, ...]
    response: Lengths
    median_tool_s: float
    sigma_tool: float
    longest_tool_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPrefix:
    """Tokens before a prompt's own: one of `variants` texts of `tokens` tokens, maybe cached."""

    tokens: int
    variants: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of program.

    Attributes:
        ttft_s: TTFT target; `ttft_slowdown` gives it as a multiple of the zero-load TTFT.
        correlation: Of prompt and answer lengths (normal scores).
        context_tokens: Limit of prompt and answer together.
        acceptance: Mean probability that a draft is accepted, Beta-distributed over requests.
        acceptance_weight: Sum of the Beta distribution's parameters; a greater one narrows it.
        share: Relative to the shares of the other kinds.
    """

    class_name: str
    ttft_slowdown: float | None = None
    ttft_s: float | None = None
    prompt: Lengths
    answers: tuple[Answer, ...]
    arrivals: Arrivals
    correlation: float = 0.0
    context_tokens: int | None = None
    loop: ToolLoop | None = None
    acceptance: float = 0.7
    acceptance_weight: float = 20.0
    pacing: Pacing = Pacing.MEAN
    share: float = 1.0
    value: float = 1.0
    shared_prefix: SharedPrefix | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """A scenario: kinds of programs in their shares."""

    name: str
    kinds: tuple[Kind, ...]


_CHATBOT: Final = Kind(
    class_name="chatbot",
    ttft_slowdown=_LOOSE_TTFT,
    prompt=Lengths(
        tokens=(
            *(8, 21, 181, 200, 314, 396, 421, 1005),
            *(1038, 1068, 1102, 1177, 1314, 1592, 1905, 1923),
        )
    ),
    answers=(
        Answer(
            stage="answer",
            tokens=Lengths(
                tokens=(
                    *(12, 14, 56, 78, 97, 135, 174, 217),
                    *(388, 398, 411, 429, 478, 620, 842, 958),
                )
            ),
            tpot_s=_LOOSE_TPOT_S,
        ),
    ),
    correlation=0.53,
    context_tokens=_CONTEXT,
    arrivals=POISSON,
)
_CODER: Final = Kind(
    class_name="coder",
    ttft_slowdown=_LOOSE_TTFT,
    prompt=Lengths(
        tokens=(
            *(9, 13, 34, 82, 163, 352, 559, 752),
            *(1028, 1313, 1476, 1733, 1887, 2010, 2028, 2035),
        )
    ),
    answers=(
        Answer(
            stage="answer",
            tokens=Lengths(tokens=(6, 6, 6, 7, 8, 9, 11, 13, 16, 20, 31, 58, 88, 233, 537, 599)),
            tpot_s=_TIGHT_TPOT_S,
        ),
    ),
    correlation=0.03,
    context_tokens=_CONTEXT,
    arrivals=AZURE_CODE,
)
_SUMMARIZER: Final = Kind(
    class_name="summarizer",
    ttft_slowdown=_TIGHT_TTFT,
    prompt=Lengths(
        tokens=(
            *(1, 54, 468, 703, 954, 1144, 1306, 1429),
            *(1544, 1635, 1733, 1831, 1886, 1947, 1990, 2007),
        )
    ),
    answers=(
        Answer(
            stage="answer",
            tokens=Lengths(
                tokens=(
                    *(5, 31, 50, 67, 90, 110, 128, 148),
                    *(170, 198, 239, 324, 472, 1509, 1932, 2021),
                )
            ),
            tpot_s=_LOOSE_TPOT_S,
        ),
    ),
    correlation=-0.25,
    context_tokens=_CONTEXT,
    arrivals=POISSON,
)
_TOOLS: Final = Kind(
    class_name="tool-answer",
    ttft_slowdown=_TIGHT_TTFT,
    prompt=Lengths(
        tokens=(
            *(257, 284, 322, 343, 410, 469, 530, 595),
            *(685, 775, 890, 1100, 1360, 2131, 2300, 2400),
        )
    ),
    answers=(
        Answer(
            stage="answer",
            tokens=Lengths(
                tokens=(8, 33, 46, 55, 68, 79, 91, 103, 117, 134, 157, 193, 232, 363, 400, 420)
            ),
            tpot_s=_LOOSE_TPOT_S,
        ),
    ),
    loop=ToolLoop(
        class_name="tool-loop",
        tpot_s=_TIGHT_TPOT_S,
        calls=(2, 41, 141, 97, 101, 218),
        response=Lengths(
            tokens=(9, 9, 13, 22, 25, 46, 58, 71, 86, 126, 400, 456, 488, 488, 488, 488)
        ),
        median_tool_s=0.5,
        sigma_tool=0.8,
        longest_tool_s=10.0,
    ),
    arrivals=AZURE_CODE,
)
_REASONING: Final = Kind(
    class_name="reasoning",
    ttft_slowdown=_TIGHT_TTFT,
    prompt=log_normal(median=106, sigma=0.59, least=16, most=600),
    answers=(
        Answer(
            stage="thinking",
            tokens=log_normal(median=3925, sigma=0.6, least=256, most=16_384),
            tpot_s=_TIGHT_TPOT_S,
        ),
        Answer(
            stage="answer",
            tokens=log_normal(median=704, sigma=0.5, least=32, most=4096),
            tpot_s=_LOOSE_TPOT_S,
        ),
    ),
    arrivals=POISSON,
)

CHATBOT: Final = Application(name="ChatBot", kinds=(_CHATBOT,))
CODER: Final = Application(name="Coder", kinds=(_CODER,))
SUMMARIZER: Final = Application(name="Summarizer", kinds=(_SUMMARIZER,))
MIXED: Final = Application(name="Mixed", kinds=(_CHATBOT, _CODER, _SUMMARIZER))
TOOLLLM: Final = Application(name="ToolLLM", kinds=(_TOOLS,))
REASONING: Final = Application(name="Reasoning", kinds=(_REASONING,))

APPLICATIONS: Final[Mapping[str, Application]] = {
    one.name: one for one in (CHATBOT, CODER, SUMMARIZER, MIXED, TOOLLLM, REASONING)
}


def slower(application: Application, factor: float) -> Application:
    """The same with all TPOT targets times `factor`, as in the paper's code for big models."""
    return replace(application, kinds=tuple(_slower(kind, factor) for kind in application.kinds))


def _slower(kind: Kind, factor: float) -> Kind:
    loop = kind.loop and replace(kind.loop, tpot_s=kind.loop.tpot_s * factor)
    answers = tuple(replace(one, tpot_s=one.tpot_s * factor) for one in kind.answers)
    return replace(kind, answers=answers, loop=loop)
