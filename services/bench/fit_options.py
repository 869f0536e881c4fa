"""Options of `bench fit`, and the default place of measured steps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from shared.options import option

_USUAL = Path("shared", "data", "timing")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """Options of `bench fit`."""

    data: str = option(
        "", help="folder of measured tables; none: shared/data/timing here or further up"
    )
    steps: str = option(
        "", help="one more table: a CSV file with the columns of composed_steps.csv"
    )
    engine: bool = option(False, help="also measure an engine on this machine")
    engine_limit_s: Annotated[float, Field(gt=0)] = option(
        30.0, help="how long the measurement of the engine may take"
    )
    model: str = option("embedded", help="of the engine: embedded, tiny, a folder or a hub name")
    dtype: str = option("float32", help="of the engine, as vLLM spells it")
    max_model_len: int = option(2048, help="of the engine: longest prompt plus output, tokens")
    kv_cache_gib: float = option(1.0, help="of the engine: its KV cache, GiB")
    json: bool = option(False, help="print one JSON object instead of a table")

    def folder(self, here: Path) -> Path | None:
        """The folder of the tables; None if there is none."""
        if self.data:
            return Path(self.data) if Path(self.data).is_dir() else None
        places = (parent / _USUAL for parent in (here, *here.parents))
        return next((place for place in places if place.is_dir()), None)
