"""The root of every error this package raises."""


class DvbWireError(Exception):
    """What was given, by a peer or by the caller, cannot be read or written as the standard says.

    Each subpackage has one family: `ts.TsError`, `psi.PsiError`, `simulcrypt.SimulcryptError`.
    """
