"""Whether the input has room for the EMMs, and that it is said when it has not."""

from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from dvbwire.simulcrypt import DataType, SectionTspktFlag
from dvbwire.ts import NULL_PACKET, packetize_section, pid_of
from portcullis.mux.inserter import Inserter
from portcullis.mux.multiplexer import Multiplexer
from portcullis.mux.streams import StreamTable

SERVICE_PACKET = bytes((0x47, 0x01, 0x00, 0x10)) + bytes(184)
KBIT_PER_PACKET = 1.504


class _Sink:
    """An output that keeps what it gets."""

    url = "test:"
    lost = 0

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def write(self, packets: list[bytes]) -> None:
        self.packets += packets

    def close(self) -> None:
        """Keep everything."""


@pytest.fixture
def sink() -> _Sink:
    """Where the stream goes."""
    return _Sink()


@pytest.fixture
def multiplexer(sink: _Sink) -> Multiplexer:
    """A multiplexer at rest in 2027."""
    table = StreamTable(0x1F00, max_streams=2, max_kbit_s=1000)
    return Multiplexer(Inserter(), table, [sink], lambda: datetime(2027, 1, 15, tzinfo=UTC))


def test_the_rates_of_the_input_are_measured(multiplexer: Multiplexer) -> None:
    """Since the last measurement."""
    multiplexer.pass_on([SERVICE_PACKET] * 600 + [NULL_PACKET] * 400, 0.0)
    multiplexer.measure(2.0)
    assert multiplexer.input_kbit_s == pytest.approx(500 * KBIT_PER_PACKET)
    assert multiplexer.null_kbit_s == pytest.approx(200 * KBIT_PER_PACKET)
    multiplexer.pass_on([SERVICE_PACKET] * 100, 2.0)
    multiplexer.measure(3.0)
    assert multiplexer.input_kbit_s == pytest.approx(100 * KBIT_PER_PACKET)
    assert multiplexer.null_kbit_s == 0


def test_a_lack_of_room_is_logged_once_and_its_end_too(multiplexer: Multiplexer) -> None:
    """No input, no null packets, too few of them, enough."""
    channel = multiplexer.table.open_channel(0xFFF00001, 1, SectionTspktFlag.SECTIONS, "127.0.0.1")
    multiplexer.table.open_stream(channel, 1, 1, DataType.EMM)
    portions = [
        [],
        [],
        [SERVICE_PACKET],
        [SERVICE_PACKET, NULL_PACKET],
        [NULL_PACKET] * 700,
        [NULL_PACKET] * 700,
    ]
    with capture_logs() as logs:
        for second, portion in enumerate(portions, start=1):
            multiplexer.pass_on(portion, second)
            multiplexer.measure(second)
    assert [(each["log_level"], each["event"]) for each in logs] == [
        ("warning", "no input"),
        ("warning", "input has no null packets: nothing can be inserted"),
        ("warning", "input has fewer null packets than bandwidth is allocated"),
        ("info", "input has room for the EMMs"),
    ]


def test_what_a_stream_provides_goes_to_every_output(multiplexer: Multiplexer, sink: _Sink) -> None:
    """Under its PID, with the CAT before it."""
    channel = multiplexer.table.open_channel(0xFFF00001, 1, SectionTspktFlag.SECTIONS, "127.0.0.1")
    stream = multiplexer.table.open_stream(channel, 1, 1, DataType.EMM)
    multiplexer.announce()
    assert multiplexer.provide(stream, packetize_section(b"\x82\x70\x05" + bytes(5), 0))
    multiplexer.pass_on([NULL_PACKET] * 3, 0.0)
    assert [pid_of(packet) for packet in sink.packets] == [1, 0x1F00, 0x1FFF]
