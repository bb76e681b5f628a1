"""stbsim as a program, fed over UDP by what the head-end's own layout seals."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dvbwire.psi import CAT_PID, CaDescriptor, Cat
from dvbwire.ts import NULL_PACKET, packetize_section
from portcullis.emm import (
    OPEN_END,
    EntitlementRecord,
    Kind,
    Message,
    State,
    Withdrawal,
    derive_kek,
    seal_set,
    segment_text,
)

CA_SYSTEM_ID = 0xFFF0
EMM_PID = 0x1F00
DEVICE_ID = 1_099_511_627_775
DEVICE_KEY = bytes(range(32))
NOW = 1_800_000_000


def _sealed(kind: Kind, number: int, payload: bytes) -> list[bytes]:
    return seal_set(
        derive_kek(DEVICE_KEY, CA_SYSTEM_ID, DEVICE_ID, 3),
        os.urandom(16),
        address=DEVICE_ID,
        kind=kind,
        epoch=3,
        number=number,
        payload=payload,
    )


def _packets(sections: list[bytes]) -> bytes:
    cat = Cat(0, (CaDescriptor(CA_SYSTEM_ID, EMM_PID),)).to_section()
    packets = packetize_section(cat, CAT_PID)
    counter = 0
    for section in sections:
        cut = packetize_section(section, EMM_PID, counter)
        counter += len(cut)
        packets += cut
    return b"".join(packets) + NULL_PACKET


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    """The one box."""
    path = tmp_path / "devices.json"
    entry = {"device_id": str(DEVICE_ID), "device_key": DEVICE_KEY.hex()}
    path.write_text(json.dumps([entry]))
    return path


@contextmanager
def _watching(url: str, devices: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run `stbsim watch` on a UDP URL; yields the process and its port once it listens."""
    command = [Path(sys.executable).parent / "stbsim", "watch", url, "--devices", devices, "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            words = process.stderr.readline().split()
            assert words[:3] == ["stbsim:", "listening", "on"]
            port = urlsplit(words[3]).port
            assert port is not None
            yield process, port
        finally:
            process.kill()


def _lines(process: subprocess.Popen[str], count: int) -> list[dict[str, object]]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(count)]


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_watch_follows_a_live_stream_until_it_is_told_to_end(
    ending: signal.Signals, devices: Path
) -> None:
    """A state of several parts, a text of several segments, a withdrawal; then a clean end."""
    records = tuple(
        EntitlementRecord(product_id, 0, OPEN_END, os.urandom(16)) for product_id in range(1, 21)
    )
    text = "Grüße 你好 " * 60
    segments = segment_text(text)
    sections = _sealed(
        Kind.STATE, 8, State(active=True, utc=NOW, entitlements=records).to_payload()
    )
    assert len(sections) > 1
    for place, share in enumerate(segments, start=1):
        segment = Message(place, len(segments), 10, 0, 0, NOW + 60, share)
        sections += _sealed(Kind.MESSAGE, 5, segment.to_payload())
    sections += _sealed(Kind.WITHDRAWAL, 5, Withdrawal(NOW + 60).to_payload())
    with _watching("udp://127.0.0.1:0", devices) as (process, port):
        stream = _packets(sections)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for start in range(0, len(stream), 7 * 188):
                sender.sendto(stream[start : start + 7 * 188], ("127.0.0.1", port))
        events = _lines(process, 23)
        process.send_signal(ending)
        rest, errors = process.communicate()
    assert process.returncode == 0
    assert (rest, errors) == ("", "")
    assert [event["event"] for event in events] == [
        "state",
        *["entitlement_gained"] * 20,
        "message_shown",
        "message_ended",
    ]
    assert {event["device_id"] for event in events} == {str(DEVICE_ID)}
    assert events[21]["text"] == text


def test_watch_joins_a_multicast_group(devices: Path) -> None:
    """The group's datagrams reach the boxes."""
    group = "239.255.17.3"
    payload = State(active=False, utc=NOW).to_payload()
    with (
        _watching(f"udp://{group}:0", devices) as (process, port),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        sender.sendto(_packets(_sealed(Kind.STATE, 1, payload)), (group, port))
        [event] = _lines(process, 1)
    assert event["status"] == "removed"


def test_a_port_in_use_is_an_error(devices: Path) -> None:
    """Said on stderr, exit status 2."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        url = f"udp://127.0.0.1:{other.getsockname()[1]}"
        command = [Path(sys.executable).parent / "stbsim", "report", url, "--devices", devices]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == f"stbsim: {url}: [Errno 98] Address already in use\n"
