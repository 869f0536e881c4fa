"""From an engine's prefix cache over core, host and planner: whatever is lost on the way, the index
ends as the cache is, and never holds more than a cache can.
"""

from collections import deque
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.planner.state.prefix_index import PrefixIndex
from shared.engine.prefix_spans import PrefixSpans
from shared.engine.state import EngineState
from shared.requests import PromptHashes
from tests.unit.planner.builders import make_engine, make_report

BLOCK_TOKENS, SPAN_BLOCKS = 32, 2
SPAN_TOKENS = BLOCK_TOKENS * SPAN_BLOCKS
PROMPTS, LONGEST_BLOCKS = 4, 8
MOST_BLOCKS = 12  # in the cache
KEPT_REPORTS = 3  # by the host while the planner is away


def block(prompt: int, place: int) -> int:
    return 100 * prompt + place


def spans_of(hashes: set[int]) -> set[int]:
    return {one for one in hashes if (one % 100 + 1) % SPAN_BLOCKS == 0}


@dataclass(slots=True)
class Cache:
    """Blocks in the order of their last use, several of which may have one hash."""

    spans: PrefixSpans = field(default_factory=lambda: PrefixSpans(BLOCK_TOKENS))
    blocks: deque[int] = field(default_factory=deque)

    def compute(self, prompt: int, blocks: int, *, known: int) -> None:
        """Stores blocks of a prompt behind its first `known` ones, in place of the oldest."""
        hashes = [block(prompt, place) for place in range(blocks)]
        there = set(self.blocks)
        hits = next((at for at, one in enumerate(hashes[:known]) if one not in there), known)
        for one in reversed(hashes[:hits]):
            self.blocks.remove(one)
            self.blocks.append(one)
        new = hashes[hits:]
        while len(self.blocks) + len(new) > MOST_BLOCKS:
            self.spans.removed([self.blocks.popleft()])
        self.spans.stored(hashes[hits - 1] if hits else None, new)
        self.blocks.extend(reversed(new))  # the end of a prompt goes first


class Fleet(RuleBasedStateMachine):
    """One engine and its planner."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex()
        self.start_engine()

    @rule()
    def start_engine(self) -> None:
        self.cache = Cache()
        self.engine = make_engine("d0", prefix_span_tokens=SPAN_TOKENS)
        self.host = EngineState(self.engine, unsent=deque(maxlen=KEPT_REPORTS))
        self.attach()

    def attach(self) -> None:
        self.index.lost("d0")
        self.host.restate()

    @rule(
        prompt=st.integers(1, PROMPTS),
        blocks=st.integers(1, LONGEST_BLOCKS),
        known=st.integers(0, LONGEST_BLOCKS),
    )
    def compute(self, prompt: int, blocks: int, known: int) -> None:
        self.cache.compute(prompt, blocks, known=min(known, blocks))

    @rule()
    def forget_all(self) -> None:
        self.cache.blocks.clear()
        self.cache.spans.cleared()

    @rule()
    def report(self) -> None:
        self.host.take(make_report(prefixes=self.cache.spans.take()))

    @rule()
    def report_into_a_full_pipe(self) -> None:
        self.cache.spans.take()
        self.cache.spans.restate()

    @rule()
    def tell_planner(self) -> None:
        for report in self.host.take_unsent():
            self.index.hear(self.engine, report.prefixes)

    @rule()
    def lose_stream_with_all_on_it(self) -> None:
        self.host.take_unsent()
        self.attach()

    @rule()
    def start_planner_again(self) -> None:
        self.index = PrefixIndex()
        self.attach()

    def known(self) -> set[int]:
        every = {block(p, at) for p in range(1, PROMPTS + 1) for at in range(LONGEST_BLOCKS)}
        return {
            one
            for one in every
            if self.index.found(PromptHashes(span_tokens=SPAN_TOKENS, hashes=(one,)))
        }

    @invariant()
    def the_index_holds_no_more_than_the_cache_can(self) -> None:
        assert self.index.tokens("d0") == SPAN_TOKENS * len(self.known())
        assert self.index.tokens("d0") <= SPAN_TOKENS * MOST_BLOCKS
        assert len(self.host.prefixes) <= MOST_BLOCKS
        assert len(self.host.unsent) <= KEPT_REPORTS

    def teardown(self) -> None:
        self.report()
        self.tell_planner()
        assert self.known() == spans_of(set(self.cache.blocks))


TestPrefixNews = Fleet.TestCase
TestPrefixNews.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
