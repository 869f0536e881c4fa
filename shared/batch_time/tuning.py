"""The numbers that shape how step times are learned, fitted, profiled and promised."""

from typing import Annotated

from shared.tuning import Tuned

# ---- an online model

TELLING_PREFILL_TOKENS: Annotated[
    int,
    Tuned(
        unit="prompt tokens of a step",
        low=2,
        high=64,
        why="After a KV transfer one token is computed again: so few tell little of prompts' cost.",
    ),
] = 16
TELLING_STEPS: Annotated[
    int,
    Tuned(
        unit="steps of a kind",
        low=2,
        high=10,
        why="The first step of a kind may have compiled; no refusal may rest on it.",
    ),
] = 3
PRIOR_TRUST: Annotated[
    float,
    Tuned(
        unit="steps",
        low=1,
        high=10,
        why="A given cost was not measured on this engine: a few steps outweigh it.",
    ),
] = 3.0
FIT_TRUST: Annotated[
    float,
    Tuned(
        unit="steps for each step of the fit",
        low=10,
        high=100,
        why="A profile was measured on this engine, with more kinds of steps than a minute of "
        "serving has.",
    ),
] = 30.0
WEIGHT_KEPT: Annotated[
    float,
    Tuned(
        unit="share of the weight of earlier steps, with each step of their kind",
        low=0.98,
        high=0.998,
        why="Forgets within about a hundred steps: seconds of decoding.",
    ),
] = 0.99
WEIGHT_KEPT_WHEN_SURPRISED: Annotated[
    float,
    Tuned(
        unit="the same, for a step that has nothing in common with its prediction",
        low=0.7,
        high=0.97,
        why="An engine that became slower or faster is followed within about ten steps.",
    ),
] = 0.9
FIRST_TRUST: Annotated[
    float,
    Tuned(
        unit="steps that say that all costs are zero",
        low=1e-6,
        high=1e-2,
        why="Without a prior the first step must be solvable; it must not pull costs to zero.",
    ),
] = 1e-3
OUTLIER: Annotated[
    float,
    Tuned(
        unit="measured over predicted seconds",
        low=1.2,
        high=3,
        why="A step that compiled or was held up counts as if it were only so far off.",
    ),
] = 1.5

# ---- what is promised of a step

PROMISED_SHARE: Annotated[
    float,
    Tuned(
        unit="share of steps",
        low=0.5,
        high=0.99,
        why="Promises rest on sums of many steps: single ones may last longer.",
    ),
] = 0.9
DRIFT_RISE: Annotated[
    float,
    Tuned(
        unit="share of the error that each step takes away",
        low=0.03,
        high=0.2,
        why="An engine that slows down is believed within about 16 steps.",
    ),
] = 0.06
DRIFT_FALL: Annotated[
    float,
    Tuned(
        unit="share of the error that each step takes away",
        low=0.01,
        high=0.1,
        why="One that recovers is believed half as fast: a promise may rest on it.",
    ),
] = 0.03
LEAST_RATIO: Annotated[
    float,
    Tuned(
        unit="measured over predicted seconds",
        low=0.2,
        high=0.9,
        why="One step moves the drift no further, however short it was.",
    ),
] = 0.5
MOST_RATIO: Annotated[
    float,
    Tuned(
        unit="measured over predicted seconds",
        low=1.1,
        high=3,
        why="One step moves the drift no further, however long it was.",
    ),
] = 1.5
MARGIN_GAIN: Annotated[
    float,
    Tuned(
        unit="of the factor, with each step",
        low=0.005,
        high=0.05,
        why="A quantile tracked by stochastic approximation: about fifty steps move it by a tenth "
        "at the share that is promised.",
    ),
] = 0.02
MOST_MARGIN: Annotated[
    float,
    Tuned(
        unit="factor on a predicted time",
        low=1.1,
        high=2,
        why="Beyond it, steps are not late but of another kind: the drift follows these.",
    ),
] = 1.5

# ---- the fit of a profile

TAIL: Annotated[
    float,
    Tuned(
        unit="times the median error",
        low=2,
        high=8,
        why="Errors beyond it count linearly (Huber): a step that met a pause moves little.",
    ),
] = 4.0
LEAST_TAIL: Annotated[
    float,
    Tuned(
        unit="relative error",
        low=0.005,
        high=0.1,
        why="A fit that is nearly exact must not take noise for outliers.",
    ),
] = 0.02
FEW_STEPS: Annotated[
    int,
    Tuned(
        unit="steps",
        low=20,
        high=200,
        why="The rich form has about 20 coefficients: fewer than two steps each fit noise.",
    ),
] = 40
TOO_FEW_STEPS: Annotated[
    int,
    Tuned(
        unit="steps",
        low=4,
        high=20,
        why="The additive form has four coefficients.",
    ),
] = 8
HELD_UP: Annotated[
    float,
    Tuned(
        unit="measured over fitted seconds",
        low=1.2,
        high=3,
        why="A longer step was held up by something else on the machine.",
    ),
] = 1.5
MOST_ARE_USUAL: Annotated[
    float,
    Tuned(
        unit="share of steps",
        low=0.5,
        high=0.95,
        why="Where more steps than the rest are long, they are typical of the engine.",
    ),
] = 0.7

# ---- what a starting engine tries on itself

ENOUGH_STEPS: Annotated[
    int,
    Tuned(
        unit="steps",
        low=100,
        high=1000,
        why="More hardly move the fit, and a start should not take longer than it must.",
    ),
] = 300
TRIAL_SHARE: Annotated[
    float,
    Tuned(
        unit="share of the time of a profile",
        low=0.1,
        high=0.5,
        why="One trial leaves time for at least two others.",
    ),
] = 0.3
SMALL_SHARE: Annotated[
    float,
    Tuned(
        unit="share of the time of a profile, added to it",
        low=0.1,
        high=0.5,
        why="Small batches get time of their own: with a 30B reasoning model 96 % of programs were "
        "kept, and 88 % where they took it from long steps.",
    ),
] = 0.3
MOST_TIMES: Annotated[
    int,
    Tuned(
        unit="times that one trial is made",
        low=1,
        high=4,
        why="A second time shows how steps vary, a third adds little.",
    ),
] = 2
MOST_PROMPT_TOKENS: Annotated[
    int,
    Tuned(
        unit="prompt tokens of one trial",
        low=4096,
        high=131_072,
        why="Bounds what one trial computes; longer contexts are extrapolated.",
    ),
] = 32_768
