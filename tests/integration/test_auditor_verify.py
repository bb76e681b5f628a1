"""`portcullis audit verify`: an edit, a deletion, a cut tail, a fork is found, and where."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from evidence_log import CHAIN, auditor, keys_changed, order, verify
from sqlalchemy import delete, update

from portcullis.auditor.anchors import parse_anchor
from portcullis.auditor.auditor import Auditor
from portcullis.auditor.chainlog import Header, directory_name
from portcullis.auditor.heads import Signer
from portcullis.runtime.chain import Line, link_after
from portcullis.store.database import engine_for, writing
from portcullis.store.migrate import migrate
from portcullis.store.schema import chains, key_events, requests

Lines = list[bytes]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three heads over nine requests and two key events, anchored; the newest file of each."""
    home = tmp_path_factory.mktemp("original")
    engine = engine_for(f"sqlite:///{home}/p.db")
    migrate(engine)
    anchors = [parse_anchor(f"dir:{home}/anchors")]
    one = Auditor(engine, home / "audit", Signer.load(home / "key.pem"), anchors)
    for first in (1, 4, 7):
        order(engine, first, first + 1, first + 2)
        if first < 7:
            keys_changed(engine, first)
        one.follow()
        one.sign()
        one.anchor()
    one.close()
    engine.dispose()
    return home


