"""A `portcullis` command that ends, or hangs, at a named point of its work.

    python -m tests.faults.kill_at FILE python -m portcullis.cli.main emmg --config …

A point is a function and when: "portcullis.emmg.worker:finish commit". FILE names one, and a
signal (`aim`); the process that comes there takes the file away and sends itself the signal, so
that it happens once. Without the file the command works as ever. Nothing of it is in the services:
functions are wrapped from here, and commits are heard of by SQLAlchemy's own event.
"""

import functools
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

from portcullis.cli.main import main

FUNCTIONS = {
    "emmg": (
        "portcullis.emmg.worker:claim",
        "portcullis.emmg.worker:read_orders",
        "portcullis.emmg.worker:Worker._seal",
        "portcullis.emmg.worker:finish",
    ),
    "scheduler": (
        "portcullis.scheduler.leadership:take_lease",
        "portcullis.scheduler.jobs:insert_chain",
        "portcullis.scheduler.jobs:drop_slice",
        "portcullis.store.rotation:prepare_next_epoch",
        "portcullis.store.rotation:insert_next_chain",
        "portcullis.store.rotation:go_live",
        "portcullis.store.rotation:mark_chunk_for_reseal",
        "portcullis.store.rekey:begin_rotation",
        "portcullis.store.rekey:mark_chunk",
        "portcullis.store.rekey:check_chunk",
        "portcullis.store.rekey:note_airing",
        "portcullis.store.purge:_tombstone",
        "portcullis.store.purge:delete_tombstones",
    ),
    "cycler": (
        "portcullis.cycler.follower:next_changes",
        "portcullis.cycler.stream:take_lease",
        "portcullis.cycler.stream:Stream._send",
        "portcullis.cycler.reports:write_first_airings",
        "portcullis.cycler.asrun:AsRunWriter.write",
        "portcullis.cycler.asrun:AsRunWriter._note",
    ),
    "keys": ("portcullis.scheduler.master:replace_sealed",),
}
"""What is wrapped in each command."""

WHENS = ("before", "commit", "after")
"""A function is called, is about to commit, has returned something that tells of work done."""


def command_at(file: Path) -> list[str]:
    """What stands before a command, for `file` to say where it ends."""
    return [sys.executable, "-m", "tests.faults.kill_at", str(file)]


def aim(file: Path, point: str, number: signal.Signals = signal.SIGKILL) -> None:
    """Have whichever process is run on `file` and comes to the point first be sent the signal."""
    whole = file.with_suffix(".part")
    whole.write_text(f"{point} {int(number)}", encoding="utf-8")
    whole.rename(file)


class _Points:
    """The wrapped functions of this process, and which of them each thread is in."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._inside = threading.local()

    def wrap(self, place: str) -> None:
        """Make the points of a function known, in the module or class where it is looked up."""
        module, _, path = place.partition(":")
        *owners, name = path.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        setattr(owner, name, self._wrapped(place, getattr(owner, name)))

    def _wrapped(self, place: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (any function)
            self._reach(f"{place} before")
            self._inside.place = place
            try:
                result = function(*args, **kwargs)
            finally:
                self._inside.place = None
            if result is None or result:
                self._reach(f"{place} after")
            return result

        return run

    def committing(self, _connection: Connection) -> None:
        """Hear of a transaction that is about to be committed."""
        place = getattr(self._inside, "place", None)
        if place is not None:
            self._reach(f"{place} commit")

    def _reach(self, point: str) -> None:
        try:
            wanted, _, number = self._file.read_text(encoding="utf-8").rpartition(" ")
        except FileNotFoundError:
            return
        if wanted == point:
            self._file.unlink(missing_ok=True)
            os.kill(os.getpid(), int(number))


if __name__ == "__main__":
    points = _Points(Path(sys.argv[1]))
    command = sys.argv[sys.argv.index("portcullis.cli.main") :]
    for place in FUNCTIONS[command[1]]:
        points.wrap(place)
    event.listen(Engine, "commit", points.committing)
    sys.argv = command
    main()
