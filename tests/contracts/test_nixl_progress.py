import subprocess
import sys

IDLE = """
import os, time
os.environ["UCX_TLS"] = "tcp,sm,self"
from shared.kv_transfer.nixl_progress import let_progress_thread_sleep
let_progress_thread_sleep()
let_progress_thread_sleep()
from nixl._api import nixl_agent, nixl_agent_config
agent = nixl_agent("it", nixl_agent_config(num_threads=4))
before = time.process_time()
time.sleep(1)
print((time.process_time() - before) < 0.1)
"""


def test_an_idle_nixl_agent_leaves_its_core_free() -> None:
    command = [sys.executable, "-c", IDLE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    assert done.stdout.splitlines()[-1] == "True", done.stderr
