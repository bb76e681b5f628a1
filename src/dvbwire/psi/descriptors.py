"""Descriptors: tag, length, body (ISO/IEC 13818-1 clause 2.6)."""

from dataclasses import dataclass

from dvbwire.psi.errors import PsiError, PsiReason

CA_DESCRIPTOR_TAG = 0x09
_HEADER_SIZE = 2
_CA_FIXED_SIZE = 4
_MAX_BODY_SIZE = 255
_MAX_PID = 0x1FFF


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Any descriptor but CA_descriptor: its tag (0 to 255) and body (up to 255 bytes)."""

    tag: int
    body: bytes

    def to_bytes(self) -> bytes:
        """Return tag, length and body.

        Raises:
            PsiError: the body is too long (reason length).
        """
        if len(self.body) > _MAX_BODY_SIZE:
            raise PsiError(PsiReason.LENGTH, f"descriptor body of {len(self.body)} bytes")
        return bytes((self.tag, len(self.body))) + self.body


@dataclass(frozen=True, slots=True)
class CaDescriptor:
    """CA_descriptor (clause 2.6.16): in a CAT, where the EMMs of one CA system are.

    Attributes:
        ca_system_id: 16 bits, as registered.
        ca_pid: 13 bits, the PID of the EMMs (in a PMT: of the ECMs).
        private_data: defined by the CA system.
    """

    ca_system_id: int
    ca_pid: int
    private_data: bytes = b""

    def to_bytes(self) -> bytes:
        """Return tag, length and body.

        Raises:
            PsiError: an id is out of range (reason value) or the body too long (reason length).
        """
        if not (0 <= self.ca_system_id <= 0xFFFF and 0 <= self.ca_pid <= _MAX_PID):  # noqa: PLR2004 (16 bits)
            raise PsiError(PsiReason.VALUE, f"CA_system_id {self.ca_system_id} PID {self.ca_pid}")
        body = self.ca_system_id.to_bytes(2) + (0xE000 | self.ca_pid).to_bytes(2)
        return Descriptor(CA_DESCRIPTOR_TAG, body + self.private_data).to_bytes()


def parse_descriptors(data: bytes) -> tuple[Descriptor | CaDescriptor, ...]:
    """Return the descriptors of a loop, in order.

    Raises:
        PsiError: a descriptor runs over the end of the loop, or a CA_descriptor is too short
            (reason length).
    """
    found: list[Descriptor | CaDescriptor] = []
    offset = 0
    while offset < len(data):
        body_at = offset + _HEADER_SIZE
        if body_at > len(data) or body_at + data[offset + 1] > len(data):
            raise PsiError(PsiReason.LENGTH, "a descriptor runs over the end of its loop")
        tag, body = data[offset], data[body_at : body_at + data[offset + 1]]
        found.append(_parse_ca(body) if tag == CA_DESCRIPTOR_TAG else Descriptor(tag, body))
        offset = body_at + len(body)
    return tuple(found)


def _parse_ca(body: bytes) -> CaDescriptor:
    if len(body) < _CA_FIXED_SIZE:
        raise PsiError(PsiReason.LENGTH, f"CA_descriptor of {len(body)} bytes")
    return CaDescriptor(
        ca_system_id=int.from_bytes(body[:2]),
        ca_pid=int.from_bytes(body[2:4]) & _MAX_PID,
        private_data=body[_CA_FIXED_SIZE:],
    )
