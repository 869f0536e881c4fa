"""`python -m services` starts one node, as `slos-serve up` does."""

import sys

from services.cli import main

if __name__ == "__main__":
    sys.exit(main(["up", *sys.argv[1:]]))
