"""`portcullis config`, and the document that lists every key."""

import json
from pathlib import Path

from click.testing import CliRunner

from portcullis.cli.main import cli
from portcullis.runtime.config import ConfigError

DOCUMENT = Path("docs/configuration.md").read_text(encoding="utf-8")


def test_every_key_is_in_the_document() -> None:
    """Nobody adds a key without saying what it does."""
    answer = CliRunner().invoke(cli, ["config", "show"])
    shown = json.loads(answer.output)
    assert shown.keys() == {
        *(
            "database",
            "log",
            "gateway",
            "emmg",
            "encryptor",
            "keys",
            "cycler",
            "scheduler",
            "mux",
            "auditor",
        )
    }
    missing = [
        f"{section}.{key}"
        for section, keys in shown.items()
        for key in keys
        if key != "stream" and f"`{key}`" not in DOCUMENT and f"`{section}.{key}`" not in DOCUMENT
    ]
    assert missing == []


def test_what_is_wrong_is_named_with_its_line(tmp_path: Path) -> None:
    """An unknown section or key, and where it stands."""
    file = tmp_path / "c.toml"
    for text, says in (
        ("[log]\nlevel='info'\n[gateways]\n", "line 3: gateways: expected one of the sections"),
        ("[log]\nlevels='info'\n", "line 2: log.levels"),
    ):
        file.write_text(text)
        answer = CliRunner().invoke(cli, ["config", "check", "--config", str(file)])
        assert isinstance(answer.exception, ConfigError)
        assert says in str(answer.exception)


def test_classes_that_cannot_fit_the_bandwidth_are_refused() -> None:
    """1,000 boxes fit 1 Mbit/s; ten million in half an hour do not."""
    stream = [{"client_id": 0xFFF00001, "data_id": 1, "mux": "m:1", "bandwidth_kbit_s": 1000}]
    environ = {"PORTCULLIS_CYCLER__STREAM": json.dumps(stream)}
    good = CliRunner().invoke(cli, ["config", "check", "--boxes", "1000"], env=environ)
    assert (good.exit_code, good.output) == (0, "configuration: good\n")
    bad = CliRunner().invoke(cli, ["config", "check", "--boxes", "10000000"], env=environ)
    assert isinstance(bad.exception, ConfigError)


def test_a_lead_that_is_too_short_for_the_population_is_refused() -> None:
    """Three cycles of half an hour and the sealing do not fit into an hour."""
    environ = {"PORTCULLIS_SCHEDULER__PREPARE_AHEAD": "1h"}
    bad = CliRunner().invoke(cli, ["config", "check", "--boxes", "100000"], env=environ)
    assert isinstance(bad.exception, ConfigError)
    assert "scheduler.prepare_ahead: a re-key of 100000 boxes takes 5450 s" in str(bad.exception)
    environ = {"PORTCULLIS_SCHEDULER__PREPARE_AHEAD": "2h"}
    assert CliRunner().invoke(cli, ["config", "check", "--boxes", "100000"], env=environ).output


def test_a_stream_of_another_ca_system_is_refused(tmp_path: Path) -> None:
    """Its boxes could not open what is sealed for them."""
    config = tmp_path / "portcullis.toml"
    stream = "\n[emmg]\n[[cycler.stream]]\nclient_id = 0x{:04X}0001\n"
    config.write_text(stream.format(0x1234), encoding="utf-8")
    answer = CliRunner().invoke(cli, ["config", "check", "--config", str(config)])
    assert isinstance(answer.exception, ConfigError)
    assert "0x1234, are not emmg.ca_system_id, 0xFFF0" in str(answer.exception)
    config.write_text(stream.format(0xFFF0), encoding="utf-8")
    answer = CliRunner().invoke(cli, ["config", "check", "--config", str(config)])
    assert answer.exit_code == 0
