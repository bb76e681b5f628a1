"""A malformed configuration names the key, the line and what was expected."""

from pathlib import Path

import pytest
from sqlalchemy import make_url

from portcullis.emmg.config import EmmgConfig
from portcullis.runtime.config import (
    ConfigError,
    ConfigSource,
    DatabaseConfig,
    Duration,
    read_secret,
)
from portcullis.store.database import engine_for
from portcullis.store.servers import servers_of

GOOD = """\
[database]
url = "sqlite:///x.db"

[emmg]
workers = 3
poll = "50ms"
"""


def source(tmp_path: Path, text: str, **environ: str) -> ConfigSource:
    """Load a configuration of this text."""
    path = tmp_path / "portcullis.toml"
    path.write_text(text)
    return ConfigSource.load(path, environ)


def test_a_section_is_read_with_its_units(tmp_path: Path) -> None:
    """Durations carry a unit; what is not given has its default."""
    emmg = source(tmp_path, GOOD).section("emmg", EmmgConfig)
    assert (emmg.workers, emmg.poll, emmg.claim_hold) == (3, 0.05, 5.0)


def test_the_environment_overrides(tmp_path: Path) -> None:
    """PORTCULLIS_<SECTION>__<KEY>."""
    config = source(tmp_path, GOOD, PORTCULLIS_EMMG__WORKERS="7", OTHER="1")
    assert config.section("emmg", EmmgConfig).workers == 7


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ('poll = "50"', r"line 6: emmg\.poll: .*duration"),
        ("workerz = 1", r"line 6: emmg\.workerz: .*unknown field"),
        ("batch = true", r"line 6: emmg\.batch: Expected `int`, got `bool`"),
        ("batch =", "not TOML: .*line 6"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, change: str, says: str) -> None:
    """Key, line, expectation; exit status 2."""
    text = GOOD.replace('poll = "50ms"', change)
    with pytest.raises(ConfigError, match=says) as caught:
        source(tmp_path, text).section("emmg", EmmgConfig)
    assert caught.value.exit_code == 2


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    """Not a traceback."""
    with pytest.raises(ConfigError, match="cannot be read"):
        ConfigSource.load(tmp_path / "none.toml", {})


def test_a_password_comes_from_its_file(tmp_path: Path) -> None:
    """It is quoted into the URL; a missing file is named by its key."""
    secret = tmp_path / "secret"
    secret.write_text("p@ss/word\n")
    config = DatabaseConfig(url="mysql+pymysql://cas@db:3306/cas", password_file=str(secret))
    assert config.full_url() == "mysql+pymysql://cas:p%40ss%2Fword@db:3306/cas"
    assert "p@ss" not in repr(config)
    with pytest.raises(ConfigError, match=r"database\.password_file"):
        read_secret(str(tmp_path / "none"), "database.password_file")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("5min", 300), ("24h", 86400), ("7d", 604800)],
)
def test_durations(text: str, seconds: float) -> None:
    """Every unit."""
    assert Duration.parse(text) == seconds


def test_a_cluster_is_a_url_that_names_every_server(tmp_path: Path) -> None:
    """With the password and the TLS files; nothing of it is in the file of the configuration."""
    (tmp_path / "password").write_text("a/b@c\n")
    text = f"""
[database]
url = "mysql+pymysql://user@/portcullis?charset=utf8mb4"
password_file = "{tmp_path}/password"
hosts = ["db1:3306", "[::1]:3307"]
ssl_ca = "/ca.pem"
"""
    url = source(tmp_path, text).section("database", DatabaseConfig).full_url()
    assert url == (
        "mysql+pymysql://user:a%2Fb%40c@/portcullis?charset=utf8mb4"
        "&host=db1%3A3306&host=%5B%3A%3A1%5D%3A3307&ssl_ca=%2Fca.pem"
    )
    assert servers_of(make_url(url)) == [("db1", 3306), ("::1", 3307)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('hosts = ["db1"]\nurl = "mysql+pymysql://u@/p"', 'expected "host:port", got '),
        ('hosts = ["db1:3306"]', "hosts and ssl_ca are for a MySQL url"),
        ('ssl_key = "k"\nurl = "mysql+pymysql://u@/p"', "ssl_cert and ssl_key need ssl_ca"),
    ],
)
def test_a_database_that_contradicts_itself_is_refused(
    tmp_path: Path, text: str, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        source(tmp_path, f"[database]\n{text}\n").section("database", DatabaseConfig)


def test_a_ca_that_cannot_be_read_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"database\.ssl_ca"):
        engine_for("mysql+pymysql://u@h/p?ssl_ca=/none.pem")
