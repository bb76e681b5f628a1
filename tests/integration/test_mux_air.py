"""A real multi-service stream through the multiplexer, judged by tshark and ffprobe."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dvbwire.psi import CaDescriptor
from dvbwire.ts import NULL_PID, SectionReassembler, packetize_section, pid_of
from portcullis.mux.inputs import FileInput
from portcullis.mux.inserter import EmmQueue, Inserter

SERVICES = 3
EMM_PID = 0x1F00
RATE = 4_000_000
EMM_SIZES = (60, 178, 183, 250)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three services at a constant rate, two seconds."""
    path = tmp_path_factory.mktemp("mux") / "in.ts"
    command = ["ffmpeg", "-v", "error", "-y"]
    for service in range(SERVICES):
        command += ["-f", "lavfi", "-i", f"testsrc=size=160x120:rate=25:duration={2 + service}"]
        command += ["-f", "lavfi", "-i", f"sine=frequency={300 + service * 100}:duration=2"]
    for stream in range(2 * SERVICES):
        command += ["-map", str(stream)]
    command += ["-c:v", "mpeg2video", "-b:v", "300k", "-c:a", "mp2", "-t", "2"]
    for service in range(SERVICES):
        first = 2 * service
        command += ["-program", f"title=Service{service}:st={first}:st={first + 1}"]
    command += ["-f", "mpegts", "-muxrate", str(RATE), str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


@pytest.fixture(scope="module")
def aired(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """The recording played more than twice with EMMs on two PIDs; and the EMMs of the first."""
    path = tmp_path_factory.mktemp("mux") / "out.ts"
    player = FileInput(recording, None)
    inserter = Inserter()
    inserter.reserve(range(EMM_PID, EMM_PID + 2))
    inserter.announce([CaDescriptor(0xFFF0, EMM_PID), CaDescriptor(0xFFF0, EMM_PID + 1)])
    queues = [EmmQueue(EMM_PID, 1000), EmmQueue(EMM_PID + 1, 1000)]
    start = datetime(2027, 1, 15, 8, tzinfo=UTC)
    packets_per_tick = round(player.bits_per_s / 8 / 188 / 100)
    emms = []
    with path.open("wb") as file:
        for tick in range(600):
            if tick < 400:
                size = EMM_SIZES[tick % len(EMM_SIZES)]
                emm = b"\x82\x70" + bytes((size - 3,)) + tick.to_bytes(5) + bytes(size - 8)
                queue = queues[tick % 2]
                assert inserter.offer(queue, packetize_section(emm, NULL_PID))
                if queue.pid == EMM_PID:
                    emms.append(emm)
            packets = player.take(packets_per_tick)
            now = start + timedelta(seconds=tick / 100)
            file.write(b"".join(inserter.process(packets, tick / 100, now)))
    player.close()
    assert [len(queue) for queue in queues] == [0, 0]
    return path, emms


def test_the_rate_of_the_recording_is_found(recording: Path) -> None:
    """To a thousandth of what it was made with."""
    player = FileInput(recording, None)
    player.close()
    assert player.bits_per_s == pytest.approx(RATE, rel=1e-3)


def test_no_continuity_or_crc_error_is_on_air(aired: tuple[Path, list[bytes]]) -> None:
    """Across two loop points, with CAT, TDT and EMMs inserted."""
    command = ["tshark", "-r", aired[0], "-q", "-z", "expert", "-o", "mpeg_sect.verify_crc:TRUE"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert result.stdout.strip() == ""


def test_the_check_sees_an_error_when_there_is_one(
    aired: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    """One service packet left out."""
    stream = aired[0].read_bytes()
    packets = [stream[at : at + 188] for at in range(0, len(stream), 188)]
    lost = next(at for at, packet in enumerate(packets) if at > 100 and pid_of(packet) == 0x100)
    del packets[lost]
    path = tmp_path / "torn.ts"
    path.write_bytes(b"".join(packets))
    command = ["tshark", "-r", path, "-q", "-z", "expert", "-o", "mpeg_sect.verify_crc:TRUE"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "continuity" in result.stdout.lower() or "Missing" in result.stdout


def test_every_service_can_still_be_read(recording: Path, aired: tuple[Path, list[bytes]]) -> None:
    """The same programmes and codecs as in the recording."""

    def services(path: Path) -> list[tuple[str, int, list[str]]]:
        command = ["ffprobe", "-v", "error", "-show_programs", "-of", "json", path]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        return [
            (
                program["tags"]["service_name"],
                program["pmt_pid"],
                sorted(stream["codec_name"] for stream in program["streams"]),
            )
            for program in json.loads(result.stdout)["programs"]
        ]

    assert len(services(recording)) == SERVICES
    assert services(aired[0]) == services(recording)


def test_every_emm_arrives_in_order(aired: tuple[Path, list[bytes]]) -> None:
    """Whole, one and two packets long."""
    path, emms = aired
    stream = path.read_bytes()
    reassembler = SectionReassembler()
    heard = []
    for at in range(0, len(stream), 188):
        packet = stream[at : at + 188]
        if pid_of(packet) == EMM_PID:
            heard += reassembler.push(packet)
    assert heard == emms
    assert (reassembler.discontinuities, reassembler.malformed) == (0, 0)
