"""What Python and the C library do about memory by themselves, and had better not."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_M_ARENA_MAX = -8  # of glibc's malloc.h


def share_one_heap() -> None:
    """Have all threads allocate from one heap; where the C library has but one, do nothing.

    glibc makes a heap for each of the first threads, and what is freed in one serves none of the
    others. For a process whose threads seldom allocate at once, as they wait for each other.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Have the C library return what it keeps of freed memory; where it cannot, do nothing.

    To be called when a large piece of work is over: glibc keeps what it left behind for ever.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def loading_modules() -> Iterator[None]:
    """Collect no garbage meanwhile: modules leave hardly any, and make much to look through."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
