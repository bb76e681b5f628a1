"""What can go wrong in the cycler for an operator."""

from portcullis.runtime.errors import PortcullisError


class CyclerError(PortcullisError):
    """Root of the cycler's errors."""


class AsRunError(CyclerError):
    """The as-run log cannot be written or read."""


class NotAirableError(CyclerError):
    """A row of `emms` is no section, or says otherwise than its section."""
