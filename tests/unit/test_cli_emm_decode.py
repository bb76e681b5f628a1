"""`portcullis emm decode` on files of sections and on transport streams."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dvbwire.psi import CaDescriptor, Cat
from dvbwire.ts import NULL_PACKET, packetize_section
from portcullis.cli.main import cli
from portcullis.emm import EntitlementRecord, Kind, Message, State, derive_kek, seal_set
from portcullis.runtime.errors import PortcullisError

PID = 0x1F00
NOW = 1_770_000_000
DEVICE, OTHER = 1001, 1002
DEVICE_KEY = bytes(range(32))
PRODUCT_KEY = bytes.fromhex("c0ffee00c0ffee00c0ffee00c0ffee00")


def sections(
    kind: Kind, payload: bytes, device: int = DEVICE, ca_system_id: int = 0xFFF0
) -> list[bytes]:
    """One set as it is aired."""
    kek = derive_kek(DEVICE_KEY, ca_system_id, device, 1)
    dek = bytes(range(16))
    return seal_set(kek, dek, address=device, kind=kind, epoch=1, number=NOW, payload=payload)


def state(products: int = 1, **more: int) -> list[bytes]:
    """A state with so many products; from seven on in two parts."""
    records = [EntitlementRecord(101 + n, 3, NOW, PRODUCT_KEY) for n in range(products)]
    return sections(Kind.STATE, State(True, NOW, tuple(records)).to_payload(), **more)


def text() -> bytes:
    """A message of one part."""
    return sections(Kind.MESSAGE, Message(1, 1, 0, 0, 0, NOW, "Good evening").to_payload())[0]


def stream(*several: bytes, ca_system_id: int = 0xFFF0) -> list[bytes]:
    """Packets: a CAT, then a section in each."""
    cat = Cat(1, (CaDescriptor(ca_system_id, PID, b""),)).to_section()
    packets = packetize_section(cat, 1)
    for number, section in enumerate(several):
        packets += packetize_section(section, PID, number % 16) + [NULL_PACKET]
    return packets


@pytest.fixture
def keys(tmp_path: Path) -> list[str]:
    """The option that gives the box's key."""
    file = tmp_path / "devices.json"
    entry = {"device_id": str(DEVICE), "device_key": DEVICE_KEY.hex()}
    file.write_text(json.dumps([entry]))
    return ["--devices", str(file)]


def run(data: bytes, *words: str) -> tuple[str, BaseException | None]:
    """What is printed, and how it ends."""
    result = CliRunner().invoke(cli, ["emm", "decode", "-", *words], input=data)
    assert PRODUCT_KEY.hex() not in result.output
    assert DEVICE_KEY.hex() not in result.output
    return result.stdout, result.exception


def rows(data: bytes, *words: str) -> tuple[list[dict[str, Any]], BaseException | None]:
    """The same with --json."""
    printed, error = run(data, "--json", *words)
    return [json.loads(line) for line in printed.splitlines()], error


def test_a_section_is_shown_field_by_field(keys: list[str]) -> None:
    """Place, name, hex and meaning on a line; the key is hidden."""
    [section] = state()
    printed, error = run(section, *keys)
    assert error is None
    lines = [line.split() for line in printed.splitlines()]
    assert lines[0] == ["state", "for", "device", "1001,", "86", "bytes:", "byte", "0"]
    assert ["1–2", "11–0", "section_length", "053", "83", "bytes", "follow"] in lines
    assert ["3–7", "address", "00000003e9", "device", "1001"] in lines
    assert "entitlement 1 product_id      0065                 product 101" in printed
    assert "entitlement 1 key             hidden               never shown" in printed


def test_without_a_key_the_payload_stays_sealed(keys: list[str]) -> None:
    """Also where keys are given, but not this one."""
    [row], error = rows(state()[0])
    assert error is None
    assert (row["address"], row["kind"], row["parts"]) == (DEVICE, "state", 1)
    assert row["sealed"] == "the key of device 1001 is not given"
    [row], _ = rows(state(device=OTHER)[0], *keys)
    assert row["sealed"] == "the key of device 1002 is not given"
    assert "payload" not in row


