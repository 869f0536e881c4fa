"""The folder on disk for results that take long to make."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`SLOS_CACHE`, else a folder in the user's cache."""
    named = os.environ.get("SLOS_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "slos-serve"
