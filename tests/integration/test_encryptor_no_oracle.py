"""Whoever holds the database and may make every call: what each attempt gets, and the alarm."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from portcullis.keys import Custody, FileMasters, ImportKey
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.client import EncryptorClient, EncryptorError
from tests.integration.encryptor_process import EncryptorProcess, seal_device_keys

CAS = 0xFFF0
VICTIM, OWN = 1001, 1002
VICTIM_KEY, OWN_KEY = bytes(range(32)), bytes(range(100, 132))
NOW = 1_700_000_000


@dataclass
class Loot:
    """The rows of `keys` that an attacker holds, and a box whose key the attacker knows."""

    process: EncryptorProcess
    client: EncryptorClient
    victim: pb.SealedKey
    own: pb.SealedKey
    product: pb.SealedKey
    other_product: pb.SealedKey
    import_key: pb.SealedKey


@pytest.fixture(scope="module")
def loot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loot]:
    """An encryptor with two devices and two products."""
    home: Path = tmp_path_factory.mktemp("oracle")
    process = EncryptorProcess(home)
    process.init()
    make_import_key(home)
    process.start()
    with process.client() as client:
        victim, own = seal_device_keys(client, [(VICTIM, VICTIM_KEY), (OWN, OWN_KEY)])
        entry = json.loads((home / "import.json").read_text())
        import_key = pb.SealedKey(
            purpose=3,  # type: ignore[arg-type]  # not one of the protocol's
            master_id=entry["master_id"],
            blob=bytes.fromhex(entry["sealed_key"]),
        )
        chains = [client.make_chain(product_id, 1, 64) for product_id in (7, 8)]
        yield Loot(process, client, victim, own, *chains, import_key)
    process.stop()


def make_import_key(home: Path) -> None:
    """An import key beside the master."""
    ImportKey(home / "import.json", Custody(FileMasters(home / "master.json"))).make()


def changed(key: pb.SealedKey, **values: object) -> pb.SealedKey:
    """A row with some of its columns changed."""
    copy = pb.SealedKey()
    copy.CopyFrom(key)
    for name, value in values.items():
        setattr(copy, name, value)
    return copy


def seal(loot: Loot, address: int, key: pb.SealedKey, *products: pb.SealedKey) -> str:
    """Ask for a state of `address` with product 7; the code of its refusal."""
    entitlement = pb.Entitlement(product_id=7, epoch=3, key=0)
    state = pb.State(active=True, utc=NOW, entitlements=[entitlement] if products else [])
    item = pb.SealItem(address=address, number=NOW, device_key=key, state=state)
    (reply,) = loot.client.seal(CAS, products, [item]).items
    assert not reply.sections or not reply.code
    return reply.code


def states(address: int, key: pb.SealedKey) -> pb.SealStatesRequest:
    """A call for one state, in columns."""
    label = pb.DeviceKeyLabel(
        first_epoch=key.first_epoch, last_epoch=key.last_epoch, master_id=key.master_id
    )
    return pb.SealStatesRequest(
        ca_system_id=CAS,
        utc=NOW,
        labels=[label],
        addresses=[address],
        epochs=[0],
        numbers=[NOW],
        device_key_labels=[0],
        device_keys=[key.blob],
        active=[True],
        entitlements=[0],
    )


def seal_states(loot: Loot, address: int, key: pb.SealedKey) -> str:
    """Ask for a state of `address` in columns; the code of its refusal."""
    reply = loot.client.seal_states(states(address, key))
    assert not reply.sections
    return reply.refusals[0].code


def rewrap(loot: Loot, key: pb.SealedKey) -> str:
    """Have a row sealed anew under what it now says; what it is refused for."""
    (reply,) = loot.client.rewrap([key])
    assert bool(reply.error) != reply.HasField("key")
    return "not_sealed_here" if reply.error else ""


def same(loot: Loot, held: pb.SealedKey, offered: pb.SealedKey) -> str:
    """Ask whether two rows hold one key."""
    (error,) = loot.client.same_keys([(held, offered)])
    codes = {"not two keys of one device": "wrong_owner", "has another key": "other_key"}
    for words, code in codes.items():
        if words in error:
            return code
    return "not_sealed_here" if error else ""


ATTEMPTS: dict[str, tuple[str, Callable[[Loot], str]]] = {
    "another box's row for the own box": ("wrong_owner", lambda x: seal(x, OWN, x.victim)),
    "the own box's row for another box": ("wrong_owner", lambda x: seal(x, VICTIM, x.own)),
    "a row moved to the own box": (
        "not_sealed_here",
        lambda x: seal(x, OWN, changed(x.victim, owner=OWN)),
    ),
    "another box's row for the own box, in columns": (
        "not_sealed_here",
        lambda x: seal_states(x, OWN, x.victim),
    ),
    "a product key as a device key, in columns": (
        "not_sealed_here",
        lambda x: seal_states(x, 7, changed(x.product, first_epoch=0)),
    ),
    "the import key as a device key, in columns": (
        "not_sealed_here",
        lambda x: seal_states(x, OWN, changed(x.import_key, last_epoch=65535)),
    ),
    "a product key as a device key": (
        "wrong_owner",
        lambda x: seal(x, 7, x.product),
    ),
    "a product key relabelled as the own device's": (
        "not_sealed_here",
        lambda x: seal(
            x, OWN, changed(x.product, owner=OWN, first_epoch=0, purpose=pb.SealedKey.DEVICE)
        ),
    ),
    "a device key as a product key, to have it sent to the own box": (
        "wrong_owner",
        lambda x: seal(x, OWN, x.own, x.victim),
    ),
    "a device key relabelled as product 7's": (
        "not_sealed_here",
        lambda x: seal(x, OWN, x.own, changed(x.victim, owner=7, purpose=pb.SealedKey.PRODUCT)),
    ),
    "another product's key": ("wrong_owner", lambda x: seal(x, OWN, x.own, x.other_product)),
    "another product's key relabelled": (
        "not_sealed_here",
        lambda x: seal(x, OWN, x.own, changed(x.other_product, owner=7)),
    ),
    "a chain said to begin later": (
        "not_sealed_here",
        lambda x: seal(x, OWN, x.own, changed(x.product, first_epoch=2)),
    ),
    "a chain said to end later": (
        "not_sealed_here",
        lambda x: seal(x, OWN, x.own, changed(x.product, last_epoch=65)),
    ),
    "a row named after another master": (
        "not_sealed_here",
        lambda x: seal(x, OWN, changed(x.own, master_id="m2")),
    ),
    "rewrap under another owner": (
        "not_sealed_here",
        lambda x: rewrap(x, changed(x.victim, owner=OWN)),
    ),
    "rewrap under another purpose": (
        "not_sealed_here",
        lambda x: rewrap(x, changed(x.victim, owner=7, purpose=pb.SealedKey.PRODUCT)),
    ),
    "rewrap with other epochs": (
        "not_sealed_here",
        lambda x: rewrap(x, changed(x.product, last_epoch=127)),
    ),
    "rewrap of the import key": ("not_sealed_here", lambda x: rewrap(x, x.import_key)),
    "the import key as a device key": (
        "not_sealed_here",
        lambda x: seal(x, OWN, changed(x.import_key, owner=OWN, purpose=pb.SealedKey.DEVICE)),
    ),
    "comparing two boxes' keys": ("wrong_owner", lambda x: same(x, x.victim, x.own)),
    "comparing a guess with another box's key": (
        "not_sealed_here",
        lambda x: same(x, changed(x.victim, owner=OWN), x.own),
    ),
    "comparing product keys": ("wrong_owner", lambda x: same(x, x.product, x.product)),
    "giving a box another key by import": (
        "other_key",
        lambda x: same(x, x.victim, seal_device_keys(x.client, [(VICTIM, OWN_KEY)])[0]),
    ),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_an_attempt_gets_nothing_and_raises_the_alarm(attempt: str, loot: Loot) -> None:
    """By its code, in the metric that PortcullisSealedKeyRefused watches."""
    code, attack = ATTEMPTS[attempt]
    metric = f'portcullis_encryptor_refused_total{{code="{code}"}}'
    before = loot.process.metric(metric)
    assert attack(loot) == code
    assert loot.process.metric(metric) == before + 1


def test_the_alarm_watches_each_code_of_an_attempt() -> None:
    """The rule names them all."""
    rules = Path("deploy/prometheus/rules/alerts.yml").read_text(encoding="utf-8")
    (expression,) = [
        line for line in rules.splitlines() if "encryptor_refused_total{code=~" in line
    ]
    watched = expression.split('code=~"')[1].split('"')[0].split("|")
    assert {code for code, _ in ATTEMPTS.values()} == set(watched)


def test_no_answer_of_any_call_holds_a_key(loot: Loot) -> None:
    """Whole or in part, in bytes or in hex: of the device keys, which this test knows."""
    client = loot.client
    state = pb.State(active=True, utc=NOW)
    item = pb.SealItem(address=VICTIM, number=NOW, device_key=loot.victim, state=state)
    answers = [
        client.seal(CAS, [loot.product], [item]).SerializeToString(),
        client.seal_states(states(VICTIM, loot.victim)).SerializeToString(),
        client.seal_states(states(OWN, loot.victim)).SerializeToString(),
        client.make_chain(9, 1, 64).SerializeToString(),
        *(one.SerializeToString() for one in client.rewrap([loot.victim, loot.import_key])),
        *(error.encode() for error in client.verify([loot.victim, changed(loot.own, owner=3)])),
        *(error.encode() for error in client.same_keys([(loot.victim, loot.victim)])),
        client.info().SerializeToString(),
        *(one.SerializeToString() for one in client.import_vendor_file([b"1001,zz\n"], 0)),
    ]
    with pytest.raises(EncryptorError) as caught:
        list(client.import_vendor_file([f"{VICTIM},{VICTIM_KEY.hex()}\0".encode()], 0))
    answers += [str(caught.value).encode(), loot.process.log.read_bytes()]
    everything = b"\n".join(answers)
    for part in (VICTIM_KEY[:8], VICTIM_KEY[-8:], OWN_KEY[:8]):
        assert part not in everything
        assert part.hex().encode() not in everything
