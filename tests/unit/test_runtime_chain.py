"""Chains and trees: known hashes, and every path of every size."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portcullis.runtime.chain import (
    Line,
    content_of,
    genesis,
    leaf_of,
    link_after,
    path_of,
    root_by_path,
    root_of,
)


def sha(*parts: bytes) -> bytes:
    """SHA-256, spelt out once more."""
    return hashlib.sha256(b"".join(parts)).digest()


def test_the_hashes_are_as_documented() -> None:
    """docs/evidence.md: the prefix bytes tell leaf, node and link apart."""
    content = content_of(7, b'{"a":1}')
    assert content == b'{"seq":7,"record":{"a":1}'
    assert genesis("keys/0") == sha(b"portcullis chain\x00keys/0")
    assert leaf_of(content) == sha(b"\x00", content)
    assert link_after(b"L" * 32, content) == sha(b"\x02", b"L" * 32, sha(b"\x00", content))
    a, b, c = (leaf_of(bytes([n])) for n in range(3))
    assert root_of([a]) == a
    assert root_of([a, b, c]) == sha(b"\x01", sha(b"\x01", a, b), c)


def test_the_tree_is_that_of_rfc_9162() -> None:
    """The seven leaves of RFC 9162 2.1.5's figure, and the roots certificate logs test with."""
    leaves = [leaf_of(bytes.fromhex(data)) for data in ("", "00", "10", "2021", "3031", "40414243")]
    assert root_of(leaves[:1]).hex() == (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    )
    assert root_of(leaves[:3]).hex() == (
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    )
    assert root_of(leaves[:6]).hex() == (
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"
    )


@pytest.mark.parametrize("size", range(1, 20))
def test_every_path_leads_to_the_root_and_to_no_other_place(size: int) -> None:
    """Of every leaf; with another leaf, index, size or hash it does not."""
    leaves = [leaf_of(bytes([n])) for n in range(size)]
    root = root_of(leaves)
    for index, leaf in enumerate(leaves):
        path = path_of(index, leaves)
        assert root_by_path(leaf, index, size, path) == root
        assert root_by_path(leaf_of(b"x"), index, size, path) != root
        assert root_by_path(leaf, index, size, [*path, leaf]) is None
        assert root_by_path(leaf, index + size, size, path) is None
        for other in range(size):
            assert (root_by_path(leaf, other, size, path) == root) is (other == index)


@given(st.binary(max_size=80))
def test_noise_is_no_line(noise: bytes) -> None:
    """What can be read encodes to itself."""
    if (line := Line.parse(noise)) is not None:
        assert line.encode() == noise + b"\n"


@given(st.integers(1, 2**40), st.text(max_size=20))
def test_a_line_is_read_as_it_was_written(seq: int, text: str) -> None:
    """Also where a text looks like the end of a line."""
    record = b'{"text":%s}' % f'"{text.encode().hex()}\\",\\"link\\":\\""'.encode()
    content = content_of(seq, record)
    line = Line(seq, content, link_after(genesis("x"), content))
    assert Line.parse(line.encode()[:-1]) == line
