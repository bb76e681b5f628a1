"""How many full cycles a stream has aired, over the lives of all processes that aired it. Pure."""


class CycleCounter:
    """A full cycle is the time in which every EMM is aired at least once, as things are.

    Attributes:
        total: cycles so far; kept with the lease, so that the next holder goes on from there.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self._since: float | None = None

    def airing(self, now: float, cycle_s: float) -> None:
        """Count the time since the last call; `cycle_s`: how long a cycle takes at present."""
        if self._since is not None:
            self.total += (now - self._since) / cycle_s
        self._since = now

    def silent(self) -> None:
        """Nothing is aired from now on: the time does not count."""
        self._since = None
