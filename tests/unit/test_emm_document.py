"""docs/emm-format.md says what the head-end does and what the boxes understand."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from portcullis.emm import Kind, chain_key, derive_kek, open_set, seal_set
from stbsim.box import Box

DOCUMENT = Path("docs/emm-format.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^### (.+?)\n.*?```json\n(.*?)```", re.MULTILINE | re.DOTALL)
BLOCKS = {title: json.loads(block) for title, block in _BLOCK.findall(DOCUMENT)}
VECTORS = {title: block for title, block in BLOCKS.items() if "sections" in block}


def test_the_document_has_a_vector_for_every_kind() -> None:
    """One for each kind, one in parts, one removed, and a chain."""
    assert {vector["kind"] for vector in VECTORS.values()} == {1, 2, 3}
    assert {len(vector["sections"]) for vector in VECTORS.values()} == {1, 2}
    assert len(BLOCKS) == len(VECTORS) + 1


@pytest.mark.parametrize("title", VECTORS)
def test_the_head_end_seals_as_the_document_says(title: str) -> None:
    """Key, header, payload and sections, byte for byte."""
    vector: dict[str, Any] = VECTORS[title]
    kek = derive_kek(
        bytes.fromhex(vector["device_key"]),
        vector["ca_system_id"],
        vector["address"],
        vector["epoch"],
    )
    assert kek.hex() == vector["kek"]
    sections = seal_set(
        kek,
        bytes.fromhex(vector["dek"]),
        address=vector["address"],
        kind=Kind(vector["kind"]),
        epoch=vector["epoch"],
        number=vector["number"],
        payload=bytes.fromhex(vector["payload"]),
    )
    assert [section.hex() for section in sections] == vector["sections"]
    assert open_set(kek, sections).hex() == vector["payload"]


def test_a_box_understands_the_documents_vectors() -> None:
    """The virtual box, which shares no code with the head-end, goes through them in order."""
    vectors = list(VECTORS.values())
    box = Box(vectors[0]["address"], bytes.fromhex(vectors[0]["device_key"]))
    heard = []
    for vector in vectors:
        for section in vector["sections"]:
            box.section(bytes.fromhex(section), vector["ca_system_id"])
        heard.append((box.active, len(box.entitlements), len(box.messages)))
    # Epoch 1 of the second state outranks the removal of epoch 0 that comes after it.
    assert heard == [(True, 5, 0), (True, 8, 0), (True, 8, 0), (True, 8, 1), (True, 8, 0)]


def test_the_chain_keys_are_those_of_the_document() -> None:
    """Two steps down from epoch 3."""
    chain = BLOCKS["Product key chain"]
    for epoch, key in chain["below"].items():
        got = chain_key(
            bytes.fromhex(chain["key"]), chain["product_id"], chain["from_epoch"], int(epoch)
        )
        assert got.hex() == key
