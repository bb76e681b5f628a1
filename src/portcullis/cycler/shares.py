"""Who is served when not all that is due fits. Pure."""

from collections.abc import Mapping, Sequence

from portcullis.cycler.config import AiringClass

_MAX_SAVED = 64.0  # packets a class may claim at once after first airings went before it


class Shares:
    """What each class may claim.

    Attributes:
        credit: packets, by class index.
    """

    def __init__(self, classes: Sequence[AiringClass]) -> None:
        self._classes = classes
        self.credit = [0.0] * len(classes)

    def earn(self, due: Sequence[int], packets: int) -> None:
        """Credit every class that is due with its share of the packets of this turn."""
        for index, one in enumerate(self._classes):
            if index in due:
                saved = min(self.credit[index], _MAX_SAVED)
                self.credit[index] = saved + one.min_share * packets
            else:
                self.credit[index] = 0.0  # who wants nothing saves nothing

    def allot(self, packets: int, wanted: Mapping[int, int]) -> dict[int, int]:
        """How many packets each class gets: what it has credit for, the rest by priority."""
        if sum(wanted.values()) <= packets:
            return dict(wanted)
        allotted = dict.fromkeys(wanted, 0)
        for index in sorted(wanted, key=self.credit.__getitem__, reverse=True):
            allotted[index] = min(wanted[index], int(self.credit[index]), packets)
            packets -= allotted[index]
        for index in sorted(wanted):
            more = min(wanted[index] - allotted[index], packets)
            allotted[index] += more
            packets -= more
        return allotted

    def ahead(self, due: Mapping[int, int], turn: int) -> dict[int, int]:
        """How many packets each class will get until one of those that are due has no more.

        Args:
            due: packets of each class that is due.
            turn: packets of a turn.

        Returns none if one of them has no more within the next turn.
        """
        first, *others = sorted(due)
        share = {one: self._classes[one].min_share for one in others}
        lasts = [(due[first] - len(due)) / rest] if (rest := 1 - sum(share.values())) > 0 else []
        lasts += [(due[one] - self.credit[one]) / share[one] for one in others if share[one]]
        packets = int(min(lasts, default=0))
        if packets < turn + len(due):
            return {}
        credit = self.credit.copy()
        self.earn(list(due), packets)
        allotted = self.allot(packets, dict.fromkeys(due, packets))
        self.credit = credit
        return allotted

    def pay(self, index: int, packets: int) -> None:
        """Take from a class's credit what it was served."""
        self.credit[index] = max(self.credit[index] - packets, 0.0)
