"""Hash chains and the trees over them (pure): docs/evidence.md has the formats.

A line holds its content and, last, the link that binds it to the line before:

    {"seq":7,"record":{…},"link":"<64 hex>"}

leaf = SHA-256(0x00 content), node = SHA-256(0x01 left right) as RFC 9162 2.1,
link = SHA-256(0x02 link before, leaf). `content` is the line up to `,"link"`.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_LINE = re.compile(rb'(\{"seq":(\d+),.*),"link":"([0-9a-f]{64})"\}', re.DOTALL)


@dataclass(frozen=True)
class Line:
    """One line of a chain: its number, the bytes it vouches for, and its link."""

    seq: int
    content: bytes
    link: bytes

    @classmethod
    def parse(cls, raw: bytes) -> "Line | None":
        """Read a line without its end; None for what is none."""
        match = _LINE.fullmatch(raw)
        return (
            None
            if match is None
            else cls(int(match[2]), match[1], bytes.fromhex(match[3].decode()))
        )

    def encode(self) -> bytes:
        """The line with its end."""
        return b'%s,"link":"%s"}\n' % (self.content, self.link.hex().encode())

    @property
    def record(self) -> dict[str, Any]:
        """What the line says."""
        said: dict[str, Any] = json.loads(self.content + b"}")["record"]
        return said


def genesis(chain: str) -> bytes:
    """The link before the first line of a chain."""
    return hashlib.sha256(b"portcullis chain\x00" + chain.encode()).digest()


def leaf_of(content: bytes) -> bytes:
    """The hash that stands for a content."""
    return hashlib.sha256(b"\x00" + content).digest()


def link_after(before: bytes, content: bytes) -> bytes:
    """The link of the line after the one with the link `before`."""
    return hashlib.sha256(b"\x02" + before + leaf_of(content)).digest()


def content_of(seq: int, record: bytes) -> bytes:
    """What a line says, from its number and its record in JSON."""
    return b'{"seq":%d,"record":%s' % (seq, record)


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root of the tree over leaves, at least one (RFC 9162 2.1.1)."""
    level = list(leaves)
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        # An odd one out goes up as it is, which is the tree of RFC 9162.
        level = [_node(*pair) for pair in pairs] + ([level[-1]] if len(level) % 2 else [])
    return level[0]


def path_of(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """The hashes that lead from a leaf to the root (RFC 9162 2.1.3)."""
    level, path = list(leaves), []
    while len(level) > 1:
        neighbour = index ^ 1
        if neighbour < len(level):
            path.append(level[neighbour])
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [_node(*pair) for pair in pairs] + ([level[-1]] if len(level) % 2 else [])
        index //= 2
    return path


def root_by_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that a path leads to from leaf `index` of `size`; None where it does not fit."""
    if not 0 <= index < size:
        return None
    node, left = leaf, list(path)
    while size > 1:
        if index % 2:
            if not left:
                return None
            node = _node(left.pop(0), node)
        elif index + 1 < size:
            if not left:
                return None
            node = _node(node, left.pop(0))
        index, size = index // 2, (size + 1) // 2
    return node if not left else None


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
