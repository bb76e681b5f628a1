"""Masters in a file and in a SoftHSM token: one suite for both, then what is the token's alone."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from portcullis.keys import (
    Custody,
    CustodyAwayError,
    FileMasters,
    KeyNotOpenedError,
    MasterError,
    MasterState,
    MasterStore,
    Purpose,
    TokenError,
    TokenMasters,
    check_value,
    init_masters,
)
from tests.integration.softhsm import MODULE, PIN, TOKEN, SoftHsm

KEY = bytes(range(16))
CURRENT, OLDER, WAITING = MasterState.CURRENT, MasterState.OLDER, MasterState.WAITING
Open = Callable[[], MasterStore]


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    """An initialised token without a key."""
    return SoftHsm(tmp_path, monkeypatch)


@pytest.fixture(params=["file", "token"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the place that the masters are in, each time as a process that starts does."""
    if request.param == "file":
        path = tmp_path / "master.json"
        assert init_masters(path, "m1")
        return lambda: FileMasters(path)
    request.getfixturevalue("token")
    assert TokenMasters(MODULE, TOKEN, PIN).init("m1")
    assert not TokenMasters(MODULE, TOKEN, PIN).init("m9")
    return lambda: TokenMasters(MODULE, TOKEN, PIN)


def test_a_key_sealed_by_one_process_opens_in_the_next(opened: Open) -> None:
    """And under no other label."""
    label, blob = Custody(opened()).seal(KEY, Purpose.DEVICE, 42, 0, 65535)
    again = Custody(opened())
    assert again.open(label, blob) == KEY
    for bad in (blob[:-1], blob[:-1] + bytes((blob[-1] ^ 1,))):
        with pytest.raises(KeyNotOpenedError):
            again.open(label, bad)
    with pytest.raises(KeyNotOpenedError):
        again.open(type(label)(Purpose.PRODUCT, 42, 0, 65535, label.master_id), blob)
    assert again.open(label, blob) == KEY


def test_a_master_waits_is_used_becomes_older_and_is_retired(opened: Open) -> None:
    """What it has sealed opens until then; every change asked for twice is made once."""
    store = opened()
    assert dict(store.masters()) == {"m1": CURRENT}
    label, blob = Custody(store).seal(KEY, Purpose.DEVICE, 42, 0, 65535)
    store.make("m2")
    store.make("m2")
    assert dict(store.masters()) == {"m1": CURRENT, "m2": WAITING}
    values = {one: check_value(store, one) for one in ("m1", "m2")}
    assert len(set(values.values())) == 2
    store.use("m2")
    store.use("m2")
    assert dict(opened().masters()) == {"m2": CURRENT, "m1": OLDER}
    assert {one: check_value(opened(), one) for one in ("m1", "m2")} == values
    store = opened()  # a library has one user in a process: what was opened before is stale
    assert Custody(store).current_master_id == "m2"
    assert Custody(store).open(label, blob) == KEY
    store.retire("m1")
    store.retire("m1")
    with pytest.raises(KeyNotOpenedError):
        Custody(store).open(label, blob)
    assert dict(opened().masters()) == {"m2": CURRENT}
    with pytest.raises(KeyNotOpenedError):
        Custody(opened()).open(label, blob)


def test_a_retired_master_can_be_recalled_for_an_old_backup(opened: Open) -> None:
    """It opens what it once sealed, and seals nothing; then it is retired again."""
    store = opened()
    label, blob = Custody(store).seal(KEY, Purpose.DEVICE, 42, 0, 65535)
    store.make("m2")
    store.use("m2")
    store.retire("m1")
    store.recall("m1")
    store.recall("m1")
    assert dict(opened().masters()) == {"m2": CURRENT, "m1": OLDER}
    store = opened()
    assert Custody(store).open(label, blob) == KEY
    store.retire("m1")
    assert dict(opened().masters()) == {"m2": CURRENT}


def test_what_cannot_be_done_to_a_master_is_refused(opened: Open) -> None:
    """Each time with a reason, and nothing has changed."""
    store = opened()
    for change in (store.use, store.retire, store.recall):
        with pytest.raises(MasterError, match="m7"):
            change("m7")
    with pytest.raises(MasterError, match="current"):
        store.retire("m1")
    assert dict(opened().masters()) == {"m1": CURRENT}


