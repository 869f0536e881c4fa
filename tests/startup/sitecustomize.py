"""What Python runs first in each process that tests start: it collects garbage less often.

The import of vLLM makes objects that stay. With Python's own threshold of 700 new objects a quarter
of its CPU time goes to looking for garbage among them, and tests start forty such processes.
"""

import gc

gc.set_threshold(20_000)
