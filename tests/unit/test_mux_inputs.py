"""Filler, files, pace, configuration."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from dvbwire.psi import PAT_PID, Pat
from dvbwire.ts import (
    NULL_PACKET,
    NULL_PID,
    SectionReassembler,
    continuity_counter_of,
    pid_of,
)
from portcullis.mux.config import MuxConfig
from portcullis.mux.inputs import FileInput, FillerInput, InputError, UdpInput
from portcullis.mux.outputs import FileOutput, open_output
from portcullis.mux.pacing import Pacer
from portcullis.runtime.config import ConfigError, ConfigSource


def _packet(pid: int, counter: int, pcr: int | None = None) -> bytes:
    field = b"" if pcr is None else b"\x07\x10" + (pcr // 300 << 15).to_bytes(6)
    control = 0x10 if pcr is None else 0x30
    return (bytes((0x47, 0x40 | pid >> 8, pid & 0xFF, control | counter % 16)) + field).ljust(188)


def test_the_filler_is_null_packets_and_a_pat_every_100_ms() -> None:
    """Whatever the portions in which it is taken."""
    filler = FillerInput(1_504_000)  # 1,000 packets a second
    packets = [packet for count in (1, 250, 749, 1000) for packet in filler.take(count)]
    assert Counter(map(pid_of, packets)) == {NULL_PID: 1980, PAT_PID: 20}
    reassembler = SectionReassembler()
    pats = [section for each in packets if not pid_of(each) for section in reassembler.push(each)]
    assert {Pat.from_section(section).transport_stream_id for section in pats} == {1}
    assert reassembler.discontinuities == 0


def test_a_file_is_played_for_ever_at_the_rate_of_its_pcrs(tmp_path: Path) -> None:
    """It may begin and end within a packet; counters go on."""
    path = tmp_path / "in.ts"
    packets = [_packet(0x100, at, at * 27_000_000 // 1000 // 300 * 300) for at in range(30)]
    path.write_bytes(b"\xff" * 100 + b"".join(packets) + packets[0][:90])
    recording = FileInput(path, None)
    assert recording.bits_per_s == pytest.approx(1_504_000, rel=1e-3)
    played = [packet for _ in range(10) for packet in recording.take(25)]
    recording.close()
    assert played[:30] == packets
    assert [continuity_counter_of(each) for each in played] == [at % 16 for at in range(250)]


def test_a_configured_rate_wins_over_pcrs(tmp_path: Path) -> None:
    """And is needed where there are none."""
    path = tmp_path / "in.ts"
    path.write_bytes(NULL_PACKET * 10)
    recording = FileInput(path, 500_000.0)
    recording.close()
    assert recording.bits_per_s == 500_000
    with pytest.raises(ConfigError, match=r"no PCRs to tell the rate; set mux\.bitrate_kbit_s"):
        FileInput(path, None)


@pytest.mark.parametrize("content", [None, b"", b"no transport stream at all" * 100])
def test_a_file_that_is_no_stream_is_an_error(content: bytes | None, tmp_path: Path) -> None:
    """Said when it is opened."""
    path = tmp_path / "in.ts"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mux\.input: .*in\.ts: (no transport|No such file)"):
        FileInput(path, None)


def test_a_file_that_loses_its_packets_ends_the_program(tmp_path: Path) -> None:
    """Rather than turn in circles."""
    path = tmp_path / "in.ts"
    path.write_bytes(NULL_PACKET * 10)
    recording = FileInput(path, 500_000.0)
    recording.take(10)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="no transport packets any more"):
        recording.take(1)
    recording.close()


def test_udp_input_hands_on_packets_cut_anywhere() -> None:
    """And knows when it last heard any."""
    heard: list[bytes] = []
    clock = iter([1.0, 5.0])
    udp = UdpInput(heard.extend, lambda: next(clock))
    assert udp.heard_at == 1.0
    udp.datagram_received(NULL_PACKET[:100], ("127.0.0.1", 1))
    assert (heard, udp.heard_at) == ([], 1.0)
    udp.datagram_received(NULL_PACKET[100:] + NULL_PACKET, ("127.0.0.1", 1))
    assert (heard, udp.heard_at) == ([NULL_PACKET] * 2, 5.0)


def test_the_pace_is_the_rate_without_drift() -> None:
    """Ticks of any length; a second's worth at most at a time."""
    pacer = Pacer(1_504_000, now_s=100.0)
    assert pacer.due(100.0005) == 0
    assert [pacer.due(100 + tick / 300) for tick in range(1, 301)].count(0) == 0
    assert pacer.stream_time_s == pytest.approx(1.0)
    assert pacer.due(101.0105) == 10
    assert pacer.due(104.0105) == 1000
    assert pacer.skipped == 2000
    assert pacer.due(104.1105) == pytest.approx(100, abs=1)


def _config(**values: object) -> MuxConfig:
    return MuxConfig.of(ConfigSource(None, "", {"mux": values}))


def test_the_defaults_work_without_a_file() -> None:
    """`portcullis mux` alone."""
    config = _config()
    assert (config.input, config.listen) == ("filler", "127.0.0.1:32000")


def test_keys_that_contradict_each_other_are_refused() -> None:
    """PIDs beyond the last, a rate for UDP."""
    with pytest.raises(ConfigError, match=r"mux\.emm_pid: 16 streams from PID 0x1FF0"):
        _config(emm_pid=0x1FF0)
    with pytest.raises(ConfigError, match=r"mux\.bitrate_kbit_s"):
        _config(input="udp://127.0.0.1:1", bitrate_kbit_s=5000)


@pytest.mark.parametrize("url", ["file:/no/such/place.ts", "tcp://a:1", "udp://127.0.0.1", "x"])
def test_an_output_that_cannot_be_opened_is_an_error(url: str) -> None:
    """The key and the URL are named."""
    with pytest.raises(ConfigError, match=rf"mux\.outputs: {url}: "):
        open_output(url)


def test_a_file_output_replaces_what_was_there(tmp_path: Path) -> None:
    """And holds every packet as soon as it is written."""
    path = tmp_path / "out.ts"
    path.write_bytes(b"old")
    output = open_output(f"file:{path}")
    assert isinstance(output, FileOutput)
    output.write([NULL_PACKET, NULL_PACKET])
    assert path.read_bytes() == NULL_PACKET * 2
    output.close()


def test_udp_output_sends_seven_packets_to_a_datagram() -> None:
    """The rest when it is closed."""

    async def receive() -> list[int]:
        sizes: list[int] = []
        done = asyncio.Event()

        class _Receiver(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                del addr
                sizes.append(len(data))
                if len(sizes) == 3:
                    done.set()

        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(_Receiver, ("127.0.0.1", 0))
        output = open_output("udp://127.0.0.1:{}".format(transport.get_extra_info("sockname")[1]))
        output.write([NULL_PACKET] * 5)
        output.write([NULL_PACKET] * 12)
        output.close()
        await done.wait()
        transport.close()
        return sizes

    assert asyncio.run(receive()) == [7 * 188, 7 * 188, 3 * 188]
