"""data_provision: the message that carries EMMs, over TCP or UDP (TS 103 197 clause 6.2.5.9)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from dvbwire.simulcrypt.errors import LocalProtocolError, RemoteProtocolError
from dvbwire.simulcrypt.grammar import GRAMMAR
from dvbwire.simulcrypt.message import HEADER, MAX_BODY_SIZE, PARAMETER_HEADER, Message
from dvbwire.simulcrypt.registry import (
    SUPPORTED_VERSIONS,
    ErrorStatus,
    MessageType,
    ParameterType,
    SectionTspktFlag,
)
from dvbwire.ts import PACKET_SIZE, SYNC_BYTE

_SECTION_HEADER_SIZE = 3
_MAX_UDP_PAYLOAD = 65_507


def datagram_fits(section_tspkt_flag: int, datagram: bytes) -> bool:
    """Say whether a datagram is what the channel's flag says.

    Flag 0: exactly one whole section; flag 1: one or more whole transport packets; flag 2: anything
    but nothing (clause 6.2.3).
    """
    if section_tspkt_flag == SectionTspktFlag.PACKETS:
        return (
            len(datagram) >= PACKET_SIZE
            and not len(datagram) % PACKET_SIZE
            and datagram[0] == SYNC_BYTE
        )
    if section_tspkt_flag == SectionTspktFlag.SECTIONS:
        size = len(datagram)
        return (
            size >= _SECTION_HEADER_SIZE
            and ((datagram[1] & 0x0F) << 8 | datagram[2]) + _SECTION_HEADER_SIZE == size
        )
    return bool(datagram)


def provision_head(*ids: tuple[ParameterType, int]) -> bytes:
    """Return the parameters before the datagrams: the same in every message of a stream.

    Raises:
        LocalProtocolError: an id is out of range.
    """
    head = b""
    for parameter, value in ids:
        size = GRAMMAR[MessageType.DATA_PROVISION][parameter].size or 0
        if not 0 <= value < 1 << 8 * size:
            raise LocalProtocolError(f"{parameter.name} of data_provision: {value}")
        head += PARAMETER_HEADER.pack(parameter, size) + value.to_bytes(size)
    return head


def encode_provision(version: int, head: bytes, datagrams: Sequence[bytes]) -> bytes:
    """Return one data_provision of `head` and `datagrams`.

    Raises:
        LocalProtocolError: no datagram, or more than a message holds.
    """
    if not datagrams:
        raise LocalProtocolError("data_provision without a datagram")
    if len(datagrams) == 1:
        return before_datagram(version, head, len(datagrams[0])) + datagrams[0]
    parts = [head]
    size = len(head)
    for datagram in datagrams:
        length = len(datagram)
        size += PARAMETER_HEADER.size + length
        if size > MAX_BODY_SIZE:
            raise LocalProtocolError(f"data_provision of more than {MAX_BODY_SIZE} bytes")
        parts.append(PARAMETER_HEADER.pack(ParameterType.DATAGRAM, length))
        parts.append(datagram)
    parts.insert(0, HEADER.pack(version, MessageType.DATA_PROVISION, size))
    return b"".join(parts)


@lru_cache(maxsize=1024)
def before_datagram(version: int, head: bytes, length: int) -> bytes:
    """Return all of a data_provision that comes before its only datagram of so many bytes.

    Raises:
        LocalProtocolError: more than a message holds.
    """
    size = len(head) + PARAMETER_HEADER.size + length
    if size > MAX_BODY_SIZE:
        raise LocalProtocolError(f"data_provision of more than {MAX_BODY_SIZE} bytes")
    header = HEADER.pack(version, MessageType.DATA_PROVISION, size)
    return header + head + PARAMETER_HEADER.pack(ParameterType.DATAGRAM, length)


def encode_udp_provision(
    version: int, client_id: int, data_id: int, datagrams: Sequence[bytes]
) -> bytes:
    """Return one UDP datagram: a data_provision without data_channel_id and data_stream_id.

    Raises:
        LocalProtocolError: no datagram, more than UDP carries, or an id out of range.
    """
    return encode_udp_message(version, udp_provision_head(client_id, data_id), datagrams)


def udp_provision_head(client_id: int, data_id: int) -> bytes:
    """Return the parameters before the datagrams over UDP.

    Raises:
        LocalProtocolError: an id is out of range.
    """
    return provision_head((ParameterType.CLIENT_ID, client_id), (ParameterType.DATA_ID, data_id))


def encode_udp_message(version: int, head: bytes, datagrams: Sequence[bytes]) -> bytes:
    """Return one UDP datagram of a head and the datagrams of a data_provision.

    Raises:
        LocalProtocolError: no datagram, or more than UDP carries.
    """
    message = encode_provision(version, head, datagrams)
    if len(message) > _MAX_UDP_PAYLOAD:
        raise LocalProtocolError(f"data_provision of {len(message)} bytes over UDP")
    return message


def before_udp_datagram(version: int, head: bytes, length: int) -> bytes:
    """Return the same as `before_datagram`, of a UDP datagram.

    Raises:
        LocalProtocolError: more than UDP carries.
    """
    before = before_datagram(version, head, length)
    if len(before) + length > _MAX_UDP_PAYLOAD:
        raise LocalProtocolError(f"data_provision of {len(before) + length} bytes over UDP")
    return before


@dataclass(frozen=True, slots=True)
class UdpProvision:
    """A data_provision as it came over UDP.

    Attributes:
        version: protocol_version.
        client_id: with data_id, names the stream among all on the MUX.
        data_id: see client_id.
        data_channel_id: None where the sender follows the standard.
        data_stream_id: None where the sender follows the standard.
        datagrams: sections or packets, as the stream's channel has agreed; see `datagram_fits`.
    """

    version: int
    client_id: int
    data_id: int
    data_channel_id: int | None
    data_stream_id: int | None
    datagrams: tuple[bytes, ...]


def decode_udp_provision(
    data: bytes, versions: Collection[int] = SUPPORTED_VERSIONS
) -> UdpProvision:
    """Read one UDP datagram, which holds exactly one data_provision.

    Raises:
        RemoteProtocolError: with the reason as error_status; over UDP there is no answering.
    """
    message = Message.parse(data)
    if message.version not in versions or message.version < 2:  # noqa: PLR2004 (1 has no UDP)
        raise RemoteProtocolError(
            ErrorStatus.UNSUPPORTED_VERSION, f"version {message.version} over UDP", message
        )
    if message.type != MessageType.DATA_PROVISION:
        raise RemoteProtocolError(
            ErrorStatus.INVALID_MESSAGE, f"0x{message.type:04X} over UDP", message
        )
    message.validate()
    return UdpProvision(
        version=message.version,
        client_id=message.number(ParameterType.CLIENT_ID),
        data_id=message.number(ParameterType.DATA_ID),
        data_channel_id=message.optional_number(ParameterType.DATA_CHANNEL_ID),
        data_stream_id=message.optional_number(ParameterType.DATA_STREAM_ID),
        datagrams=message.values(ParameterType.DATAGRAM),
    )
