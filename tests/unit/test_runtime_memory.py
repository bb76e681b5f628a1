"""What a process keeps of the memory it has freed."""

import subprocess
import sys

_IN_TWO_THREADS = """
import ctypes, threading
from portcullis.runtime.memory import share_one_heap
{before}
thread = threading.Thread(target=lambda: ctypes.CDLL(None).malloc(1000))
thread.start()
thread.join()
ctypes.CDLL(None).malloc_stats()
"""


def _heaps(before: str) -> int:
    """How many heaps the C library says that there are."""
    script = _IN_TWO_THREADS.format(before=before)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    return run.stderr.count(b"Arena ")


def test_threads_share_one_heap() -> None:
    """Each would have one of its own."""
    assert _heaps("") == 2
    assert _heaps("share_one_heap()") == 1
