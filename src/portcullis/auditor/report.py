"""What a verification says."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """Something that is not as it was written, and where."""

    where: str
    what: str


@dataclass
class Report:
    """What was looked at, and what was found. `notes`: what is as it should be, but to be known."""

    records: int = 0
    heads: int = 0
    chains: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def find(self, where: str, what: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(where, what))
