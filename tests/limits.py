"""How long tests wait for what must come, also on two cores that thirty processes share. No test
measures time by them.
"""

from typing import Final

START_LIMIT_S: Final = 900.0  # a process that loads vLLM, or compiles, is ready
ANSWER_LIMIT_S: Final = 300.0  # anything else has answered or ended
POLL_LIMIT_S: Final = 30.0  # one look of a wait, which is then tried again
RUN_LIMIT_S: Final = 1500.0  # a measurement with starts of its own has ended
