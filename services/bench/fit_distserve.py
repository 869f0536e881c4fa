"""Step times by DistServe's fitted formulas, on a grid of steps, without noise."""

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from services.bench.fit_tables import Table, Timed
from shared.batch_time import Step
from shared.errors import ConfigError

_LENGTHS = (16, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 94, 95, 128)
_CONTEXTS = (64, 256, 512, 1024, 1536, 2048)


def distserve(folder: Path) -> Iterator[Table]:
    """Prefills of one to four prompts, and decodes; the formulas cover no mixed step."""
    for path in sorted(folder.glob("distserve_profiler-*.json")):
        try:
            for model, by_parallel in json.loads(path.read_bytes()).items():
                for parallel, formulas in by_parallel.items():
                    name = f"{path.stem.replace('_profiler', '')} {model} tp{parallel}"
                    rows = tuple(_rows(formulas))
                    yield Table(name=name, note="formulas fitted to steps by others", rows=rows)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path} does not hold the formulas: {error}") from error


def _rows(formulas: Mapping[str, Any]) -> Iterator[Timed]:
    a, b, c = formulas["prefill"]
    for prompts, tokens in itertools.product((1, 2, 4), _LENGTHS):
        step = Step()
        for _ in range(prompts):
            step = step.with_chunk(tokens)
        yield Timed(step=step, seconds=(a + prompts * tokens * (b + c * tokens)) / 1e3)
    for batch, context in itertools.product(_BATCHES, _CONTEXTS):
        small = batch < formulas["decoding_large_small_bs_threshold"]
        a, b, c = formulas["decoding_smallbs" if small else "decoding_largebs"]
        step = Step(decodes=batch, decode_context_tokens=batch * context)
        yield Timed(step=step, seconds=(a + b * batch * context + c * batch) / 1e3)
