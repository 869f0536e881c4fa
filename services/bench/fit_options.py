"""What `bench fit` can be told, and where it looks for measured steps when told nothing."""

from dataclasses import dataclass
from pathlib import Path

from shared.options import option

_USUAL = Path("shared", "data", "timing")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """All have defaults."""

    data: str = option(
        "", help="folder of measured tables; none: shared/data/timing here or further up"
    )
    steps: str = option(
        "", help="one more table: a CSV file with the columns of composed_steps.csv"
    )
    json: bool = option(False, help="print one JSON object instead of a table")

    def folder(self, here: Path) -> Path | None:
        """Where the tables are; None when they are nowhere."""
        if self.data:
            return Path(self.data) if Path(self.data).is_dir() else None
        places = (parent / _USUAL for parent in (here, *here.parents))
        return next((place for place in places if place.is_dir()), None)
