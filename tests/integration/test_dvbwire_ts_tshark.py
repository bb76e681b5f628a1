"""Transport streams as Wireshark reads them: continuity, sections, checksums, tables."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dvbwire.psi import (
    CAT_PID,
    PAT_PID,
    TDT_PID,
    CaDescriptor,
    Cat,
    Descriptor,
    ElementaryStream,
    Pat,
    Pmt,
    Tdt,
)
from dvbwire.ts import NULL_PACKET, packetize_section

EMM_PID = 0x0100
PMT_PID = 0x1000
CHECKED = ("-o", "mpeg_sect.verify_crc:TRUE")


def emm(body: bytes) -> bytes:
    """Make a unique EMM section (table_id 0x82) around `body`."""
    return b"\x82" + (0x7000 | len(body)).to_bytes(2) + body


CAT = Cat(3, (CaDescriptor(0xFFF0, EMM_PID, b"\x01\x02"), Descriptor(0x80, b"private")))
PMT = Pmt(
    1,
    5,
    0x0101,
    (CaDescriptor(0xFFF0, 0x0200),),
    (ElementaryStream(0x1B, 0x0101), ElementaryStream(0x0F, 0x0102, (Descriptor(0x52, b"\x01"),))),
)
# The least of each: where it goes and how often, so that counters wrap.
CONTENT = [
    (PAT_PID, Pat(1, 2, {0: 0x10, 1: PMT_PID}).to_section()),
    (CAT_PID, CAT.to_section()),
    (PMT_PID, PMT.to_section()),
    (TDT_PID, Tdt(datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)).to_section()),
    (EMM_PID, emm(bytes(180))),
    (EMM_PID, emm(bytes(253))),
]


def stream(rounds: int = 20) -> bytes:
    """Lay the content out, over and over, between null packets."""
    counters = dict.fromkeys((pid for pid, _ in CONTENT), 0)
    packets = []
    for _ in range(rounds):
        for pid, section in CONTENT:
            cut = packetize_section(section, pid, counters[pid])
            counters[pid] = (counters[pid] + len(cut)) % 16
            packets += [*cut, NULL_PACKET]
    return b"".join(packets)


def tshark(path: Path, *arguments: str) -> str:
    """Return what tshark prints of a transport stream file."""
    command = ["tshark", "-n", "-r", str(path), *CHECKED, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return run.stdout


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Write the stream to a file."""
    path = tmp_path / "out.ts"
    path.write_bytes(stream())
    return path


def test_wireshark_has_nothing_to_say_against_the_stream(capture: Path) -> None:
    """No gap in any counter, no wrong checksum, no section that does not end."""
    assert tshark(capture, "-q", "-z", "expert").strip() == ""


@pytest.mark.parametrize("damage", ["checksum", "continuity"])
def test_wireshark_would_have_noticed(tmp_path: Path, damage: str) -> None:
    """A flipped bit in a PAT, or a packet missing: the silence above means something."""
    data = bytearray(stream())
    if damage == "checksum":
        data[10] ^= 1
    else:
        del data[4 * 188 * 10 : 4 * 188 * 10 + 2 * 188]
    path = tmp_path / "bad.ts"
    path.write_bytes(data)
    assert tshark(path, "-q", "-z", "expert").strip() != ""


@pytest.mark.parametrize(
    ("filter_", "fields", "expected"),
    [
        (
            "mpeg_pat",
            ["mpeg_pat.tsid", "mpeg_pat.version", "mpeg_pat.prog_map_pid"],
            ["0x0001", "0x02", "0x0010,0x1000"],
        ),
        (
            "mpeg_ca",
            ["mpeg_descr.ca.sys_id", "mpeg_descr.ca.pid", "mpeg_descr.ca.private"],
            ["0xfff0", "0x0100", "0102"],
        ),
        (
            "mpeg_pmt",
            ["mpeg_pmt.pg_num", "mpeg_pmt.pcr_pid", "mpeg_pmt.stream.elementary_pid"],
            ["0x0001", "0x0101", "0x0101,0x0102"],
        ),
    ],
)
def test_wireshark_reads_the_tables_as_meant(
    capture: Path, filter_: str, fields: list[str], expected: list[str]
) -> None:
    """Every one of the 20 repetitions."""
    wanted = [argument for field in fields for argument in ("-e", field)]
    rows = tshark(capture, "-Y", filter_, "-T", "fields", "-E", "separator=|", *wanted).splitlines()
    assert len(rows) == 20
    assert {row.lower() for row in rows} == {"|".join(expected)}


def test_wireshark_reads_the_time_as_meant(capture: Path) -> None:
    """20 times the moment that was written."""
    rows = tshark(capture, "-Y", "dvb_tdt", "-T", "fields", "-e", "dvb_tdt.utc_time").splitlines()
    assert len(rows) == 20
    assert all("May  4, 2026 03:02:01" in row for row in rows)
