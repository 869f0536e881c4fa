"""The numbers that shape the planner's decisions."""

from typing import Annotated

from shared.tuning import Tuned

# ---- What engines are told

ASKED_WINDOW_S: Annotated[
    float,
    Tuned(
        unit="seconds",
        low=10,
        high=120,
        why="Targets of the last one or two such windows bound a step's time: about as long as an "
        "answer of some hundred tokens takes.",
    ),
] = 30.0

AWAITED_BLOCKS: Annotated[
    float,
    Tuned(
        unit="times the blocks of prefixes that sessions come back to",
        low=1,
        high=4,
        why="vLLM evicts the least recently used blocks, and these lie between others.",
        page="decisions/0012-blocks-reserved-for-sessions.md",
    ),
] = 2.0

POLICY_CHANGE: Annotated[
    float,
    Tuned(
        unit="relative change of the longest step",
        low=0.02,
        high=0.5,
        why="Smaller changes are not worth a message to the engine.",
    ),
] = 0.1

MOST_DRAFT_GROUPS: Annotated[
    int,
    Tuned(
        unit="groups of requests",
        low=2,
        high=8,
        why="Choosing draft lengths for eight groups takes about 2 ms.",
        page="decisions/0010-draft-lengths-by-class.md",
    ),
] = 6

# ---- What a request asks for

BESIDE_OTHERS: Annotated[
    float,
    Tuned(
        unit="times the time of a token alone",
        low=1,
        high=4,
        why="An answer rarely decodes alone, so a lower TPOT is not planned for the rest of it.",
    ),
] = 2.0

PRIOR_CONTEXT_TOKENS: Annotated[
    float,
    Tuned(
        unit="tokens",
        low=128,
        high=8192,
        why="The context for which an idle engine's best draft length is computed before any "
        "request was observed.",
    ),
] = 1024.0

GUESSED_TOKENS: Annotated[
    int,
    Tuned(
        unit="tokens of an answer",
        low=1,
        high=64,
        why="Slack for a class without observed answers is granted as if they were that short.",
        page="decisions/0002-slack-for-the-start-of-an-answer.md",
    ),
] = 16

# ---- How engines are

ARRIVAL_S: Annotated[
    float,
    Tuned(
        unit="seconds",
        low=0.01,
        high=0.2,
        why="A request takes about that long from the decision to its engine's queue; a step that "
        "began earlier cannot include it.",
    ),
] = 0.05

OVERDUE_LIMIT_S: Annotated[
    float,
    Tuned(
        unit="seconds beyond the longest step",
        low=0.5,
        high=5,
        why="A core that is overdue for that long gets no new requests; its host ends it if it "
        "stays so.",
    ),
] = 1.5

SILENCE_LIMIT_S: Annotated[
    float,
    Tuned(
        unit="seconds",
        low=1,
        high=10,
        why="A host sends a message twice a second: it has missed six.",
    ),
] = 3.0

STEPS_AHEAD: Annotated[
    int,
    Tuned(
        unit="longest steps",
        low=1,
        high=4,
        why="An engine with work for that long does not run out of it before the next round.",
    ),
] = 2

WAITING_AHEAD: Annotated[
    int,
    Tuned(
        unit="waiting requests",
        low=2,
        high=64,
        why="Enough to replace requests that end in the same step.",
    ),
] = 8

# ---- Learned while serving

FRESH_DRAFTS: Annotated[
    float,
    Tuned(
        unit="weight of the newest mean",
        low=0.02,
        high=0.5,
        why="Engines are observed about ten times a second: the mean follows within a second.",
    ),
] = 0.1

TIGHTER_TIERS: Annotated[
    int,
    Tuned(
        unit="tiers of 2 %",
        low=1,
        high=8,
        why="Engines are asked for a slightly faster pace than was promised.",
        page="decisions/0002-slack-for-the-start-of-an-answer.md",
    ),
] = 3

TELLING_SURVIVALS: Annotated[
    int,
    Tuned(
        unit="answers that ended",
        low=2,
        high=50,
        why="Fewer do not tell whether KV is short, for which tight paces would wait.",
    ),
] = 5

