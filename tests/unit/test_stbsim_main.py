"""The command line, on files."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from stbsim_emm import CA_SYSTEM_ID, DEVICE_ID, DEVICE_KEY, NO_END, NOW, in_force, later, message
from stbsim_emm import state as sealed_state

from dvbwire.psi import CAT_PID, TDT_PID, CaDescriptor, Cat, Tdt
from dvbwire.ts import NULL_PACKET, packetize_section
from stbsim.main import main

EMM_PID = 0x1F00


def _tdt(time: int, counter: int) -> bytes:
    section = Tdt(datetime.fromtimestamp(time, UTC)).to_section()
    return packetize_section(section, TDT_PID, counter)[0]


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    """A stream of a few packets that begins in the middle of one."""
    cat = Cat(0, (CaDescriptor(CA_SYSTEM_ID, EMM_PID),)).to_section()
    windows = (
        in_force((5, 0, NO_END), (6, 0, NOW + 100), (7, 0, NOW + 5)),
        later((8, 0, NOW + 3600, NOW + 7200)),
    )
    emms = [sealed_state(42, *windows)[0], message(99, "Hello", duration=2)]
    packets = [
        *packetize_section(cat, CAT_PID),
        _tdt(NOW, 0),
        *(
            packet
            for counter, emm in enumerate(emms)
            for packet in packetize_section(emm, EMM_PID, counter)
        ),
        NULL_PACKET,
        _tdt(NOW + 10, 1),
    ]
    path = tmp_path / "out.ts"
    path.write_bytes(b"\x00" * 50 + b"".join(packets))
    return path


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    """The one box, and one that is never addressed."""
    path = tmp_path / "devices.json"
    entries = [
        {"device_id": str(DEVICE_ID), "device_key": DEVICE_KEY.hex()},
        {"device_id": "2", "device_key": "00" * 32},
    ]
    path.write_text(json.dumps(entries))
    return path


def _run(*arguments: str | Path, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments], input=stdin)


def test_report_says_what_each_box_holds_at_the_end(stream: Path, devices: Path) -> None:
    """Windows that ended are gone, those that begin later are there."""
    result = _run("report", f"file:{stream}", "--devices", devices)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "as_of": "2027-01-15T08:00:10Z",
        "emm_pid": EMM_PID,
        "ca_system_id": CA_SYSTEM_ID,
        "packets": 6,
        "boxes": {
            "1001": {
                "status": "active",
                "products": {
                    "5": {"starts_at": None, "ends_at": None},
                    "6": {"starts_at": None, "ends_at": "2027-01-15T08:01:40Z"},
                    "8": {
                        "starts_at": "2027-01-15T09:00:00Z",
                        "ends_at": "2027-01-15T10:00:00Z",
                    },
                },
                "messages": [{"message_id": 99, "text": "Hello"}],
                "number": 42,
            },
            "2": {"status": None, "products": {}, "messages": [], "number": None},
        },
        "ignored": {},
    }


def test_report_looks_at_another_time_when_asked(stream: Path, devices: Path) -> None:
    """--as-of: an hour and a half later product 8 has begun and 6 is over."""
    instant = "2027-01-15T10:30:00+01:00"
    result = _run("report", f"file:{stream}", "--devices", devices, "--as-of", instant)
    report = json.loads(result.stdout)
    assert report["as_of"] == "2027-01-15T09:30:00Z"
    box = report["boxes"]["1001"]
    assert box["products"] == {
        "5": {"starts_at": None, "ends_at": None},
        "8": {"starts_at": None, "ends_at": "2027-01-15T10:00:00Z"},
    }
    assert box["messages"] == []


def test_watch_prints_json_lines_as_it_happens(stream: Path, devices: Path) -> None:
    """Read from standard input; each line has the stream's time."""
    result = _run("watch", "-", "--devices", devices, "--json", stdin=stream.read_bytes())
    assert result.exit_code == 0
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["event"] for event in events] == [
        "time",
        "state",
        "entitlement_gained",
        "entitlement_gained",
        "entitlement_gained",
        "message_shown",
        "time",
        "message_ended",
        "entitlement_lost",
    ]
    assert events[1] == {
        "time": "2027-01-15T08:00:00Z",
        "event": "state",
        "device_id": "1001",
        "epoch": 1,
        "number": 42,
        "status": "active",
    }
    assert events[-1] == {
        "time": "2027-01-15T08:00:10Z",
        "event": "entitlement_lost",
        "device_id": "1001",
        "product_id": 7,
    }