def test_the_masters_key_is_not_to_be_had_out_of_the_token(token: SoftHsm) -> None:
    """An independent tool sees what the object may be used for, and reads no value."""
    TokenMasters(MODULE, TOKEN, PIN).init("m1")
    tool = ["pkcs11-tool", "--module", MODULE, "--token-label", TOKEN, "--login", "--pin", PIN]
    listed = subprocess.run(
        [*tool, "--list-objects", "--type", "secrkey"], capture_output=True, text=True, check=True
    ).stdout
    assert "portcullis-master:m1" in listed
    assert "AES length 32" in listed
    usage = next(line for line in listed.splitlines() if "Usage" in line)
    assert usage.split(":")[1].strip() == "encrypt, decrypt"
    access = next(line for line in listed.splitlines() if "Access" in line)
    assert access.split(":")[1].strip() == "sensitive, always sensitive, never extractable, local"
    out = token.tokens / "value"
    read = subprocess.run(
        [*tool, "--read-object", "--type", "secrkey", "--label", "portcullis-master:m1"]
        + ["--output-file", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert read.returncode != 0
    assert "error" in read.stderr.lower()


def test_a_token_that_goes_away_is_used_again_when_it_is_back(token: SoftHsm) -> None:
    """Meanwhile every call says that it is away, and health says why."""
    now = 0.0
    store = TokenMasters(MODULE, TOKEN, PIN, lambda: now)
    store.init("m1")
    custody = Custody(store)
    label, blob = custody.seal(KEY, Purpose.DEVICE, 42, 0, 65535)
    token.away()
    for _ in range(3):
        with pytest.raises(CustodyAwayError, match="away"):
            custody.open(label, blob)
        assert "away" in (store.check() or "")
        now += 2
    with pytest.raises(CustodyAwayError):
        custody.seal(KEY, Purpose.DEVICE, 42, 0, 65535)
    token.back()
    now += 2
    assert store.check() is None
    assert custody.open(label, blob) == KEY


def test_a_token_that_is_away_at_the_start_is_waited_for(token: SoftHsm) -> None:
    """The encryptor comes up without it."""
    now = 0.0
    TokenMasters(MODULE, TOKEN, PIN).init("m1")
    token.away()
    store = TokenMasters(MODULE, TOKEN, PIN, lambda: now)
    assert store.check() is not None
    token.back()
    now += 2
    assert store.check() is None
    assert dict(store.masters()) == {"m1": CURRENT}


def test_a_wrong_pin_is_tried_once(token: SoftHsm) -> None:
    """A token locks itself after a few wrong ones; neither text nor repr shows the PIN."""
    TokenMasters(MODULE, TOKEN, PIN).init("m1")
    now = 0.0
    store = TokenMasters(MODULE, TOKEN, "99999", lambda: now)
    with pytest.raises(TokenError, match="refuses the PIN"):
        store.masters()
    token.pin_file.write_text(PIN)
    now += 100
    with pytest.raises(CustodyAwayError, match="refuses the PIN") as caught:
        store.masters()
    assert "99999" not in f"{caught.value}{store!r}"


def test_a_token_without_masters_says_how_to_make_one(token: SoftHsm) -> None:
    """It is not away for good: once there is one, it is found."""
    store = TokenMasters(MODULE, TOKEN, PIN)
    assert "keys init" in (store.check() or "")
    command = ["pkcs11-tool", "--module", MODULE, "--token-label", TOKEN, "--login", "--pin", PIN]
    keygen = ["--keygen", "--key-type", "AES:32", "--label", "portcullis-master:m1", "--id", "02"]
    subprocess.run([*command, *keygen], check=True, capture_output=True)
    assert store.check() is None
    assert token.tokens.exists()


def test_a_token_or_a_library_that_is_not_there_is_named(token: SoftHsm) -> None:
    """With what to look for."""
    with pytest.raises(TokenError, match=r"/nowhere\.so"):
        TokenMasters("/nowhere.so", TOKEN, PIN)
    assert "'other'" in (TokenMasters(MODULE, "other", PIN).check() or "")
    assert token.tokens.exists()