SURVIVAL_FADES: Annotated[
    float,
    Tuned(
        unit="ended answers",
        low=64,
        high=65536,
        why="Beyond so many, the counts of a class are halved.",
    ),
] = 1024.0

TELLING_ANSWERS: Annotated[
    int,
    Tuned(
        unit="answers",
        low=2,
        high=50,
        why="Fewer do not show the long ones.",
    ),
] = 5

SHORTEST_ANSWERS: Annotated[
    float,
    Tuned(
        unit="share of a class's answers",
        low=0.01,
        high=0.5,
        why="So many may be too short to make up for the slack of their start.",
        page="decisions/0002-slack-for-the-start-of-an-answer.md",
    ),
] = 0.1

KV_SURE_ENOUGH: Annotated[
    float,
    Tuned(
        unit="share of a class's answers",
        low=0.5,
        high=0.99,
        why="A placed request has KV reserved for an answer longer than so many, until its engine "
        "reports it.",
    ),
] = 0.9

UNKNOWN_TOKENS: Annotated[
    int,
    Tuned(
        unit="tokens",
        low=32,
        high=2048,
        why="The assumed answer length of a class without observed answers: about that of a chat.",
    ),
] = 256

TRANSFER_HALF_LIFE_S: Annotated[
    float,
    Tuned(
        unit="seconds",
        low=10,
        high=600,
        why="A pair that looks bad gets no transfers that could correct it: it is tried again "
        "within minutes.",
        page="decisions/0021-fading-transfer-estimates.md",
    ),
] = 60.0

TRANSFER_WEIGHT: Annotated[
    float,
    Tuned(
        unit="transfers",
        low=1,
        high=50,
        why="The weight of past transfers beside a new one, which counts for a tenth.",
        page="decisions/0021-fading-transfer-estimates.md",
    ),
] = 9.0

LEAST_TRANSFER: Annotated[
    float,
    Tuned(
        unit="share of the link's configured times",
        low=0.01,
        high=0.5,
        why="No transfer is taken to be quicker.",
    ),
] = 0.1

LEAST_TRANSFER_SHARE: Annotated[
    float,
    Tuned(
        unit="share of the predicted time",
        low=0.01,
        high=0.5,
        why="No transfer is taken to be quicker.",
    ),
] = 0.1

FRESH_DELIVERY: Annotated[
    float,
    Tuned(
        unit="weight of the newest request",
        low=0.01,
        high=0.2,
        why="Means over the last twenty requests.",
        page="decisions/0018-dispatch-latency.md",
    ),
] = 0.05

MOST_DELIVERY: Annotated[
    float,
    Tuned(
        unit="share of a TTFT target",
        low=0.1,
        high=0.9,
        why="An engine has at least half of the target for a first token.",
        page="decisions/0018-dispatch-latency.md",
    ),
] = 0.5

QUICKEST: Annotated[
    float,
    Tuned(
        unit="quantile of requests",
        low=0.02,
        high=0.5,
        why="The time to the engine is what the quickest tenth of requests wait for their first "
        "step: the others also wait for a step to end.",
        page="decisions/0018-dispatch-latency.md",
    ),
] = 0.1

QUANTILE_STEP: Annotated[
    float,
    Tuned(
        unit="share by which one request moves the estimate",
        low=0.01,
        high=0.5,
        why="The quantile is tracked by stochastic approximation, and follows within some twenty "
        "requests.",
        page="decisions/0018-dispatch-latency.md",
    ),
] = 0.1

TOLERATED_BROKEN: Annotated[
    float,
    Tuned(
        unit="share of promises",
        low=0.005,
        high=0.1,
        why="A lower share would cost more refusals than it saves broken promises.",
        page="decisions/0024-tolerated-broken-promises.md",
    ),
] = 0.02

MARGIN_STEP: Annotated[
    float,
    Tuned(
        unit="of a promised time",
        low=0.002,
        high=0.05,
        why="What a broken promise adds to the safety margin; fifty kept ones remove it.",
        page="decisions/0024-tolerated-broken-promises.md",
    ),
] = 0.01

TTFT_MARGIN_FIRST: Annotated[
    float,
    Tuned(
        unit="share of what is left to a first token",
        low=0.05,
        high=0.4,
        why="The safety margin of an engine before its first outcome.",
        page="decisions/0024-tolerated-broken-promises.md",
    ),
] = 0.08

