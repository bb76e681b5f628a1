"""Whose fault it is: errors of this end and errors of the peer."""

from typing import TYPE_CHECKING

from dvbwire.errors import DvbWireError
from dvbwire.simulcrypt.registry import ErrorStatus

if TYPE_CHECKING:
    from dvbwire.simulcrypt.message import Message


class SimulcryptError(DvbWireError):
    """Root of what can go wrong on the EMMG/PDG-MUX interface."""


class LocalProtocolError(SimulcryptError):
    """This end was asked to send what the protocol does not allow: a bug here, nothing was sent."""


class RemoteProtocolError(SimulcryptError):
    """The peer sent what the protocol does not allow.

    Attributes:
        error_status: what channel_error or stream_error should say in answer.
        offending: what was sent as far as it could be read, None if not even its header could.
    """

    def __init__(
        self, error_status: ErrorStatus, detail: str, offending: "Message | None" = None
    ) -> None:
        super().__init__(f"{error_status.name.lower()}: {detail}")
        self.error_status = error_status
        self.offending = offending