def test_a_set_is_opened_with_its_last_part(keys: list[str]) -> None:
    """In whatever order they come, a message between them."""
    one, two = state(7)
    shown, error = rows(b"".join((two, text(), one)), *keys)
    assert error is None
    assert [row["kind"] for row in shown] == ["state", "message", "state"]
    assert shown[0]["sealed"] == "the other parts of 2 have not come yet"
    assert shown[1]["payload"][-1]["meaning"] == "'Good evening'"
    products = [one["value"] for one in shown[2]["payload"] if one["name"] == "product_id"]
    assert products == list(range(101, 108))
    assert all(one["hex"] is None for one in shown[2]["payload"] if one["name"] == "key")


def test_a_stream_says_itself_where_its_emms_are(keys: list[str]) -> None:
    """PID and CA_system_id are those of its CAT, whatever is configured."""
    packets = stream(*state(ca_system_id=0x4ADC), ca_system_id=0x4ADC)
    [row], error = rows(b"".join(packets), *keys)
    assert error is None
    assert (row["packet"], row["pid"]) == (1, PID)
    assert row["payload"]
    [row], error = rows(b"".join(packets[1:]), *keys, "--pid", "0x1F00", "--ca-system-id", "0x4adc")
    assert error is None
    assert row["payload"]


def test_a_damaged_section_is_shown_and_the_rest_follows(keys: list[str]) -> None:
    """Cut short in a file; altered, lost and broken in a stream."""
    [good] = state()
    altered = good[:-1] + bytes((good[-1] ^ 1,))
    shown, error = rows(altered + good + good[:20], *keys)
    assert [bool(row["faults"]) for row in shown] == [True, False, True]
    assert shown[0]["faults"][0]["byte"] == 16
    assert "does not open with the key of device 1001" in shown[0]["faults"][0]["reason"]
    assert shown[2]["fields"][-1]["name"] == "number"
    assert [(one["byte"], one["reason"]) for one in shown[2]["faults"]] == [
        (1, "section_length announces 86 bytes, there are 20"),
        (16, "ends with 4 of 24 bytes of wrapped DEK"),
    ]
    assert isinstance(error, PortcullisError)
    assert "2 of those shown" in str(error)


def test_damage_of_a_stream_is_shown_where_it_is() -> None:
    """A packet lost, one with a transport error, bytes that are none."""
    [good] = state()
    cat, one, _, two, _, three, _, four, _ = stream(*[good] * 4)
    broken = three[:1] + bytes((three[1] | 0x80,)) + three[2:]  # transport_error_indicator
    lost, error = rows(b"".join((cat, one, broken, four, b"none", two)))
    assert isinstance(error, PortcullisError)
    assert [(row.get("packet"), [one["reason"] for one in row["faults"]]) for row in lost] == [
        (1, []),
        (2, ["a section is cut short, or the packet is damaged"]),
        (3, ["packets are missing before it (continuity_counter)"]),
        (3, []),
        (None, ["4 bytes between packets are none"]),
    ]


def test_only_the_emms_of_one_device() -> None:
    """--device leaves the others out, and says so if there is none."""
    packets = b"".join(stream(*state(), *state(device=OTHER), *state()))
    shown, error = rows(packets, "--device", str(OTHER))
    assert error is None
    assert [row["address"] for row in shown] == [OTHER]
    shown, error = rows(packets, "--device", "7")
    assert shown == []
    assert "no EMM found" in str(error)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("{}", "want a list of devices"),
        ('[{"device_id": "1001", "device_key": "00ff"}]', "entry 1: want device_id"),
    ],
)
def test_a_file_of_keys_that_is_none(tmp_path: Path, content: str, said: str) -> None:
    """Names the entry, never a key."""
    (tmp_path / "devices.json").write_text(content)
    _, error = run(state()[0], "--devices", str(tmp_path / "devices.json"))
    assert said in str(error)
    assert "00ff" not in str(error)


def test_what_holds_no_emm() -> None:
    """An empty file; a stream without a CAT; bytes that are neither."""
    assert "no EMM found" in str(run(b"")[1])
    assert "no EMM found" in str(run(NULL_PACKET * 4)[1])
    printed, error = run(b"\x00" * 16)
    assert "not 0x82" in printed
    assert isinstance(error, PortcullisError)
