"""The numbers by which the step former is tuned, each with its reason. What was measured of them
stands in docs/decisions.
"""

from typing import Final

# Share of the time to their deadlines that prompts need, of the engine alone. Below IN_HURRY all
# decodes share the step as far as prompts stay on time: a token costs least beside others. Below
# AT_EASE steps are shorter until decodes are ahead: a prompt that comes later finds slack to use.
IN_HURRY: Final = 0.5
AT_EASE: Final = 0.25
AHEAD: Final = 4.0  # paces that decodes get ahead
# Steps without prompts: for so long at most a prompt that ends in a step waits for others. It keeps
# steps short for requests of a tighter TTFT than any that was promised before.
COMPANY: Final = 4.0
BEFORE_DUE: Final = 0.9  # of the time to a deadline: now and then steps last longer than expected
# For a decode to get ahead, or to be brought back when it is late without stopping all others,
# steps take so much of what lies between a step of one decode and the pace, by what a step gives.
CATCH_UP: Final = 0.8
# Best effort makes a step with promises in it longer by this share at most, and by more only while
# more blocks are free than the promised hold: a slower decode holds its KV for longer, which is
# what the next promise may be short of.
BESIDE: Final = 0.02
BESIDE_IN_ROOM: Final = 0.15
# Paces that decodes may be late to save a prompt: they make up for it, a lost first token cannot.
MAY_WAIT: Final = 0.5
MAY_BE_LATE: Final = 4.0  # paces; beyond, a decode without a promise is not tried in time any more
SMALLEST_CHUNK: Final = 16  # tokens that the first in line gets where no time is left for any