TTFT_MARGIN_LEAST: Annotated[
    float,
    Tuned(
        unit="share of what is left to a first token",
        low=0,
        high=0.2,
        why="No record is good enough to plan without a margin.",
        page="decisions/0024-tolerated-broken-promises.md",
    ),
] = 0.05

TTFT_MARGIN_MOST: Annotated[
    float,
    Tuned(
        unit="share of what is left to a first token",
        low=0.2,
        high=0.8,
        why="A wider margin would promise nothing, and without promises it cannot shrink.",
        page="decisions/0024-tolerated-broken-promises.md",
    ),
] = 0.4

TPOT_MARGIN_FIRST: Annotated[
    float,
    Tuned(
        unit="share of a pace",
        low=0.02,
        high=0.2,
        why="As for first tokens; a mean over an answer varies less.",
        page="decisions/0024-tolerated-broken-promises.md",
    ),
] = 0.03

TPOT_MARGIN_LEAST: Annotated[
    float,
    Tuned(
        unit="share of a pace",
        low=0,
        high=0.1,
        why="As for first tokens.",
        page="decisions/0024-tolerated-broken-promises.md",
    ),
] = 0.02

TPOT_MARGIN_MOST: Annotated[
    float,
    Tuned(
        unit="share of a pace",
        low=0.1,
        high=0.5,
        why="As for first tokens.",
        page="decisions/0024-tolerated-broken-promises.md",
    ),
] = 0.2

FRESH_PROMPTS: Annotated[
    float,
    Tuned(
        unit="weight of the newest prompt",
        low=0.005,
        high=0.1,
        why="Means over the last fifty prompts.",
        page="decisions/0014-long-prompts-deferred-in-bursts.md",
    ),
] = 0.02

LONG_PROMPT: Annotated[
    float,
    Tuned(
        unit="of the product of mean prompt time and mean TTFT",
        low=0.1,
        high=1,
        why="A prompt is deferred where its time multiplied by that of the promised prompts ahead "
        "exceeds this.",
        page="decisions/0014-long-prompts-deferred-in-bursts.md",
    ),
] = 0.3

SURELY_IN_TIME: Annotated[
    float,
    Tuned(
        unit="times what the prompt takes",
        low=1,
        high=2,
        why="A deferred prompt is placed at the last moment at which it is still in time.",
        page="decisions/0014-long-prompts-deferred-in-bursts.md",
    ),
] = 1.3

NEXT_LOOK_S: Annotated[
    float,
    Tuned(
        unit="seconds",
        low=0.02,
        high=0.5,
        why="The time until the next decision and the end of the step that runs then.",
        page="decisions/0014-long-prompts-deferred-in-bursts.md",
    ),
] = 0.1

LONGEST_RETRY_S: Annotated[
    float,
    Tuned(
        unit="seconds",
        low=10,
        high=600,
        why="The longest `Retry-After` of a refusal: few clients wait longer.",
    ),
] = 60.0

RETRY_TIMES: Annotated[
    float,
    Tuned(
        unit="times how long the overload has lasted",
        low=0.5,
        high=4,
        why="Two of three overloads are over by then (Gott 1993).",
    ),
] = 2.0

QUIET_S: Annotated[
    float,
    Tuned(
        unit="seconds",
        low=1,
        high=30,
        why="Refusals this far apart count as one overload, however short it was.",
    ),
] = 5.0

# ---- Sessions

FRESH_GAP: Annotated[
    float,
    Tuned(
        unit="weight of the newest gap",
        low=0.02,
        high=0.5,
        why="A mean over the last ten gaps between rounds of a class.",
        page="decisions/0012-blocks-reserved-for-sessions.md",
    ),
] = 0.1

FIRST_GAP_S: Annotated[
    float,
    Tuned(
        unit="seconds",
        low=0.1,
        high=5,
        why="The gap of a class without observed gaps: how long a tool takes.",
        page="decisions/0012-blocks-reserved-for-sessions.md",
    ),
] = 0.7

