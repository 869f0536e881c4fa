"""The numbers that shape steps, forecasts and drafts."""

from typing import Annotated

from shared.tuning import Tuned

# ---- The step former

MODERATE_LOAD: Annotated[
    float,
    Tuned(
        unit="share of the time to their deadlines that prompts need of the engine alone",
        low=0.2,
        high=0.8,
        why="Below it all decodes share the step as far as prompts stay on time: a token costs "
        "least beside others.",
        page="decisions/0001-one-greedy-step-former.md",
    ),
] = 0.5

LOW_LOAD: Annotated[
    float,
    Tuned(
        unit="the same share",
        low=0.1,
        high=0.5,
        why="Below it steps are shorter until decodes are ahead: a prompt that comes later finds "
        "slack to use.",
        page="decisions/0001-one-greedy-step-former.md",
    ),
] = 0.25

AHEAD: Annotated[
    float,
    Tuned(
        unit="paces",
        low=1,
        high=16,
        why="Decodes get ahead by so much while prompts leave time.",
        page="decisions/0001-one-greedy-step-former.md",
    ),
] = 4.0

BATCHING_WINDOW: Annotated[
    float,
    Tuned(
        unit="steps without prompts",
        low=1,
        high=16,
        why="A prompt that ends in a step waits at most so long for others. It keeps steps "
        "short for requests of a tighter TTFT than any that was promised before.",
        page="decisions/0005-short-steps-where-a-prompt-ends.md",
    ),
] = 4.0

BEFORE_DUE: Annotated[
    float,
    Tuned(
        unit="share of the time to a deadline",
        low=0.7,
        high=1,
        why="Some steps last longer than expected.",
        page="decisions/0005-short-steps-where-a-prompt-ends.md",
    ),
] = 0.9

CATCH_UP: Annotated[
    float,
    Tuned(
        unit="share of what lies between a step of one decode and the pace",
        low=0.5,
        high=0.95,
        why="In steps of this length a decode gets ahead, or catches up when it is late, without "
        "stopping all others.",
        page="decisions/0004-late-and-drafting-decodes.md",
    ),
] = 0.8

BESIDE: Annotated[
    float,
    Tuned(
        unit="share of a step",
        low=0,
        high=0.1,
        why="Best effort makes a step with promises in it longer by so much at most where KV is "
        "short: a slower decode holds its KV for longer, and the next promise may need it.",
        page="decisions/0008-limits-of-best-effort.md",
    ),
] = 0.02

BESIDE_IN_ROOM: Annotated[
    float,
    Tuned(
        unit="share of a step",
        low=0.02,
        high=0.5,
        why="The same while more blocks are free than the promised requests hold.",
        page="decisions/0008-limits-of-best-effort.md",
    ),
] = 0.15

MAY_WAIT: Annotated[
    float,
    Tuned(
        unit="paces",
        low=0,
        high=2,
        why="Decodes may be late by so much to save a prompt: they make up for it, a lost first "
        "token cannot.",
        page="decisions/0006-finish-a-prompt-that-would-be-late.md",
    ),
] = 0.5

MAY_BE_LATE: Annotated[
    float,
    Tuned(
        unit="paces",
        low=1,
        high=16,
        why="Beyond it a decode without a promise loses its place before other best effort.",
        page="decisions/0001-one-greedy-step-former.md",
    ),
] = 4.0

SMALLEST_CHUNK: Annotated[
    int,
    Tuned(
        unit="tokens",
        low=1,
        high=64,
        why="What the first prompt in line gets where no time is left for any.",
        page="decisions/0001-one-greedy-step-former.md",
    ),
] = 16

# ---- Promises that are broken

GIVEN_UP: Annotated[
    float,
    Tuned(
        unit="paces",
        low=1,
        high=16,
        why="Beyond so much lateness the deadlines restart from the present.",
        page="decisions/0004-late-and-drafting-decodes.md",
    ),
] = 4.0

LEAST_TURN_S: Annotated[
    float,
    Tuned(
        unit="seconds",
        low=0.5,
        high=10,
        why="A lost prompt is served at the cost of others once it is late by that.",
        page="decisions/0009-broken-promises-are-still-served.md",
    ),
] = 2.0

TURN: Annotated[
    float,
    Tuned(
        unit="times the time from its arrival to its deadline",
        low=0.5,
        high=8,
        why="The same for a prompt that had longer: a loose target waits for longer.",
        page="decisions/0009-broken-promises-are-still-served.md",
    ),
] = 2.0

IN_TURN: Annotated[
    float,
    Tuned(
        unit="times what the prompt takes alone",
        low=1.5,
        high=10,
        why="It is then due within that time.",
        page="decisions/0009-broken-promises-are-still-served.md",
    ),
] = 3.0

