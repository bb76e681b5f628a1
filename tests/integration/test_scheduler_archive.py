"""Requests beyond their retention: in files that are proven good, before their rows go."""

import gzip
import hashlib
import json
import resource
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scheduler_bench import ChainMaker
from sqlalchemy import Engine, func, select

from portcullis.cli.main import cli
from portcullis.scheduler.archive import MANIFEST, Archive, ArchiveError
from portcullis.scheduler.config import SchedulerConfig
from portcullis.scheduler.figures import Figures
from portcullis.scheduler.jobs import Jobs, NotLeadingError
from portcullis.store import archive as slices
from portcullis.store.archive import SliceChangedError, drop_slice, due_slices
from portcullis.store.database import engine_for, writing
from portcullis.store.partitions import first_id
from portcullis.store.schema import airings, requests
from tests.operations import blocks

JANUARY = datetime(2024, 1, 5, 12, tzinfo=UTC)
FEBRUARY = datetime(2024, 2, 5, 12, tzinfo=UTC)
MARCH = datetime(2024, 3, 5, 12, tzinfo=UTC)
TWO_YEARS = timedelta(days=731)


class Bench:
    """A database with three months of requests, and the scheduler's jobs on it."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self.engine = engine
        self.directory = directory
        self.leads = True
        self.now = JANUARY
        self.jobs = self.jobs_with(str(directory))
        self.jobs.purge()  # on MariaDB: partitions from January 2024 on
        for moment in (JANUARY, FEBRUARY, MARCH):
            self.insert(moment, "a" * 20, device_id=7, wanted=1)
            self.insert(moment, "b" * 20, outcome="malformed", body='{"raw": "{"}')
        aired = JANUARY + timedelta(seconds=2)
        with writing(engine) as connection:
            connection.execute(
                airings.insert(),
                [
                    {
                        "device_id": 7,
                        "message_id": 0,
                        "wanted": wanted,
                        "sealed_at": JANUARY + timedelta(seconds=wanted),
                        "first_aired_at": aired,
                    }
                    for wanted in (1, 2)
                ],
            )
        self.now = MARCH + TWO_YEARS  # of March there may be requests that are younger

    def jobs_with(self, archive_dir: str | None) -> Jobs:
        """The jobs of a scheduler, one that was started again."""
        self.config = SchedulerConfig(archive_dir=archive_dir)
        return Jobs(self.engine, ChainMaker(), self.config, lambda: self.leads, lambda: self.now)

    def insert(self, moment: datetime, end: str, **values: Any) -> None:  # noqa: ANN401 (columns)
        """A request; `end`: the rest of its id."""
        row = {
            "request_id": first_id(moment)[:12] + end,
            "client_id": "sms",
            "transaction_id": f"t-{moment:%m}",
            "kind": "adddevice",
            "body": '{"device_id": "7"}',
            "outcome": "accepted",
            "received_at": moment,
        }
        with writing(self.engine) as connection:
            connection.execute(requests.insert().values(row | values))

    def months(self) -> list[str]:
        """The months that the database has requests of."""
        with self.engine.connect() as connection:
            found = connection.execute(select(requests.c.received_at)).scalars()
            return sorted({f"{moment:%Y%m}" for moment in found})

    def lines(self, month: str) -> list[dict[str, Any]]:
        """An archived month, as gzip and JSON read it."""
        text = gzip.decompress((self.directory / f"requests-{month}.jsonl.gz").read_bytes())
        return [json.loads(line) for line in text.splitlines()]

    def manifest(self) -> list[dict[str, Any]]:
        """The manifest."""
        return [json.loads(line) for line in (self.directory / MANIFEST).read_text().splitlines()]


@pytest.fixture
def bench(database_url: str, tmp_path: Path) -> Iterator[Bench]:
    """A bench on each kind of database."""
    engine = engine_for(database_url)
    yield Bench(engine, tmp_path / "archive")
    engine.dispose()


def test_whole_months_go_to_files_and_only_then_from_the_tables(bench: Bench) -> None:
    """A line a request with its airing; the manifest says what each file is, as sha256sum would."""
    bench.jobs.archive()
    assert bench.months() == ["202403"]
    accepted, refused = bench.lines("202401")
    assert (accepted["device_id"], accepted["body"]) == ("7", {"device_id": "7"})
    assert accepted["received_at"] == "2024-01-05T12:00:00Z"
    assert accepted["sealed_at"] == "2024-01-05T12:00:01Z"
    assert accepted["first_aired_at"] == "2024-01-05T12:00:02Z"
    assert refused["outcome"] == "malformed"
    assert "sealed_at" not in refused
    january, february = bench.manifest()
    assert (january["month"], february["month"]) == ("202401", "202402")
    data = (bench.directory / january["file"]).read_bytes()
    assert january["file_sha256"] == hashlib.sha256(data).hexdigest()
    assert january["content_sha256"] == hashlib.sha256(gzip.decompress(data)).hexdigest()
    assert (january["rows"], january["bytes"]) == (2, len(data))
    assert january["last_request_id"] == refused["request_id"]
    assert {path.stat().st_mode & 0o777 for path in bench.directory.iterdir()} == {0o600}
    bench.jobs.archive()
    assert len(bench.manifest()) == 2


def test_the_archive_is_read_by_other_tools_as_the_page_says(bench: Bench) -> None:
    """Digests, a transaction, a device: with jq, zcat and sha256sum."""
    bench.jobs.archive()
    [block] = blocks("archive.md", "Reading")
    block = block.replace("/var/lib/portcullis/archive", str(bench.directory))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.replace('"1001"', '"7"')],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [line.rpartition(": ")[2] for line in done.stdout.splitlines()[:2]] == ["OK", "OK"]
    assert '"2024-01-05T12:00:00Z"' in done.stdout


def test_without_a_place_nothing_goes_and_an_operator_is_told(bench: Bench) -> None:
    """Months stay, counted; with a place none is overdue for long."""
    bench.jobs_with(None).archive()
    bench.jobs_with(None).purge()
    assert bench.months() == ["202401", "202402", "202403"]
    figures = Figures(bench.engine, lambda: True, bench.config)
    figures.read()
    samples = {sample.name: sample.value for one in figures.collect() for sample in one.samples}
    # By the database's own clock March is over, too.
    assert samples["portcullis_scheduler_archive_overdue_months"] >= 2
    assert "set scheduler.archive_dir" in str(figures.archive_notice())


def test_what_a_kill_left_behind_is_put_right(bench: Bench) -> None:
    """Half a file; a file not yet in the manifest; an entry whose file has not got its name."""
    bench.directory.mkdir()
    (bench.directory / "requests-202401.part").write_bytes(b"half")
    (bench.directory / "requests-202402.jsonl.gz").write_bytes(b"not in the manifest")
    rows = next(iter(slices.read_slice(bench.engine, due_slices(bench.engine, bench.now)[0])))
    entry = Archive(bench.directory).keep("202401", [rows])
    assert entry is not None
    (bench.directory / entry.file).rename(bench.directory / "requests-202401.part")
    bench.jobs.archive()
    assert bench.months() == ["202403"]
    names = {one["month"]: one["file"] for one in bench.manifest()}
    # What is there is never written over.
    assert names == {"202401": "requests-202401.jsonl.gz", "202402": "requests-202402-2.jsonl.gz"}
    assert len(bench.lines("202401")) == 2
    assert list(bench.directory.glob("*.part")) == []


def test_an_archived_month_that_is_still_there_is_only_dropped(bench: Bench) -> None:
    """Killed between file and rows: the same content is not kept twice; a damaged file is."""
    due = due_slices(bench.engine, bench.now)
    archive = Archive(bench.directory)
    with archive.locked():
        archive.keep("202401", slices.read_slice(bench.engine, due[0]))
        archive.keep("202402", slices.read_slice(bench.engine, due[1]))
    damaged = bench.directory / "requests-202402.jsonl.gz"
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"123456789")
    bench.jobs.archive()
    assert bench.months() == ["202403"]
    names = sorted(one["file"] for one in bench.manifest())
    assert names == ["requests-202401.jsonl.gz", "requests-202402-2.jsonl.gz"]


def test_rows_that_were_not_archived_do_not_go(bench: Bench) -> None:
    """A month with one row more than its file stays."""
    (january, *_) = due_slices(bench.engine, bench.now)
    with pytest.raises(SliceChangedError, match="1 archived, 2 there"):
        drop_slice(bench.engine, january, 1)
    assert bench.months() == ["202401", "202402", "202403"]


def test_a_scheduler_that_no_longer_leads_drops_nothing(bench: Bench) -> None:
    """Another may be at it."""
    bench.leads = False
    with pytest.raises(NotLeadingError):
        bench.jobs.archive()
    assert bench.months() == ["202401", "202402", "202403"]


def test_two_never_write_the_archive_at_once(bench: Bench) -> None:
    """The second is told, and its rows stay."""
    with Archive(bench.directory).locked(), pytest.raises(ArchiveError, match="another process"):
        bench.jobs.archive()
    with bench.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(requests)).scalar_one() == 6


def test_a_disk_that_is_full_keeps_the_rows(mariadb_url: str, tmp_path: Path) -> None:
    """The kernel lets the file grow no longer: nothing goes, and the next run does it."""
    engine = engine_for(mariadb_url)
    bench = Bench(engine, tmp_path / "archive")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(ArchiveError, match="File too large"):
            bench.jobs.archive()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert bench.months() == ["202401", "202402", "202403"]
    bench.jobs.archive()
    assert bench.months() == ["202403"]
    engine.dispose()


def test_an_archived_request_is_shown_by_the_command_that_shows_orders(
    bench: Bench, database_url: str, tmp_path: Path
) -> None:
    """By its id, and by the SMS's number of it; without the archive's place it says what to set."""
    (january,) = (one for one in _stored(bench) if one["transaction_id"] == "t-01")
    bench.jobs.archive()
    config = tmp_path / "portcullis.toml"

    def show(scheduler: str, *words: str) -> tuple[int, str]:
        config.write_text(f'[database]\nurl = "{database_url}"\n[scheduler]\n{scheduler}')
        command = ["requests", "show", *words, "--json", "--config", str(config)]
        done = CliRunner().invoke(cli, command)
        return done.exit_code, done.output

    there = f'archive_dir = "{bench.directory}"\n'
    by_id = show(there, january["request_id"])
    by_transaction = show(there, "--transaction-id", "t-01", "--client", "sms")
    for status, output in (by_id, by_transaction):
        assert status == 0, output
        said = json.loads(output.splitlines()[0])
        assert said["file"] == "requests-202401.jsonl.gz"
        assert said["received_at"] == "2024-01-05T12:00:00Z"
    status, output = show(there, "--transaction-id", "t-01", "--client", "other")
    assert (status, "neither in the database nor in" in output) == (1, True)
    status, output = show("", january["request_id"])
    assert (status, "names no scheduler.archive_dir" in output) == (1, True)


def _stored(bench: Bench) -> list[dict[str, Any]]:
    """Accepted requests that the database has."""
    with bench.engine.connect() as connection:
        rows = connection.execute(select(requests).where(requests.c.outcome == "accepted"))
        return [dict(row) for row in rows.mappings()]