GAPS_AWAITED: Annotated[
    float,
    Tuned(
        unit="mean gaps",
        low=1,
        high=10,
        why="A session that has not come back after so long is not waited for any more.",
        page="decisions/0012-blocks-reserved-for-sessions.md",
    ),
] = 3.0

LONGEST_GAP_S: Annotated[
    float,
    Tuned(
        unit="seconds",
        low=1,
        high=60,
        why="No blocks are reserved for sessions that come back later: other KV is worth more.",
        page="decisions/0012-blocks-reserved-for-sessions.md",
    ),
] = 5.0

# ---- Classes that crowd out others

MIX_MEMORY_S: Annotated[
    float,
    Tuned(
        unit="seconds",
        low=5,
        high=120,
        why="Demand of so long ago counts for 1/e.",
        page="decisions/0019-classes-that-crowd-out-others.md",
    ),
] = 20.0

FRESH_CLASS: Annotated[
    float,
    Tuned(
        unit="least weight of the newest request",
        low=0.01,
        high=0.2,
        why="Means over the last twenty requests of a class.",
        page="decisions/0019-classes-that-crowd-out-others.md",
    ),
] = 0.05

ENOUGH_SERVED: Annotated[
    float,
    Tuned(
        unit="share of what is asked for",
        low=0.8,
        high=1,
        why="A fleet that serves that much leaves no class out.",
        page="decisions/0019-classes-that-crowd-out-others.md",
    ),
] = 0.95

WORTH_LEAVING_OUT: Annotated[
    float,
    Tuned(
        unit="times the value that all classes complete together",
        low=1,
        high=2,
        why="No class is left out for a smaller gain: the fluid model is an approximation.",
        page="decisions/0019-classes-that-crowd-out-others.md",
    ),
] = 1.1

LEAST_LEFT: Annotated[
    float,
    Tuned(
        unit="share of an engine",
        low=0.001,
        high=0.1,
        why="A TPOT that leaves less counts as leaving this much, so that shares stay finite.",
        page="decisions/0019-classes-that-crowd-out-others.md",
    ),
] = 0.01

SHARED_DECODES: Annotated[
    int,
    Tuned(
        unit="decodes of a step",
        low=4,
        high=256,
        why="The cost of one more decode is taken in a step of so many.",
        page="decisions/0019-classes-that-crowd-out-others.md",
    ),
] = 32

# ---- Admission

NO_LATER_S: Annotated[
    float,
    Tuned(
        unit="seconds",
        low=0,
        high=0.01,
        why="A new request may delay one that is late anyway by at most this.",
        page="decisions/0020-late-requests-do-not-block-an-engine.md",
    ),
] = 0.001

GAIN_MARGIN: Annotated[
    float,
    Tuned(
        unit="share of what drafts give on average",
        low=0,
        high=0.5,
        why="A margin for runs of rejected drafts.",
        page="decisions/0010-draft-lengths-by-class.md",
    ),
] = 0.2

POOR_LUCK: Annotated[
    float,
    Tuned(
        unit="of the paces that a step with drafts gives",
        low=0,
        high=1,
        why="A token may be late by this much after rejected drafts.",
        page="decisions/0004-late-and-drafting-decodes.md",
    ),
] = 0.3

STEPS_TO_RECOMPUTE: Annotated[
    float,
    Tuned(
        unit="usual steps",
        low=1,
        high=8,
        why="A TPOT of that length leaves time to recompute preempted KV.",
        page="decisions/0026-tight-paces-wait-where-kv-is-short.md",
    ),
] = 2.0

TRIED_WITHOUT_PROMISE: Annotated[
    int,
    Tuned(
        unit="engines",
        low=1,
        high=16,
        why="A simulation of each tells whether a request would be in time without a promise.",
    ),
] = 4

TRIED_AGAIN: Annotated[
    float,
    Tuned(
        unit="share of the time left to a request",
        low=0.02,
        high=0.5,
        why="A simulation up to its deadline takes milliseconds where many prompts wait, and shows "
        "the same again shortly after.",
    ),
] = 0.1

SLOWER: Annotated[
    float,
    Tuned(
        unit="times a pace, and times the end of the quickest way",
        low=1,
        high=2,
        why="An engine whose steps are that little longer counts as one of the same pace, and a "
        "way that ends that little later as equal.",
        page="decisions/0017-spread-instead-of-packing.md",
    ),
] = 1.1

