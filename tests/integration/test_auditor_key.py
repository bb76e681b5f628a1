"""The auditor's own key, changed: the record goes on, and one key is enough to verify all of it."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from evidence_log import auditor, order
from sqlalchemy import Engine

from portcullis.auditor.chainlog import ChainLog, Keeping
from portcullis.auditor.heads import HEADS, Signer, load_public, public_pem
from portcullis.auditor.keychange import change_key
from portcullis.auditor.report import Report
from portcullis.auditor.verify import Anchors, Verifier
from portcullis.cli.main import cli
from portcullis.runtime.config import ConfigError
from portcullis.store.database import engine_for
from portcullis.store.migrate import migrate


class Home:
    """A record, its keys as they were taken off the host, and the commands on it."""

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path, self.engine = path, engine
        self.audit, self.key_file = path / "audit", path / "key.pem"
        self.taken: list[Path] = []
        self.config = path / "portcullis.toml"
        self.config.write_text(
            f'[database]\nurl = "{engine.url}"\n'
            f'[auditor]\ndir = "{self.audit}"\nkey_file = "{self.key_file}"\n'
        )

    def keep(self, *numbers: int) -> None:
        """An auditor's day: orders, a head, and the public key taken off the host."""
        order(self.engine, *numbers)
        one = auditor(self.engine, self.path)
        one.follow()
        assert one.sign()
        one.close()
        self.taken.append(self.path / f"taken-{len(self.taken)}.pem")
        shutil.copy(self.audit / "public-key.pem", self.taken[-1])

    def change(self) -> None:
        """`audit rotate-key`, as a function."""
        change_key(self.audit, self.key_file, Keeping(), datetime.now(UTC))

    def found(self, key: Path) -> list[str]:
        """What a verification with this public key finds."""
        report = Report()
        Verifier(
            self.audit,
            load_public(key),
            Anchors.read([]),
            report,
            keep=timedelta(days=1100),
            now=datetime.now(UTC),
        ).run()
        return [finding.what for finding in report.findings]

    def run(self, *words: str) -> tuple[int, str]:
        """An audit command; its status and what it says."""
        said = CliRunner().invoke(cli, ["audit", *words, "--config", str(self.config)])
        return said.exit_code, said.output


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A record with a head."""
    engine = engine_for(f"sqlite:///{tmp_path}/p.db")
    migrate(engine)
    home = Home(tmp_path, engine)
    home.keep(1, 2)
    yield home
    engine.dispose()


def test_the_key_is_changed_by_a_command_and_any_of_the_keys_verifies_all(home: Home) -> None:
    """Twice; the private keys of before are gone."""
    before = home.key_file.read_bytes()
    for number in (3, 4):
        status, said = home.run("rotate-key")
        assert status == 0, said
        home.keep(number)
        assert public_pem(Signer.load(home.key_file).public) == home.taken[-1].read_bytes()
    assert len({taken.read_bytes() for taken in home.taken}) == 3
    assert [home.found(taken) for taken in home.taken] == [[], [], []]
    assert home.run("verify")[0] == 0
    assert home.key_file.stat().st_mode & 0o777 == 0o600
    stranger = home.path / "stranger.pem"
    stranger.write_bytes(public_pem(Signer.load(home.path / "strange.pem").public))
    assert home.found(stranger) == ["none is signed by the key given, nor by one that it signed in"]
    left = b"".join(path.read_bytes() for path in home.path.iterdir() if path.is_file())
    assert before.splitlines()[1] not in left


def test_a_new_key_signs_at_once_though_nothing_was_ordered(home: Home) -> None:
    """So it vouches for what came before."""
    home.change()
    home.keep()
    assert home.found(home.taken[-1]) == []


def test_a_key_that_was_not_signed_in_is_not_signed_with(home: Home) -> None:
    """A file put in the old one's place would make a record that nobody can verify."""
    home.key_file.unlink()
    with pytest.raises(ConfigError, match="goes on with the key"):
        auditor(home.engine, home.path)
    with pytest.raises(ConfigError, match="neither there nor beside it"):
        home.change()


def test_the_command_wants_the_auditor_stopped_and_something_signed(home: Home) -> None:
    """Two that sign would fork the record."""
    running = auditor(home.engine, home.path)
    with pytest.raises(ConfigError, match="another auditor keeps"):
        home.change()
    running.close()
    shutil.rmtree(home.audit / HEADS)
    with pytest.raises(ConfigError, match="nothing is signed there yet"):
        home.change()


@pytest.mark.parametrize("step", ["append", "replace"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_change_that_was_killed_is_ended_by_running_it_again(
    home: Home, step: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was done, one head changes the key, or the change was over already."""
    where: type = {"append": ChainLog, "replace": Path}[step]
    real = getattr(where, step)

    class Killed(BaseException):
        """The command was killed."""

    def dying(*arguments: object) -> None:
        if when == "after":
            real(*arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(where, step, dying)
        with pytest.raises(Killed):
            home.change()
    if (step, when) != ("replace", "after"):
        home.change()
    home.keep(3)
    lines = b"".join(path.read_bytes() for path in (home.audit / HEADS).iterdir())
    assert lines.count(b"key_change") == 1
    assert [home.found(taken) for taken in home.taken] == [[], []]


def test_who_has_a_key_of_before_cannot_write_another_record(home: Home, tmp_path: Path) -> None:
    """The key behind the change is not his, and the heads that it signed hold the true past."""
    stolen = tmp_path / "stolen.pem"
    shutil.copy(home.key_file, stolen)
    past = tmp_path / "past"
    shutil.copytree(home.audit, past)
    home.change()
    home.keep(3)
    shutil.rmtree(home.audit)
    past.rename(home.audit)
    stolen.replace(home.key_file)
    home.keep(4)
    assert set(home.found(home.taken[1])) == {"is not signed by the auditor's key"}
    assert home.found(home.taken[0]) == []  # which is why the new key belongs off the host too


def test_an_export_is_verified_with_the_keys_that_signed_it(home: Home) -> None:
    """Each record by the key of its head."""
    home.change()
    home.keep(3)
    file = home.path / "export.csv"
    assert home.run("export", "--format", "csv", "--output", str(file))[0] == 0
    old, new = (("--public-key", str(taken)) for taken in home.taken)
    assert home.run("verify-export", str(file), *old, *new)[0] == 0
    status, said = home.run("verify-export", str(file), *new)
    assert status == 1
    assert "not signed by this key" in said
