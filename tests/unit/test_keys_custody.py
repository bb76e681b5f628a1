"""The custody of keys: what opens, what does not, and what is never shown."""

import json
from pathlib import Path

import pytest

from portcullis.keys import (
    Custody,
    FileMasters,
    KeyFileError,
    KeyNotOpenedError,
    KeyRing,
    MasterKey,
    MasterState,
    Purpose,
    init_masters,
)
from portcullis.keys.keyfile import read_masters

KEY = bytes(range(16))


def custody() -> Custody:
    """Custody."""
    return Custody(KeyRing([MasterKey("m2", b"\2" * 32), MasterKey("m1", b"\1" * 32)]))


def test_a_sealed_key_opens_under_its_own_label() -> None:
    """A sealed key opens under its own label."""
    label, blob = custody().seal(KEY, Purpose.DEVICE, 42, 0, 65535)
    assert label.master_id == "m2"
    assert KEY not in blob
    assert custody().open(label, blob) == KEY


@pytest.mark.parametrize(
    "change",
    [
        {"owner": 43},
        {"purpose": Purpose.PRODUCT},
        {"first_epoch": 1},
        {"last_epoch": 9},
        {"master_id": "m1"},
        {"master_id": "m3"},
        {"master_id": "a name far too long for one"},
        {"master_id": "mästare"},
        {"owner": 2**64},
    ],
)
def test_a_row_moved_or_relabelled_does_not_open(change: dict[str, object]) -> None:
    """A row moved or relabelled does not open."""
    label, blob = custody().seal(KEY, Purpose.DEVICE, 42, 0, 65535)
    with pytest.raises(KeyNotOpenedError):
        custody().open(label._replace(**change), blob)  # type: ignore[arg-type]


def test_altered_or_short_bytes_do_not_open() -> None:
    """Altered or short bytes do not open."""
    label, blob = custody().seal(KEY, Purpose.DEVICE, 42, 0, 65535)
    for bad in (blob[:-1], b"", blob[:-1] + bytes((blob[-1] ^ 1,))):
        with pytest.raises(KeyNotOpenedError):
            custody().open(label, bad)


def test_the_label_is_31_bytes_in_a_fixed_layout() -> None:
    """The layout that docs/keys.md gives: "PK", purpose, owner, epochs, master id."""
    label, _ = custody().seal(KEY, Purpose.PRODUCT, 0x0102, 3, 66)
    assert label.to_bytes() == (
        b"PK" + b"\x02" + bytes(6) + b"\x01\x02" + b"\x00\x03" + b"\x00\x42" + b"m2" + bytes(14)
    )


def test_no_text_shows_a_key() -> None:
    """No text shows a key."""
    master = MasterKey("m1", KEY * 2)
    for text in (repr(master), str(master), repr(Custody(KeyRing([master]))), f"{[master]}"):
        assert "***" in text
        assert KEY.hex() not in text
        assert repr(KEY)[2:-1] not in text


def test_the_first_master_is_made_once_and_for_this_user_alone(tmp_path: Path) -> None:
    """The first master is made once and for this user alone."""
    path = tmp_path / "keys" / "master.json"
    assert init_masters(path, "2025")
    before = path.read_bytes()
    assert not init_masters(path, "2026")
    assert path.read_bytes() == before
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(path.parent.iterdir()) == [path]


def test_two_masters_of_one_name_are_refused(tmp_path: Path) -> None:
    """Two masters of one name are refused."""
    path = tmp_path / "master.json"
    init_masters(path, "m1")
    (entry,) = json.loads(path.read_text())
    path.write_text(json.dumps([entry, entry]))
    with pytest.raises(KeyFileError, match="same master_id"):
        read_masters(path)


def test_a_file_changed_by_another_process_is_read_again(tmp_path: Path) -> None:
    """A key sealed under a master that was added since opens; a file gone bad changes nothing."""
    path = tmp_path / "master.json"
    init_masters(path, "m1")
    ours, theirs = FileMasters(path), FileMasters(path)
    theirs.make("m2")
    theirs.use("m2")
    label, blob = Custody(theirs).seal(KEY, Purpose.DEVICE, 42, 0, 65535)
    assert Custody(ours).open(label, blob) == KEY
    assert dict(ours.masters()) == {"m2": MasterState.CURRENT, "m1": MasterState.OLDER}
    path.chmod(0o644)
    assert "0644" in (ours.check() or "")
    with pytest.raises(KeyFileError):
        ours.refresh()
    assert Custody(ours).open(label, blob) == KEY
    path.chmod(0o600)
    assert ours.check() is None


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """A file that others may read is refused."""
    path = tmp_path / "master.json"
    init_masters(path, "m1")
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="0640"):
        read_masters(path)


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", '[{"master_id": "m", "key": "c0ffee"}]', '[{"master_id": "m", "key": "c0f"}]'],
)
def test_a_file_that_is_no_key_file_is_refused_without_quoting_it(
    tmp_path: Path, content: str
) -> None:
    """A file that is no key file is refused without quoting it."""
    path = tmp_path / "master.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=r"master\.json") as caught:
        read_masters(path)
    assert "c0f" not in str(caught.value)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    """A missing file says how to make one."""
    with pytest.raises(KeyFileError, match="keys init"):
        read_masters(tmp_path / "master.json")
