"""One TOML file, a section per service, strict keys.

`PORTCULLIS_<SECTION>__<KEY>` in the environment overrides a key (lists and
tables as JSON). Durations carry a unit ("500ms", "30s", "5min", "24h", "7d").
Secrets are never values: keys ending in `_file` name where one is kept.

A room declares its section as a frozen `Section` struct and reads it with
`load_section`; docs/configuration.md lists them all.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from portcullis.runtime.errors import PortcullisError

ENV_PREFIX = "PORTCULLIS_"

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|min|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class ConfigError(PortcullisError):
    """The configuration cannot be used: says which key, on which line, and what is expected."""

    exit_code = 2


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every section: unknown keys are refused."""


class DatabaseConfig(Section, frozen=True):
    """`[database]`: where the tables are. The password, if any, is read from `password_file`.

    hosts: "host:port" of every server of a cluster; the one that takes writes is used.
    ssl_ca: makes TLS a must; the servers' certificates must be from it and for their names.
    """

    url: str = "sqlite:///var/portcullis.db"
    password_file: str | None = None
    hosts: list[str] = []
    ssl_ca: str | None = None
    ssl_cert: str | None = None
    ssl_key: str | None = None
    pool_size: int = 5

    def __post_init__(self) -> None:
        """Raise ValueError for what contradicts itself."""
        for host in self.hosts:
            if not re.fullmatch(r"\S+:\d+", host):
                raise ValueError(f'hosts: expected "host:port", got {host!r}')
        if self.url.startswith("sqlite") and (self.hosts or self.ssl_ca):
            raise ValueError("hosts and ssl_ca are for a MySQL url")
        if (self.ssl_cert or self.ssl_key) and not self.ssl_ca:
            raise ValueError("ssl_cert and ssl_key need ssl_ca")

    def full_url(self) -> str:
        """The URL with all that a connection needs, its password included. Never log it."""
        url = self.url
        if self.password_file is not None:
            password = read_secret(self.password_file, "database.password_file")
            quoted = quote(password, safe="")
            url = re.sub(r"(://[^:@/]+)@", lambda m: f"{m[1]}:{quoted}@", url, count=1)
        more = [("host", host) for host in self.hosts]
        tls = {"ssl_ca": self.ssl_ca, "ssl_cert": self.ssl_cert, "ssl_key": self.ssl_key}
        more += [(name, path) for name, path in tls.items() if path is not None]
        if more:
            url += ("&" if "?" in url else "?") + urlencode(more)
        return url


class LogConfig(Section, frozen=True):
    """`[log]`: the services' own logs, JSON lines on standard error."""

    level: str = "info"


@dataclass(frozen=True)
class ConfigSource:
    """A parsed file with its text, so that errors can name a line."""

    path: Path | None
    text: str
    data: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path | None, environ: Mapping[str, str] = os.environ) -> "ConfigSource":
        """Read the file (None: defaults only) and lay the environment over it.

        Raises ConfigError.
        """
        text, data = "", {}
        if path is not None:
            try:
                text = path.read_text(encoding="utf-8")
                data = tomllib.loads(text)
            except OSError as error:
                raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
            except tomllib.TOMLDecodeError as error:
                raise ConfigError(f"{path}: not TOML: {error}") from error
        for name, value in environ.items():
            section, _, key = name.removeprefix(ENV_PREFIX).lower().partition("__")
            if name.startswith(ENV_PREFIX) and key:
                data.setdefault(section, {})[key] = _from_environment(value)
        return cls(path, text, data)

    def section(self, name: str, kind: type["_S"]) -> "_S":
        """Decode one section; raises ConfigError naming key, line and what is expected."""
        try:
            return msgspec.convert(
                self.data.get(name, {}), kind, strict=False, dec_hook=_decode_duration
            )
        except msgspec.ValidationError as error:
            raise self._explain(name, str(error)) from error

    def unknown_section(self, name: str, known: Iterable[str]) -> ConfigError:
        """The error for a section that no room reads."""
        line = _line_of(self.text, [name])
        where = f"{self.path or 'configuration'}{f', line {line}' if line else ''}"
        return ConfigError(f"{where}: {name}: expected one of the sections {', '.join(known)}")

    def _explain(self, section: str, message: str) -> ConfigError:
        expected, _, path = message.partition(" - at `$")
        keys = [section, *re.findall(r"[A-Za-z_]\w*", path)]
        if unknown := re.search(r"unknown field `(\w+)`", expected):
            keys.append(unknown[1])
        line = _line_of(self.text, keys)
        where = f"{self.path or 'configuration'}{f', line {line}' if line else ''}"
        return ConfigError(f"{where}: {'.'.join(keys)}: {expected}")


_S = TypeVar("_S", bound=Section)


def _from_environment(value: str) -> Any:  # noqa: ANN401 (whatever JSON holds)
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value


def _decode_duration(kind: type, value: Any) -> Any:  # noqa: ANN401 (as msgspec passes it)
    if kind is Duration:
        return Duration.parse(value)
    raise NotImplementedError(kind)


def _line_of(text: str, keys: list[str]) -> int | None:
    """The line of the last of `keys` that the text has, in the tables the earlier ones name."""
    found, inside = None, False
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+\s*([\w.]+)\s*\]+", line):
            names = header[1].split(".")
            inside = names == keys[: len(names)]
            if inside:
                found = found or number
        elif inside and re.match(rf"\s*{re.escape(keys[-1])}\s*=", line):
            return number
    return found


class Duration(float):
    """Seconds, written with a unit in the configuration."""

    @classmethod
    def parse(cls, value: object) -> "Duration":
        """Read "500ms", "30s", "5min", "24h" or "7d"; raises ValueError."""
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f'expected a duration such as "500ms", "30s" or "24h", got {value!r}')
        return cls(float(match[1]) * _UNIT_S[match[2]])

    @property
    def delta(self) -> timedelta:
        """The same as a timedelta."""
        return timedelta(seconds=float(self))


def read_secret(path: str, key: str) -> str:
    """Read a secret's file; raises ConfigError that names the key and never the content."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error.strerror}") from error
