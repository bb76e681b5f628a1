"""The auditor: from committed rows to chained files, whatever happens in between."""

import gzip
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from evidence_log import CHAIN, auditor, keys_changed, order, verify
from sqlalchemy import Engine, delete

from portcullis.auditor.anchors import FileDrop, parse_anchor
from portcullis.auditor.auditor import Auditor
from portcullis.auditor.chainlog import Keeping, directory_name, files_of, raw_lines
from portcullis.auditor.heads import Signer
from portcullis.runtime.config import ConfigError
from portcullis.store.chains import begin_series
from portcullis.store.database import engine_for, writing
from portcullis.store.migrate import migrate
from portcullis.store.schema import key_events, requests


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A fresh database."""
    made = engine_for(f"sqlite:///{tmp_path}/p.db")
    migrate(made)
    yield made
    made.dispose()


@pytest.fixture
def either(database_url: str) -> Iterator[Engine]:
    """A fresh database of both kinds in turn: what the auditor reads there."""
    made = engine_for(database_url)
    yield made
    made.dispose()


def lines(home: Path, chain: str = CHAIN) -> list[bytes]:
    """Every line of a chain, headers included."""
    return [
        raw for path in files_of(home / "audit" / directory_name(chain)) for raw in raw_lines(path)
    ]


def passes(engine: Engine, home: Path, keeping: Keeping | None = None) -> int:
    """One run of an auditor: follow, sign, close."""
    one = auditor(engine, home, keeping)
    count = one.follow()
    one.sign()
    one.close()
    return count


def test_every_committed_row_is_a_line_once(either: Engine, tmp_path: Path) -> None:
    """Several writers, restarts in between, nothing new: nothing written."""
    order(either, 1, 2)
    keys_changed(either, 1)
    assert passes(either, tmp_path) == 3
    assert passes(either, tmp_path) == 0
    order(either, 3)
    order(either, 4, writer="gateway@other:8080")
    assert passes(either, tmp_path) == 2
    report = verify(either, tmp_path)
    assert report.findings == []
    assert (report.records, report.heads) == (5, 2)
    assert report.chains == [CHAIN, "gateway@other:8080/0", "keys/0"]
    assert '"body":"{\\"name\\":\\"näme 1\\"}"'.encode() in lines(tmp_path)[1]


@pytest.mark.parametrize("torn", [b'{"seq":4,"rec', b"x", b'{"seq":4,"record":{},"link":"00"}\n'])
def test_a_line_torn_by_a_crash_is_written_again_from_the_database(
    engine: Engine, tmp_path: Path, torn: bytes
) -> None:
    """Whether it is half a line, noise, or nothing that a chain has."""
    order(engine, 1, 2, 3)
    passes(engine, tmp_path)
    whole = lines(tmp_path)
    [path] = files_of(tmp_path / "audit" / directory_name(CHAIN))
    order(engine, 4)
    path.write_bytes(b"".join(whole) + torn)
    assert passes(engine, tmp_path) == 1
    assert lines(tmp_path)[:4] == whole
    assert verify(engine, tmp_path).findings == []


@pytest.mark.parametrize("left", range(6))
def test_a_crash_at_any_point_leaves_a_log_that_goes_on(
    engine: Engine, tmp_path: Path, left: int
) -> None:
    """After a new file, its header, lines that no head has signed, a torn head."""
    order(engine, 1, 2, 3)
    passes(engine, tmp_path)
    before = lines(tmp_path), lines(tmp_path, "heads")
    order(engine, 4, 5)
    passes(engine, tmp_path)
    [log] = files_of(tmp_path / "audit" / directory_name(CHAIN))
    [heads] = files_of(tmp_path / "audit" / "heads")
    after = lines(tmp_path), lines(tmp_path, "heads")
    cut = {
        0: (b"", b"".join(before[1])),
        1: (before[0][0], b"".join(before[1])),
        2: (b"".join(before[0]), b"".join(before[1])),
        3: (b"".join(after[0]), b"".join(before[1])),
        4: (b"".join(after[0])[:-20], b"".join(after[1])[:-20]),
        5: (b"".join(after[0]), b"".join(after[1])[:-20]),
    }[left]
    log.write_bytes(cut[0])
    heads.write_bytes(cut[1])
    passes(engine, tmp_path)
    assert lines(tmp_path) == after[0]
    report = verify(engine, tmp_path)
    assert (report.findings, report.notes) == ([], [])


def test_files_are_closed_compressed_and_removed_when_they_are_old(
    engine: Engine, tmp_path: Path
) -> None:
    """The chain runs through them; what is older than is kept may be gone, nothing else."""
    keeping = Keeping(file_bytes=10_000, keep_s=1e9)
    for start in range(1, 400, 40):
        order(engine, *range(start, start + 40))
        passes(engine, tmp_path, keeping)
    files = files_of(tmp_path / "audit" / directory_name(CHAIN))
    assert len(files) > 4
    assert [path.suffix for path in files] == [*[".gz"] * (len(files) - 1), ".jsonl"]
    assert verify(engine, tmp_path).findings == []
    # Closing was interrupted: both are there.
    plain = files[0].with_suffix("")
    plain.write_bytes(gzip.decompress(files[0].read_bytes()))
    assert verify(engine, tmp_path).findings == []
    passes(engine, tmp_path)
    files[0].unlink()
    plain.unlink()
    [finding] = verify(None, tmp_path).findings
    assert "are not there" in finding.what
    later = datetime.now(UTC) + timedelta(days=1101)
    assert verify(None, tmp_path, now=later).findings == []


def test_old_files_are_removed_by_the_auditor(engine: Engine, tmp_path: Path) -> None:
    """Never the newest two."""
    for start in range(1, 400, 40):
        order(engine, *range(start, start + 40))
        passes(engine, tmp_path, Keeping(file_bytes=10_000, keep_s=-1))
    assert len(files_of(tmp_path / "audit" / directory_name(CHAIN))) == 2


def test_a_row_that_is_taken_away_before_the_auditor_comes_is_a_line_that_says_so(
    either: Engine, tmp_path: Path
) -> None:
    """The number is there, the row is not; the others go on, and it stays a finding."""
    order(either, 1, 2, 3)
    keys_changed(either, 1, 2)
    with writing(either) as connection:
        connection.execute(delete(requests).where(requests.c.chain_seq == 2))
        connection.execute(delete(key_events).where(key_events.c.chain_seq == 2))
    passes(either, tmp_path)
    order(either, 4)
    passes(either, tmp_path)
    report = verify(either, tmp_path)
    assert [finding.what[:11] for finding in report.findings] == ["was missing"] * 2
    assert "number 2" in report.findings[0].where
    assert report.records == 6


def test_an_auditor_that_comes_late_begins_with_what_there_is(
    engine: Engine, tmp_path: Path
) -> None:
    """What was purged before it first ran is not missing."""
    order(engine, 1, 2, 3)
    with writing(engine) as connection:
        connection.execute(delete(requests).where(requests.c.chain_seq < 3))
    passes(engine, tmp_path)
    order(engine, 4)
    passes(engine, tmp_path)
    report = verify(engine, tmp_path)
    assert (report.findings, report.records) == ([], 2)
    assert report.notes == [f"{CHAIN}: begins at 3, with the auditor"]


def test_a_restored_database_goes_on_in_a_series_of_its_own(either: Engine, tmp_path: Path) -> None:
    """What was lost is in the log alone; without `db restored` the numbers that went back show."""
    order(either, 1, 2, 3)
    passes(either, tmp_path)
    with writing(either) as connection:  # what restoring an older backup does
        connection.execute(delete(requests).where(requests.c.chain_seq == 3))
        connection.exec_driver_sql("UPDATE chains SET seq = 2")
    one = auditor(either, tmp_path)
    one.follow()
    assert "was it restored" in one.trouble["back"]
    one.close()
    assert [finding.what for finding in verify(either, tmp_path).findings] == [
        "is not in the database"
    ]
    with writing(either) as connection:
        begin_series(connection)
    order(either, 9)
    passes(either, tmp_path)
    report = verify(either, tmp_path)
    assert report.findings == []
    assert report.notes == [f"{CHAIN}: 1 records were lost when the database was restored"]


def test_one_directory_has_one_auditor(engine: Engine, tmp_path: Path) -> None:
    """Two would fork the chain."""
    one = auditor(engine, tmp_path)
    with pytest.raises(ConfigError, match="another auditor"):
        auditor(engine, tmp_path)
    one.close()
    auditor(engine, tmp_path).close()


def test_a_full_disk_loses_nothing(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be written is written later; what was half written is cut off."""
    order(engine, 1)
    one = auditor(engine, tmp_path)
    one.follow()
    one.sign()
    order(engine, 2)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", _disk_full)
        with pytest.raises(OSError, match="full"):
            one.follow()
    one.follow()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", _disk_full)
        with pytest.raises(OSError, match="full"):
            one.sign()
    one.sign()
    one.close()
    report = verify(engine, tmp_path)
    assert (report.findings, report.notes, report.records) == ([], [], 2)