# ---- Slack for the start of an answer

MOST_SLACK: Annotated[
    float,
    Tuned(
        unit="paces",
        low=1,
        high=16,
        why="The most slack, beside the time that KV takes to arrive.",
        page="decisions/0002-slack-for-the-start-of-an-answer.md",
    ),
] = 4.0

LEAST_PACE: Annotated[
    float,
    Tuned(
        unit="share of the promised pace",
        low=0.8,
        high=1,
        why="Engines get no tighter pace: decodes take from prompts what it costs.",
        page="decisions/0002-slack-for-the-start-of-an-answer.md",
    ),
] = 0.95

LEAST_PACE_WITH_DRAFTS: Annotated[
    float,
    Tuned(
        unit="share of the promised pace",
        low=0.5,
        high=1,
        why="Drafts give some answers less than others, and all of them more than their pace "
        "needs.",
        page="decisions/0002-slack-for-the-start-of-an-answer.md",
    ),
] = 0.8

LEAST_PACE_WHEN_MOVED: Annotated[
    float,
    Tuned(
        unit="share of the promised pace",
        low=0.7,
        high=1,
        why="Where KV moved, prompts are mostly elsewhere, and it may have to wait for the end of "
        "a step.",
        page="decisions/0002-slack-for-the-start-of-an-answer.md",
    ),
] = 0.9

# ---- Forecasts

PACES_AHEAD: Annotated[
    float,
    Tuned(
        unit="times the loosest pace",
        low=1,
        high=16,
        why="The simulation goes on for so long after the last first token.",
    ),
] = 3.0

AVERAGED: Annotated[
    float,
    Tuned(
        unit="divides the margin of one step",
        low=1,
        high=10,
        why="Over many steps most of what a single one may last longer averages out.",
    ),
] = 3.0

# ---- Drafts

HYSTERESIS: Annotated[
    float,
    Tuned(
        unit="times the worth of plain decoding",
        low=1,
        high=1.5,
        why="Drafts worth less are not begun.",
        page="decisions/0011-draft-hysteresis.md",
    ),
] = 1.05

DRAFT_CHANGE: Annotated[
    float,
    Tuned(
        unit="times the worth of the lengths in force",
        low=1,
        high=2,
        why="Requests were promised with the lengths in force.",
        page="decisions/0011-draft-hysteresis.md",
    ),
] = 1.3

HIGHEST_ACCEPTANCE: Annotated[
    float,
    Tuned(
        unit="chance",
        low=0.9,
        high=0.9999,
        why="At one no rejection could be learned from.",
    ),
] = 0.999

LUCK_WINDOW: Annotated[
    int,
    Tuned(
        unit="verifications",
        low=2,
        high=20,
        why="Low counts are taken over windows of about ten tokens.",
        page="decisions/0010-draft-lengths-by-class.md",
    ),
] = 5

LOW_SHARE: Annotated[
    float,
    Tuned(
        unit="quantile of counts",
        low=0.01,
        high=0.5,
        why="What drafts give at least in nine of ten windows.",
        page="decisions/0010-draft-lengths-by-class.md",
    ),
] = 0.1

CONFIDENCE: Annotated[
    float,
    Tuned(
        unit="standard deviations",
        low=0,
        high=3,
        why="A one-sided bound of 95 % on what was seen.",
        page="decisions/0010-draft-lengths-by-class.md",
    ),
] = 1.645

PRIOR_ACCEPTANCE: Annotated[
    float,
    Tuned(
        unit="chance",
        low=0.2,
        high=0.9,
        why="A usual draft model's, for a class that was never seen.",
        page="decisions/0010-draft-lengths-by-class.md",
    ),
] = 0.6

PRIOR_DRAFTS: Annotated[
    float,
    Tuned(
        unit="drafts",
        low=1,
        high=500,
        why="So many observed drafts weigh as much as the prior.",
        page="decisions/0010-draft-lengths-by-class.md",
    ),
] = 20.0

ACCEPTANCE_HALF_LIFE_S: Annotated[
    float,
    Tuned(
        unit="seconds",
        low=10,
        high=600,
        why="A class that stopped drafting comes back to the prior and is tried again.",
        page="decisions/0010-draft-lengths-by-class.md",
    ),
] = 60.0

FULL_GRAPH_DRAFTS: Annotated[
    float,
    Tuned(
        unit="share of the drafts of a step in which each request has the most",
        low=0.25,
        high=1,
        why="A step with all drafts then has at most twice the tokens, and one full CUDA graph "
        "runs it. Reasoned from vLLM's sources, not measured: it needs a GPU.",
        page="reference/vllm.md",
    ),
] = 0.5
