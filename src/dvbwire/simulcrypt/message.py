"""One message: header and parameters, checked against the grammar (TS 103 197 clause 4.4.1).

Layout, big-endian: protocol_version 1, message_type 2, message_length 2 (bytes that follow), then
per parameter: parameter_type 2, parameter_length 2, value. Parameters come in any order.
"""

import struct
from dataclasses import dataclass
from typing import Self

from dvbwire.simulcrypt.errors import LocalProtocolError, RemoteProtocolError
from dvbwire.simulcrypt.grammar import ALLOWED_VALUES, GRAMMAR
from dvbwire.simulcrypt.registry import CHANNEL_MESSAGES, ErrorStatus, MessageType, ParameterType

HEADER = struct.Struct(">BHH")
PARAMETER_HEADER = struct.Struct(">HH")
MAX_BODY_SIZE = 0xFFFF
MAX_MESSAGE_SIZE = HEADER.size + MAX_BODY_SIZE


@dataclass(frozen=True, slots=True)
class Message:
    """A message as sent or received.

    Attributes:
        version: protocol_version, 0 to 255.
        type: message_type, which a peer may have made up.
        parameters: (parameter_type, value) in order, unknown ones included.
    """

    version: int
    type: int
    parameters: tuple[tuple[int, bytes], ...]

    @classmethod
    def build(
        cls,
        version: int,
        message_type: MessageType,
        *parameters: tuple[ParameterType, int | bytes],
    ) -> Self:
        """Make a message to send; whole numbers take the size the grammar gives them.

        Raises:
            LocalProtocolError: the grammar does not allow it.
        """
        rules = GRAMMAR[message_type]
        values = []
        for parameter, value in parameters:
            size = rules[parameter].size if parameter in rules else None
            if isinstance(value, int):
                if size is None or not 0 <= value < 1 << 8 * size:
                    raise LocalProtocolError(f"{parameter.name} of {message_type.name}: {value}")
                values.append((int(parameter), value.to_bytes(size)))
            else:
                values.append((int(parameter), value))
        message = cls(version, message_type, tuple(values))
        fault = message.fault()
        if message.unknown_parameters:
            raise LocalProtocolError(f"{message_type.name} with a parameter it does not have")
        if fault is not None:
            raise LocalProtocolError(f"{message_type.name}: {fault[1]}")
        return message

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Take a whole message apart, known or not; the grammar is not yet applied.

        Raises:
            RemoteProtocolError: lengths contradict each other (error_status 0x000B).
        """
        if len(raw) < HEADER.size:
            raise RemoteProtocolError(ErrorStatus.INCONSISTENT_LENGTH, f"{len(raw)} bytes")
        version, message_type, length = HEADER.unpack_from(raw)
        parameters: list[tuple[int, bytes]] = []
        at, end = HEADER.size, len(raw)
        consistent = length == end - at
        while consistent and at < end:
            value_at = at + PARAMETER_HEADER.size
            if value_at > end:
                consistent = False
                break
            parameter, size = PARAMETER_HEADER.unpack_from(raw, at)
            at = value_at + size
            if at > end:
                consistent = False
                break
            parameters.append((parameter, raw[value_at:at]))
        message = cls(version, message_type, tuple(parameters))
        if not consistent:
            detail = f"message_type 0x{message_type:04X}, message_length {length}"
            raise RemoteProtocolError(ErrorStatus.INCONSISTENT_LENGTH, detail, message)
        return message

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Parse and validate a whole message.

        Raises:
            RemoteProtocolError: with the error_status to answer.
        """
        message = cls.parse(raw)
        message.validate()
        return message

    def encode(self) -> bytes:
        """Return the bytes to send.

        Raises:
            LocalProtocolError: more than 65,535 bytes of parameters.
        """
        size = sum(PARAMETER_HEADER.size + len(value) for _, value in self.parameters)
        if size > MAX_BODY_SIZE:
            raise LocalProtocolError(f"a message of {size} bytes")
        return HEADER.pack(self.version, self.type, size) + b"".join(
            PARAMETER_HEADER.pack(parameter, len(value)) + value
            for parameter, value in self.parameters
        )

    def validate(self) -> None:
        """Check the message against the grammar.

        Raises:
            RemoteProtocolError: with error_status 0x0001, 0x0003, 0x000B, 0x000C or 0x000D.
        """
        fault = self.fault()
        if fault is not None:
            status, detail = fault
            raise RemoteProtocolError(status, detail, self)

    def fault(self) -> tuple[ErrorStatus, str] | None:
        """Return what the grammar has against the message; None if nothing."""
        if self.type not in GRAMMAR:
            return ErrorStatus.UNKNOWN_MESSAGE_TYPE, f"message_type 0x{self.type:04X}"
        rules = GRAMMAR[MessageType(self.type)]
        count = dict.fromkeys(rules, 0)
        for number, value in self.parameters:
            if number not in rules:
                continue
            parameter = ParameterType(number)
            size = rules[parameter].size
            if size is not None and len(value) != size:
                return ErrorStatus.INCONSISTENT_LENGTH, f"{parameter.name} of {len(value)} bytes"
            allowed = ALLOWED_VALUES.get(parameter)
            # A value that came with a later version is invalid in an earlier one.
            if allowed is not None and allowed.get(int.from_bytes(value), 0x100) > self.version:
                return ErrorStatus.INVALID_VALUE, f"{parameter.name} {value.hex()}"
            count[parameter] += 1
        for parameter, rule in rules.items():
            if count[parameter] < rule.at_least and self.version >= rule.since:
                return ErrorStatus.MISSING_PARAMETER, parameter.name
            if rule.at_most is not None and count[parameter] > rule.at_most:
                return ErrorStatus.INVALID_MESSAGE, f"{parameter.name} {count[parameter]} times"
        return None

    @property
    def unknown_parameters(self) -> int:
        """How many parameters this message does not have by the grammar of its version."""
        if self.type not in GRAMMAR:
            return len(self.parameters)
        rules = GRAMMAR[MessageType(self.type)]
        return sum(
            1
            for number, _ in self.parameters
            if number not in rules or rules[ParameterType(number)].since > self.version
        )

    @property
    def is_channel_message(self) -> bool:
        """Whether it concerns the channel as a whole."""
        return self.type in CHANNEL_MESSAGES

    def values(self, parameter: ParameterType) -> tuple[bytes, ...]:
        """Return every value of a parameter, in order."""
        return tuple(value for number, value in self.parameters if number == parameter)

    def numbers(self, parameter: ParameterType) -> tuple[int, ...]:
        """Return every value of a parameter as unsigned numbers."""
        return tuple(int.from_bytes(value) for value in self.values(parameter))

    def number(self, parameter: ParameterType) -> int:
        """Return the value of a parameter the grammar demands, as an unsigned number."""
        return self.numbers(parameter)[0]

    def optional_number(self, parameter: ParameterType) -> int | None:
        """Return the first value of a parameter as an unsigned number, None if it is absent."""
        return next(iter(self.numbers(parameter)), None)