def _disk_full(_descriptor: int) -> None:
    raise OSError(28, "disk full")


def test_heads_are_laid_down_where_they_are_asked_for(engine: Engine, tmp_path: Path) -> None:
    """A file for each, a datagram to a syslog; what fails is said and tried again."""
    order(engine, 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(tmp_path / "log"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as remote:
            remote.bind(("127.0.0.1", 0))
            anchors = [
                parse_anchor(f"dir:{tmp_path}/drop/here"),
                parse_anchor(f"syslog:{tmp_path}/log"),
                parse_anchor(f"syslog:127.0.0.1:{remote.getsockname()[1]}"),
            ]
            (tmp_path / "drop").write_text("in the way")
            signer = Signer.load(tmp_path / "key.pem")
            one = Auditor(engine, tmp_path / "audit", signer, anchors)
            one.anchor()
            one.follow()
            one.sign()
            one.anchor()
            assert "anchor 1" in one.trouble["anchor 0"]
            (tmp_path / "drop").unlink()
            one.anchor()
            one.anchor()
            assert one.trouble == {}
            one.close()
            received = syslog.recv(2000), remote.recv(2000)
    [file] = (tmp_path / "drop" / "here").iterdir()
    (tmp_path / "messages").write_bytes(b"noise\n" + received[0] + b"\n")
    assert received[0].startswith(b"<86>1 20")
    anchored = [tmp_path / "drop" / "here", tmp_path / "messages"]
    assert verify(engine, tmp_path, anchors=anchored).findings == []
    line = file.read_bytes()
    file.write_bytes(line.replace(b'"from":1', b'"from":2'))
    assert "another head" in verify(engine, tmp_path, anchors=[file.parent]).findings[0].what
    assert FileDrop(file.parent)


@pytest.mark.parametrize("text", ["", "dir:", "s3:bucket", "syslog:host", "syslog:host:x"])
def test_an_anchor_that_is_none_is_refused(text: str) -> None:
    """With what is expected."""
    with pytest.raises(ConfigError, match=r"auditor\.anchors"):
        parse_anchor(text)


def test_the_signing_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Made with mode 0600; one that others can read is refused, as is another kind."""
    path = tmp_path / "keys" / "key.pem"
    Signer.load(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="0600"):
        Signer.load(path)
    path.chmod(0o600)
    path.write_text("none")
    with pytest.raises(ConfigError, match="not a PEM"):
        Signer.load(path)