class Case:
    """A copy of the original, to be tampered with."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.engine = engine_for(f"sqlite:///{home}/p.db")

    def path(self, chain: str = CHAIN) -> Path:
        """The one file of a chain."""
        [path] = (self.home / "audit" / directory_name(chain)).iterdir()
        return path

    def change(self, with_lines: Callable[[Lines], Lines], chain: str = CHAIN) -> None:
        """Rewrite the lines of a chain; the header is line 0."""
        lines = self.path(chain).read_bytes().splitlines(keepends=True)
        self.path(chain).write_bytes(b"".join(with_lines(lines)))

    def found(self, *, database: bool = False, anchors: bool = False) -> list[str]:
        """What verification finds, as "number: what"."""
        report = verify(
            self.engine if database else None,
            self.home,
            anchors=[self.home / "anchors"] if anchors else [],
        )
        return [
            f"{finding.where.rpartition('/')[2]}: {finding.what}" for finding in report.findings
        ]


@pytest.fixture
def case(original: Path, tmp_path: Path) -> Case:
    """A fresh copy."""
    shutil.copytree(original, tmp_path / "home")
    return Case(tmp_path / "home")


def relinked(lines: Lines, start: int = 1) -> Lines:
    """The lines with every link made to fit again, as a careful forger would."""
    header = Header.parse(lines[0])
    assert header is not None
    link, fitting = header.prev, lines[:1]
    for seq, raw in enumerate(lines[1:], start):
        line = Line.parse(raw[:-1])
        assert line is not None
        content = b'{"seq":%d%s' % (seq, line.content[line.content.index(b",") :])
        link = link_after(link, content)
        fitting.append(Line(seq, content, link).encode())
    return fitting


def edited(lines: Lines) -> Lines:
    """The lines with one word of the fifth changed."""
    return [*lines[:5], lines[5].replace(b"sms", b"own"), *lines[6:]]


def test_the_original_is_as_it_was_written(case: Case) -> None:
    """With database and anchors."""
    assert case.found(database=True, anchors=True) == []


def test_an_edit_is_found_where_it_is(case: Case) -> None:
    """The link no longer fits; nor does the head that signs the line."""
    case.change(edited)
    first, second = case.found()
    assert "number 5: was changed" in first
    assert "number 6: head 2 signs another log" in second


def test_an_edit_with_fitting_links_is_found_by_the_next_head(case: Case) -> None:
    """Who can write the files cannot sign."""
    case.change(lambda lines: relinked(edited(lines)))
    assert [found.partition(": ")[2] for found in case.found()] == [
        "head 2 signs another log up to here",
        "head 3 signs another log up to here",
    ]
    found = case.found(database=True)
    assert any("number 5: is another in the database" in one for one in found)


@pytest.mark.parametrize(
    ("tamper", "where", "what"),
    [
        (lambda lines: [*lines[:4], *lines[5:]], "number 4", "number 4 is not there"),
        (lambda lines: [*lines[:4], *lines[7:]], "number 4", "number 4 to 6 is not there"),
        (lambda lines: [lines[0], *lines[3:]], "number 1", "number 1 to 2 is not there"),
        (lambda lines: [*lines[:5], lines[4], *lines[5:]], "number 5", "number 4 stands there"),
        (
            lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]],
            "number 4",
            "number 4 is not there",
        ),
        (lambda lines: [*lines[:4], b"noise\n", *lines[5:]], "number 4", "cannot be read"),
        (lambda lines: [*lines[:4], b"\xff" * 9, *lines[5:]], "number 4", "cannot be read"),
        (lambda lines: lines[:-1], "", "its tail up to 9 was cut off"),
        (lambda lines: lines[:3], "", "ends at number 2: its tail up to 9"),
        (lambda lines: lines[:1], "", "ends at number 0"),
        (lambda lines: relinked([*lines[:4], *lines[5:]]), "", "head 2 signs another log"),
        (lambda lines: relinked(lines[:4] + lines[3:]), "", "head 2 signs another log"),
        (lambda lines: [lines[0].replace(b"8080/0", b"8081/0"), *lines[1:]], "", "is of chain"),
        (
            lambda lines: (
                [*lines[:4], Header(CHAIN, 6, Line.parse(lines[5][:-1]).link).encode()]  # type: ignore[union-attr]
                + lines[6:]
            ),
            "",
            "begins at 6, not at 4",
        ),
    ],
)
def test_what_is_taken_away_added_or_moved_is_found(
    case: Case, tamper: Callable[[Lines], Lines], where: str, what: str
) -> None:
    """Of one chain, by its own links and heads."""
    case.change(tamper)
    found = case.found()
    assert any(where in one and what in one for one in found), found


def test_a_chain_that_is_gone_is_found(case: Case) -> None:
    """With its directory; so are the heads."""
    shutil.rmtree(case.path().parent)
    assert any("ends at number 0: its tail up to 9" in one for one in case.found())
    shutil.rmtree(case.path("heads").parent)
    assert [one.partition(": ")[2][:12] for one in case.found(anchors=True)] == ["was anchored"] * 3


def test_heads_cut_with_the_log_are_found_by_anchor_and_database(case: Case) -> None:
    """A tail cut everywhere on this host leaves a sound, shorter record: others know better."""
    case.change(lambda lines: lines[:7])
    case.change(lambda lines: lines[:3], "heads")
    assert case.found() == []
    [found] = case.found(anchors=True)
    assert "was anchored and is not there" in found
    late = datetime.now(UTC) + timedelta(minutes=2)
    [finding] = verify(case.engine, case.home, now=late).findings
    assert "the log ends at number 6, the database at 9" in finding.what


def test_a_head_that_is_changed_or_of_another_key_is_found(case: Case) -> None:
    """Its signature covers all it says, and its place."""
    case.change(
        lambda lines: [*lines[:2], lines[2].replace(b'"to":6', b'"to":5'), *lines[3:]], "heads"
    )
    found = case.found()
    assert any("number 2: was changed" in one for one in found)


def test_heads_signed_by_another_key_are_found(case: Case) -> None:
    """Whoever rules the host has a key of his own, but not the one that is kept elsewhere."""
    forger = Signer(Ed25519PrivateKey.generate())

    def forged(lines: Lines) -> Lines:
        header = Header.parse(lines[0])
        assert header is not None
        link, fitting = header.prev, lines[:1]
        for raw in lines[1:]:
            line = Line.parse(raw[:-1])
            assert line is not None
            said = {k: v for k, v in line.record["head"].items() if k not in {"seq", "prev"}}
            content = b'{"seq":%d,"record":%s' % (line.seq, forger.record(line.seq, link, said))
            link = link_after(link, content)
            fitting.append(Line(line.seq, content, link).encode())
        return fitting

    case.change(forged, "heads")
    found = case.found()
    assert sum("is not signed by the auditor's key" in one for one in found) == 3


def test_a_fork_is_found_by_its_anchors(case: Case) -> None:
    """An old copy of record and key goes on elsewhere: both are sound, one was anchored."""
    fork = Case(case.home.parent / "fork")
    shutil.copytree(case.home, fork.home)
    order(fork.engine, 90)
    two = auditor(fork.engine, fork.home)
    two.follow()
    two.sign()
    two.close()
    order(case.engine, 91)
    anchors = [parse_anchor(f"dir:{case.home}/anchors")]
    one = Auditor(case.engine, case.home / "audit", Signer.load(case.home / "key.pem"), anchors)
    one.follow()
    one.sign()
    one.anchor()
    one.close()
    assert case.found(database=True, anchors=True) == []
    assert fork.found(database=True) == []
    shutil.rmtree(fork.home / "anchors")
    shutil.copytree(case.home / "anchors", fork.home / "anchors")
    [found] = fork.found(anchors=True)
    assert "number 4: is another head than the one anchored" in found


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (update(requests).where(requests.c.chain_seq == 3).values(client_id="own"), "is another"),
        (update(requests).where(requests.c.chain_seq == 3).values(body='{"name": "x"}'), "another"),
        (update(requests).where(requests.c.chain_seq == 3).values(chain_seq=99), "is not in"),
        (delete(requests).where(requests.c.chain_seq == 3), "is not in the database"),
        (delete(requests).where(requests.c.chain_seq < 3), "not old enough"),
        (delete(requests), "not old enough"),
        (update(key_events).values(actor="nobody"), "is another in the database"),
        (delete(key_events).where(key_events.c.chain_seq == 2), "is not in the database"),
        (delete(chains).where(chains.c.writer == "keys"), "knows no such chain"),
        (
            update(requests)
            .where(requests.c.chain_seq == 3)
            .values(chain_id=None, received_at=datetime(2099, 1, 1, tzinfo=UTC)),
            "1 rows are in no chain",
        ),
    ],
)
def test_a_database_that_was_changed_afterwards_is_found(
    case: Case, statement: object, expected: str
) -> None:
    """By anybody who may write to it: the record says what was there."""
    with writing(case.engine) as connection:
        connection.execute(statement)  # type: ignore[call-overload]
    found = case.found(database=True)
    assert any(expected in one for one in found), found


def test_what_is_not_signed_yet_is_a_note(case: Case) -> None:
    """Lines since the last head; a torn last line."""
    order(case.engine, 50)
    one = auditor(case.engine, case.home)
    one.follow()
    one.close()
    case.change(lambda lines: [*lines, b'{"seq":'])
    report = verify(case.engine, case.home)
    assert report.findings == []
    assert ["torn" in report.notes[0], "not signed yet" in report.notes[1]] == [True, True]
