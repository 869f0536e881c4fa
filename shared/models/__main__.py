"""`slos-serve model NAME`: makes a packaged model in the cache before anything else starts."""

import sys
from collections.abc import Sequence

from shared.entry import exit_status
from shared.errors import ConfigError
from shared.models.resolve import resolve_model


def main(argv: Sequence[str]) -> int:
    """Prints what vLLM will load. Raises ConfigError."""
    if len(argv) != 1 or argv[0].startswith("-"):
        raise ConfigError(
            "model takes one name: embedded, tiny, a folder, or a hub name like owner/name"
        )
    print(resolve_model(argv[0], say=lambda line: print(line, flush=True)))
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:], program="slos-serve model"))
