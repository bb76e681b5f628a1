"""Mutations that keep the outer form, so that rubbish gets past the first check."""

from collections.abc import Callable
from random import Random

from dvbwire.crc import crc32_mpeg2
from dvbwire.simulcrypt import Message, MessageReader, RemoteProtocolError
from dvbwire.ts import PACKET_SIZE

Mutator = Callable[[bytes, Random], bytes]
_ODD_NUMBERS = (0, 1, 2, 3, 5, 0x7F, 0x80, 0xFF)


def simulcrypt(data: bytes, rng: Random) -> bytes:
    """Messages in another order, with other parameters; their lengths stay right."""
    raws = MessageReader().feed(data)
    if not raws:
        return data
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(raws))
        match rng.randrange(6):
            case 0:
                raws.insert(rng.randrange(len(raws) + 1), raws[at])
            case 1 if len(raws) > 1:
                del raws[at]
            case 2:
                other = rng.randrange(len(raws))
                raws[at], raws[other] = raws[other], raws[at]
            case _:
                raws[at] = _other_message(raws[at], rng)
    return b"".join(raws)


def _other_message(raw: bytes, rng: Random) -> bytes:
    try:
        read = Message.parse(raw)
    except RemoteProtocolError:
        return raw
    version, kind, parameters = read.version, read.type, list(read.parameters)
    match rng.randrange(6):
        case 0:
            version = rng.choice((*_ODD_NUMBERS, version))
        case 1:
            kind = rng.choice((0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x111, 0x112, 0x113, 0x114))
        case 2:
            kind = rng.choice((0x115, 0x116, 0x117, 0x118, 0x211, 0x8000, rng.randrange(65536)))
        case 3 if parameters:
            parameters.append(parameters[rng.randrange(len(parameters))])
        case 4 if parameters:
            del parameters[rng.randrange(len(parameters))]
        case _ if parameters:
            at = rng.randrange(len(parameters))
            number, value = parameters[at]
            if rng.random() < 0.3:
                number = rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 0x7000, 0x7001, 9, 0xFFFF))
            parameters[at] = (number, _other_value(value, rng))
    if sum(4 + len(value) for _, value in parameters) > 0xFFFF:
        return raw
    return Message(version, kind, tuple(parameters)).encode()


def _other_value(value: bytes, rng: Random) -> bytes:
    match rng.randrange(4):
        case 0:
            return rng.choice(_ODD_NUMBERS).to_bytes(max(len(value), 1))
        case 1:
            return value + rng.randbytes(rng.randint(1, 3))
        case 2:
            return value[: rng.randrange(len(value) + 1)]
        case _:
            return rng.randbytes(len(value))


def section(data: bytes, rng: Random) -> bytes:
    """A long-form section whose length and CRC_32 are right again."""
    if len(data) < 12:
        return data
    body = bytearray(data[:-4])
    body[rng.randrange(3, len(body))] = rng.randrange(256)
    size = min(len(body) + 4 - 3, 0xFFF)
    body[1] = 0xB0 | size >> 8
    body[2] = size & 0xFF
    return bytes(body) + crc32_mpeg2(bytes(body)).to_bytes(4)


def packets(data: bytes, rng: Random) -> bytes:
    """Whole packets lost, repeated or damaged in their header, pointer or section length."""
    cut = [data[at : at + PACKET_SIZE] for at in range(0, len(data), PACKET_SIZE)]
    if not cut:
        return data
    at = rng.randrange(len(cut))
    match rng.randrange(3):
        case 0:
            del cut[at]
        case 1:
            cut.insert(rng.randrange(len(cut)), cut[at])
        case _:
            damaged = bytearray(cut[at])
            place = rng.randrange(min(12, len(damaged)))
            damaged[place] = rng.choice((*_ODD_NUMBERS, 0x47, rng.randrange(256)))
            cut[at] = bytes(damaged)
    return b"".join(cut)


def emm(data: bytes, rng: Random) -> bytes:
    """One field of the header another, the section's length right."""
    if len(data) < 16:
        return data
    out = bytearray(data[: rng.choice((len(data), rng.randint(16, len(data))))])
    out[rng.randrange(16)] = rng.choice((*_ODD_NUMBERS, 0x11, 0x1F, 0xFF, rng.randrange(256)))
    if rng.random() < 0.7:
        out[0] = 0x82
        out[1:3] = (0x7000 | (len(out) - 3) & 0xFFF).to_bytes(2)
    return bytes(out)


def mutated(target: str, data: bytes, rng: Random) -> bytes:
    """A mutation that suits the target; bytes at random places where none is known."""
    mutator = _MUTATORS.get(target)
    if mutator is not None:
        return mutator(data, rng)
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        out[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
    return bytes(out)


_MUTATORS: dict[str, Mutator] = {
    "emmg_connection": simulcrypt,
    "mux_connection": simulcrypt,
    "cycler_session": simulcrypt,
    "mux_session": simulcrypt,
    "message": simulcrypt,
    "udp_provision": simulcrypt,
    "psi": section,
    "stream": packets,
    "box_sections": emm,
    "emm_decode": emm,
    "decode_command": emm,
}
