"""What can go wrong with the custody of keys. No text here ever holds key bytes."""

from portcullis.runtime.errors import PortcullisError


class KeyCustodyError(PortcullisError):
    """Root of the family."""


class KeyFileError(KeyCustodyError):
    """The master key file is missing, readable by others, or not what it should be."""

    exit_code = 2


class KeyNotOpenedError(KeyCustodyError):
    """A sealed key does not open: another master, a moved or relabelled row, altered bytes."""