MOST_AT_ONCE: Annotated[
    int,
    Tuned(
        unit="requests",
        low=4,
        high=62,
        why="Requests of one round; the others wait for the next one. Bounds the time of a round "
        "in a burst.",
        page="decisions/0013-order-of-held-requests.md",
    ),
] = 12

PLACED_BEFORE_S: Annotated[
    float,
    Tuned(
        unit="seconds",
        low=0,
        high=0.05,
        why="A held request is placed that long before the last moment at which an idle engine "
        "would be in time.",
        page="decisions/0013-order-of-held-requests.md",
    ),
] = 0.01

LONGEST_TURN_S: Annotated[
    float,
    Tuned(
        unit="seconds",
        low=5,
        high=25,
        why="Best effort waits that long for an engine with room; gateways hold a request for 30 "
        "s.",
        page="decisions/0025-turns-of-best-effort.md",
    ),
] = 20.0

BEST_OF_SIDE: Annotated[
    int,
    Tuned(
        unit="engines",
        low=1,
        high=16,
        why="Pairs are built from the best few of each side, since only the transfer depends on "
        "both.",
    ),
] = 4

MOST_OF_SIDE: Annotated[
    int,
    Tuned(
        unit="engines",
        low=2,
        high=64,
        why="The least loaded of each side get predictions; more would cost more time than they "
        "gain.",
    ),
] = 8

MOST_STAND_INS: Annotated[
    int,
    Tuned(
        unit="prefill engines",
        low=0,
        high=8,
        why="Prefill engines that are tried for a whole request beside the decode engines.",
        page="decisions/0023-roles-are-preferences.md",
    ),
] = 2

MOST_CACHED: Annotated[
    int,
    Tuned(
        unit="engines",
        low=1,
        high=8,
        why="Engines of a side that are chosen for their cached prefix.",
        page="decisions/0022-cached-prefixes-count-as-computed.md",
    ),
] = 4

MOST_PULLS: Annotated[
    int,
    Tuned(
        unit="engines",
        low=1,
        high=4,
        why="Engines on which a request may pull a prefix, the quickest first; more would leave no "
        "tries to the ways that compute it.",
    ),
] = 2

MOST_TRIED: Annotated[
    int,
    Tuned(
        unit="engines",
        low=2,
        high=16,
        why="Engines simulated for one request; more would cost more time than they gain.",
    ),
] = 5

PROMPT_LIKE_A_DECODE: Annotated[
    float,
    Tuned(
        unit="prompt tokens",
        low=32,
        high=2048,
        why="Counts as much as a decoding request where engines are ordered by load.",
    ),
] = 256.0

# ---- Desired engines

NO_BETTER: Annotated[
    float,
    Tuned(
        unit="of the share attained",
        low=0,
        high=0.02,
        why="An engine that adds less is not worth adding.",
    ),
] = 0.002

TELLING_TOKENS: Annotated[
    float,
    Tuned(
        unit="tokens",
        low=2,
        high=64,
        why="The mean TPOT of fewer says nothing.",
    ),
] = 8.0

PATIENCE_S: Annotated[
    float,
    Tuned(
        unit="seconds",
        low=1,
        high=30,
        why="A request without a TTFT target waits that long for room in a replay.",
    ),
] = 5.0

MOST_OF_DECODES: Annotated[
    float,
    Tuned(
        unit="share of a decode engine's time",
        low=0.5,
        high=0.99,
        why="Decodes are taken to leave at least the rest to prompts.",
    ),
] = 0.9

KV_MARGIN: Annotated[
    float,
    Tuned(
        unit="times the mean need of KV",
        low=1,
        high=2,
        why="The need varies around its mean.",
    ),
] = 1.1

SURELY_SHORT: Annotated[
    float,
    Tuned(
        unit="standard deviations",
        low=1,
        high=4,
        why="A fleet falls short by chance in one of a hundred cases.",
    ),
] = 2.33

MOST_BUSY: Annotated[
    float,
    Tuned(
        unit="share of an engine's time",
        low=0.5,
        high=1,
        why="The mean utilization that a fleet can sustain.",
    ),
] = 0.9
