import os
import subprocess
import sys

import pytest

from workers.pools.malloc_settings import KEEPING

# Six blocks live at once, as activations do; each is under the largest threshold, together they are far over a trim's
# and over a heap of a thread's arena.
ROUNDS = """
import resource, sys, threading
import numpy as np
from workers.pools.malloc_settings import keep_freed_memory
def round():
    blocks = [np.ones(24 << 20, np.uint8) for _ in range(6)]
def rounds():
    round()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        round()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
if "keep" in sys.argv:
    keep_freed_memory()
if "thread" in sys.argv:
    thread = threading.Thread(target=rounds)
    thread.start()
    thread.join()
else:
    rounds()
"""


def faults(*how: str, **environment: str) -> int:
    command = [sys.executable, "-c", ROUNDS, *how]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **environment})
    return int(done.stdout)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")


def test_what_a_child_frees_is_kept_for_the_next_candidate() -> None:
    assert faults("keep") < 0.1 * faults()


def test_what_a_thread_frees_is_kept_where_the_process_began_so() -> None:
    assert faults("thread", **KEEPING) < 0.1 * faults("thread")
