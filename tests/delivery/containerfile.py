"""The Containerfile, read."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path("Containerfile")


@dataclass(frozen=True)
class Instruction:
    """One instruction, its lines joined."""

    name: str
    words: str


def stages() -> list[list[Instruction]]:
    """The instructions of each stage; what comes before the first FROM is left out."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[Instruction]] = []
    for line in text.splitlines():
        name, _, words = " ".join(line.split()).partition(" ")
        if name == "FROM":
            found.append([])
        if name and found:
            found[-1].append(Instruction(name, words))
    return found


def last(name: str) -> str:
    """What the image's own stage says last of a kind."""
    return [one.words for one in stages()[-1] if one.name == name][-1]


def listed(name: str) -> Any:  # noqa: ANN401 (JSON)
    """The same, in its form as a list."""
    return json.loads(last(name))
