"""Packets out of a byte stream that may break anywhere."""

from hypothesis import given
from hypothesis import strategies as st

from dvbwire.ts import PACKET_SIZE, PacketSync, packetize_section


def packets(count: int) -> list[bytes]:
    """Make distinct packets whose payload holds no sync byte."""
    return [
        packetize_section(b"\x82\x70\x02" + (n << 8 | 1).to_bytes(2).replace(b"\x47", b"\x46"), 99)[
            0
        ]
        for n in range(count)
    ]


@given(st.integers(0, 30), st.lists(st.integers(1, 1000), max_size=30))
def test_an_aligned_stream_comes_through_any_cut(count: int, cuts: list[int]) -> None:
    """Nothing lost, nothing held but the packet begun."""
    whole = packets(count)
    stream = b"".join(whole)
    sync = PacketSync()
    found: list[bytes] = []
    for cut in [*cuts, len(stream)]:
        found += sync.feed(stream[:cut])
        stream = stream[cut:]
    assert found == whole
    assert sync.lost_bytes == 0


def test_a_single_packet_needs_no_neighbour() -> None:
    """A stream is taken to begin with a packet."""
    assert PacketSync().feed(packets(1)[0]) == packets(1)


def test_a_stream_joined_in_the_middle_is_found() -> None:
    """The rest of a packet is skipped and counted."""
    whole = packets(10)
    sync = PacketSync()
    assert sync.feed(b"".join(whole)[100:]) == whole[1:]
    assert sync.lost_bytes == 88


def test_a_false_sync_byte_does_not_deceive() -> None:
    """One 0x47 in the skipped part is followed by none 188 bytes on."""
    whole = packets(10)
    sync = PacketSync()
    assert sync.feed(b"\x00\x47\x47" + b"".join(whole)) == whole
    assert sync.lost_bytes == 3


def test_bytes_missing_in_the_middle_cost_two_packets() -> None:
    """The packet with the gap takes bytes of the next; after that packets are found again."""
    whole = packets(10)
    stream = b"".join(whole)
    sync = PacketSync()
    found = sync.feed(stream[: 3 * PACKET_SIZE + 50] + stream[3 * PACKET_SIZE + 60 :])
    assert found[:3] == whole[:3]
    assert found[4:] == whole[5:]
    assert sync.lost_bytes == 178


def test_a_damaged_sync_byte_costs_its_packet() -> None:
    """The packet is lost, its neighbours are not."""
    whole = packets(8)
    stream = bytearray(b"".join(whole))
    stream[2 * PACKET_SIZE] = 0
    sync = PacketSync()
    assert sync.feed(bytes(stream)) == whole[:2] + whole[3:]
    assert sync.lost_bytes == PACKET_SIZE


@given(st.lists(st.binary(max_size=700), max_size=20), st.integers(1, 400))
def test_noise_is_bounded_and_then_a_stream_is_found(noise: list[bytes], cut: int) -> None:
    """Held bytes stay few; a clean stream after any noise is found within a few packets."""
    sync = PacketSync()
    fed = 0
    emitted = 0
    for piece in noise:
        fed += len(piece)
        for packet in sync.feed(piece):
            emitted += 1
            assert len(packet) == PACKET_SIZE
            assert packet[0] == 0x47
        assert len(sync._pending) < 565
    assert fed == emitted * PACKET_SIZE + sync.lost_bytes + len(sync._pending)
    clean = packets(20)
    stream = b"".join(clean)
    found: list[bytes] = []
    for at in range(0, len(stream), cut):
        found += sync.feed(stream[at : at + cut])
    assert found[-10:] == clean[-10:]
