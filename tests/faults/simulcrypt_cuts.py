"""Cuts in the middle of a SimulCrypt message, of a type of one's choice.

Both follow a connection from its beginning: reset what is there once they are in place.
"""

from dataclasses import dataclass

from dvbwire.simulcrypt import MessageType
from dvbwire.simulcrypt.framing import MessageReader
from dvbwire.simulcrypt.message import HEADER


@dataclass
class _Cursor:
    """Where one connection stands: in a header, or `left` bytes before a message's end."""

    header: bytes = b""
    left: int = 0
    until_cut: int | None = None


class InMessage:
    """Cut in the middle of the next message of a type, as it is sent."""

    def __init__(self, way: str, message_type: MessageType) -> None:
        self._way = way
        self._type = message_type
        self._cursors: dict[int, _Cursor] = {}

    def last_words(self, connection: int, way: str, data: bytes) -> bytes | None:
        """Deliver what comes before it, its header and half of the rest; see `Cutter`."""
        if way != self._way:
            return None
        cursor = self._cursors.setdefault(connection, _Cursor())
        at = 0
        while at < len(data):
            if cursor.left == 0:
                taken = data[at : at + HEADER.size - len(cursor.header)]
                cursor.header += taken
                at += len(taken)
                if len(cursor.header) < HEADER.size:
                    return None
                _, message_type, cursor.left = HEADER.unpack(cursor.header)
                cursor.header = b""
                if message_type == self._type:
                    cursor.until_cut = cursor.left // 2
            step = min(cursor.left, len(data) - at)
            if cursor.until_cut is not None:
                if cursor.until_cut <= step:
                    return data[: at + cursor.until_cut]
                cursor.until_cut -= step
            cursor.left -= step
            at += step
        return None


class HalfMessage:
    """Say half a message that nobody sent, once one of another type has passed; then cut."""

    def __init__(self, way: str, after: MessageType, message: bytes) -> None:
        self._way = way
        self._after = after
        self._words = message[: len(message) // 2]
        self._readers: dict[int, MessageReader] = {}

    def last_words(self, connection: int, way: str, data: bytes) -> bytes | None:
        """See `Cutter`."""
        if way != self._way:
            return None
        reader = self._readers.setdefault(connection, MessageReader())
        passed = reader.feed(data)
        if passed and HEADER.unpack_from(passed[-1])[1] == self._after:
            return data + self._words
        return None
