"""Whole messages out of a TCP stream cut anywhere."""

from dvbwire.simulcrypt.message import HEADER


class MessageReader:
    """Puts messages together from any pieces.

    Holds at most one message begun: 65,540 bytes, all that message_length can announce. A stream
    that lost its framing cannot be found again; its messages then fail on version or grammar.
    """

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the messages they complete, each with its header."""
        pending = self._pending
        pending += data
        messages = []
        at = 0
        while len(pending) - at >= HEADER.size:
            end = at + HEADER.size + int.from_bytes(pending[at + 3 : at + 5])
            if end > len(pending):
                break
            messages.append(bytes(pending[at:end]))
            at = end
        del pending[:at]
        return messages
