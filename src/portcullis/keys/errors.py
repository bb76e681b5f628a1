"""What can go wrong with the custody of keys. No text here ever holds key bytes."""

from portcullis.runtime.errors import PortcullisError


class KeyCustodyError(PortcullisError):
    """Root of the family."""


class KeyFileError(KeyCustodyError):
    """A key file is missing, readable by others, or not what it should be."""

    exit_code = 2


class TokenError(KeyCustodyError):
    """The PKCS#11 token cannot be used as configured: asking again does not help."""

    exit_code = 2


class MasterError(KeyCustodyError):
    """What is asked of a master cannot be done: it is not at hand, or is in use."""

    exit_code = 2


class CustodyAwayError(KeyCustodyError):
    """The token is away: nothing was done, and the same may be asked again."""


class KeyNotOpenedError(KeyCustodyError):
    """A sealed key does not open: another master, a moved or relabelled row, altered bytes."""
