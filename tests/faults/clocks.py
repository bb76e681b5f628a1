"""A wall clock that a test sets, as processes see it: libfaketime. No other clock is touched."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LIBRARY = "/usr/$LIB/faketime/libfaketimeMT.so.1"  # $LIB: the loader's
_SITE = Path(__file__).parent / "faketime"
_SHARED = Path("/dev/shm")


class SteppingClock:
    """The wall clock of every process that is started with `environ`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)
        file.chmod(0o644)  # the database server is another user
        self.environ = {
            "LD_PRELOAD": _LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_CACHE_DURATION": "1",  # how soon it is seen, in seconds
            "PYTHONPATH": str(_SITE),
        }

    def set(self, ahead_s: int) -> None:
        """Set it so many seconds ahead of the real one; below 0: behind it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead_s:+d}\n", encoding="ascii")
        new.chmod(0o644)
        new.rename(self._file)


@contextmanager
def tidied() -> Iterator[None]:
    """Remove what libfaketime's processes have left that did not exit in order.

    A later process of the same number would not start over it.
    """
    _tidy()
    yield
    _tidy()


def _tidy() -> None:
    for pattern in ("faketime_shm_*", "sem.faketime_sem_*"):
        for path in _SHARED.glob(pattern):
            pid = path.name.rpartition("_")[2]
            if not Path(f"/proc/{pid}").exists() and path.stat().st_uid == os.getuid():
                path.unlink(missing_ok=True)
