import subprocess
import sys

import pytest

# Six blocks live at once, as activations do; each is under the largest threshold, together they are far over a trim's.
ROUNDS = """
import resource, sys
import numpy as np
from workers.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def round():
    blocks = [np.ones(24 << 20, np.uint8) for _ in range(6)]
round()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    round()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", ROUNDS, how], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_what_is_freed_is_kept_for_the_next_candidate() -> None:
    assert faults("keep") < 0.1 * faults("as it is")
