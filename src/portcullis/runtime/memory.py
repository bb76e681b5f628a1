"""Memory that was freed, back to the system."""

import ctypes


def give_back() -> None:
    """Have the C library return what it keeps of freed memory; where it cannot, do nothing.

    To be called when a large piece of work is over: glibc keeps what it left behind for ever.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
