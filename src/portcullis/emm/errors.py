"""What can be wrong with an EMM."""


class EmmError(Exception):
    """Root of the family."""


class EmmFormatError(EmmError):
    """The bytes do not follow docs/emm-format.md."""


class EmmIntegrityError(EmmError):
    """An unwrap or an authentication tag failed: wrong key, or altered bytes."""


class EmmTooLargeError(EmmError):
    """The payload does not fit fifteen sections of 256 bytes."""
