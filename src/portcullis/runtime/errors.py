"""The root of what can go wrong for an operator."""


class PortcullisError(Exception):
    """Its text is one line for the operator and holds no secret; the process exits `exit_code`."""

    exit_code = 1
