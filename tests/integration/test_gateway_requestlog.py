"""The request log: rotation, and a disk that takes nothing for a while."""

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from portcullis.gateway import requestlog
from portcullis.gateway.requestlog import RequestLog
from portcullis.runtime.config import ConfigError

FILLER = b" " * 1_000_000 + b"\n"  # so that the file is the longest of this process
LINE_BYTES = len('{"n":1000000,"text":"' + "x" * 100 + '"}\n')


@contextmanager
def disk_full(path: Path, room_bytes: int) -> Iterator[None]:
    """Let the kernel refuse what would make any file longer than this one and a little (EFBIG)."""
    at_bytes = path.stat().st_size + room_bytes
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write(log: RequestLog, *numbers: int) -> None:
    """Lines of LINE_BYTES each."""
    for number in numbers:
        log.write({"n": 1_000_000 + number, "text": "x" * 100, "nothing": None})


def numbers_in(path: Path) -> list[int]:
    """The lines of a file, each of which must be whole."""
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    return [json.loads(line)["n"] - 1_000_000 for line in lines]


def test_lines_wait_while_the_disk_refuses_them(tmp_path: Path) -> None:
    """In order, none torn, none twice; `/readyz` says so meanwhile; they follow by themselves."""
    path = tmp_path / "requests.jsonl"
    path.write_bytes(FILLER)
    log = RequestLog(path, 10_000_000, 2)
    write(log, 0, 1)
    assert log.notice() is None
    with disk_full(path, LINE_BYTES + 50):
        write(log, 2, 3, 4)
        assert log.notice() == f"{path}: File too large; 2 lines wait"
        log.retry()
        assert numbers_in(path) == [0, 1, 2]
    log.retry()
    assert log.notice() is None
    write(log, 5)
    assert numbers_in(path) == [0, 1, 2, 3, 4, 5]
    log.close()


def test_the_oldest_lines_are_lost_when_too_many_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory has a bound; what is missing is counted."""
    monkeypatch.setattr(requestlog, "MAX_WAITING_LINES", 3)
    path = tmp_path / "requests.jsonl"
    path.write_bytes(FILLER)
    log = RequestLog(path, 10_000_000, 2)
    lost = requestlog.metrics.REQUEST_LOG_LOST._value.get()
    with disk_full(path, 0):
        write(log, *range(5))
    assert requestlog.metrics.REQUEST_LOG_LOST._value.get() == lost + 2
    log.close()
    assert numbers_in(path) == [2, 3, 4]


def test_full_files_are_rotated_and_the_oldest_goes(tmp_path: Path) -> None:
    """A line is never split; the newest file has no number; a restart appends."""
    path = tmp_path / "log" / "requests.jsonl"
    for start in (0, 4):
        log = RequestLog(path, 3 * LINE_BYTES, 2)
        write(log, *range(start, start + 4))
        log.close()
    write(log := RequestLog(path, 3 * LINE_BYTES, 2), 8, 9)
    log.close()
    assert numbers_in(path) == [9]
    assert numbers_in(path.with_name("requests.jsonl.1")) == [6, 7, 8]
    assert numbers_in(path.with_name("requests.jsonl.2")) == [3, 4, 5]
    assert len(list(path.parent.iterdir())) == 3
    assert path.stat().st_mode & 0o777 == 0o640 & ~os.umask(os.umask(0))


def test_a_place_that_can_never_be_written_is_an_error_of_the_configuration(
    tmp_path: Path,
) -> None:
    """Not a gateway that waits for ever."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"gateway.request_log: .*Not a directory|File exists"):
        RequestLog(tmp_path / "file" / "requests.jsonl", 1000, 2)