def test_watch_prints_a_line_per_event_for_people(stream: Path, devices: Path) -> None:
    """Time, box, what."""
    result = _run("watch", f"file:{stream}", "--devices", devices)
    assert [" ".join(line.split()) for line in result.stdout.splitlines()] == [
        "2027-01-15T08:00:00Z 1001 active, state 1/42",
        "2027-01-15T08:00:00Z 1001 gained product 5, no end",
        "2027-01-15T08:00:00Z 1001 gained product 6 until 2027-01-15T08:01:40Z",
        "2027-01-15T08:00:00Z 1001 gained product 7 until 2027-01-15T08:00:05Z",
        "2027-01-15T08:00:00Z 1001 shows message 99: 'Hello'",
        "2027-01-15T08:00:10Z 1001 ends message 99 (duration)",
        "2027-01-15T08:00:10Z 1001 lost product 7",
    ]


@pytest.mark.parametrize("command", ["watch", "report"])
def test_a_stream_without_cat_is_an_error(command: str, tmp_path: Path, devices: Path) -> None:
    """Said on stderr, exit status 2."""
    path = tmp_path / "nulls.ts"
    path.write_bytes(NULL_PACKET * 10)
    result = _run(command, f"file:{path}", "--devices", devices)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "no CAT with a CA_descriptor in 10 packets" in result.stderr


@pytest.mark.parametrize(
    "url",
    ["file:/no/such.ts", "http://localhost/", "udp://127.0.0.1", "udp://127.0.0.1:99999", "x"],
)
def test_a_url_that_cannot_be_opened_is_an_error(url: str, devices: Path) -> None:
    """Said on stderr with the URL, exit status 2."""
    result = _run("report", url, "--devices", devices)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"stbsim: {url}: ")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[1]",
        '[{"device_id": "1001"}]',
        '[{"device_id": "0", "device_key": "00112233445566778899aabbccddeeff"}]',
        '[{"device_id": "1099511627776", "device_key": "00112233445566778899aabbccddeeff"}]',
        '[{"device_id": "1001", "device_key": "00112233445566778899aabbccddee"}]',
        '[{"device_id": "1001", "device_key": "00112233445566778899aabbccddeexx"}]',
        json.dumps([{"device_id": "1", "device_key": "00112233445566778899aabbccddeeff"}] * 2),
    ],
)
def test_a_devices_file_of_another_form_is_an_error(
    content: str, tmp_path: Path, stream: Path
) -> None:
    """Said on stderr without any key, exit status 2."""
    path = tmp_path / "bad.json"
    path.write_text(content)
    result = _run("report", f"file:{stream}", "--devices", path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"stbsim: {path}: ")
    assert "00112233" not in result.stderr


def test_a_missing_devices_file_is_an_error(tmp_path: Path, stream: Path) -> None:
    """The file is named."""
    result = _run("report", f"file:{stream}", "--devices", tmp_path / "none.json")
    assert result.exit_code == 2
    assert "none.json: No such file or directory" in result.stderr


def test_a_time_without_an_offset_is_an_error(stream: Path, devices: Path) -> None:
    """--as-of wants RFC 3339."""
    for instant in ("2027-01-15T10:30:00", "tomorrow"):
        result = _run("report", f"file:{stream}", "--devices", devices, "--as-of", instant)
        assert result.exit_code == 2
        assert "--as-of" in result.stderr
