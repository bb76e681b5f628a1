"""What every command shares: the configuration and the way to print."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from portcullis.runtime.config import ConfigSource, DatabaseConfig

if TYPE_CHECKING:
    from sqlalchemy import Engine

_F = TypeVar("_F", bound=Callable[..., Any])


def to_json(value: Mapping[str, object]) -> str:
    """One line of JSON; times as RFC 3339."""

    def plain(other: object) -> str:
        return other.isoformat() if isinstance(other, datetime) else str(other)

    return json.dumps(value, default=plain)


def short_time(moment: datetime | None) -> str:
    """A time as people read it, UTC to the second; a dash for none."""
    return "–" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}Z"


@dataclass
class Context:
    """The configuration as given, and how to answer."""

    config: Path | None = None
    state_dir: Path | None = None
    as_json: bool = False

    def source(self) -> ConfigSource:
        """Read the configuration; raises ConfigError."""
        return ConfigSource.load(self.config)

    @contextmanager
    def database(self) -> "Iterator[Engine]":
        """The configured database."""
        from portcullis.store.database import engine_for  # noqa: PLC0415 (no room shall load it)

        config = self.source().section("database", DatabaseConfig)
        # No bound: a migration may run for hours, and whoever gave the command can end it.
        engine = engine_for(config.full_url(), pool_size=1, answer_s=None)
        try:
            yield engine
        finally:
            engine.dispose()

    def show(self, value: Mapping[str, object]) -> None:
        """Print one thing: JSON, or a line a field."""
        if self.as_json:
            click.echo(to_json(value))
        else:
            for name, field in value.items():
                click.echo(f"{name}: {field}")

    def show_rows(self, rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> None:
        """Print many: JSON lines, or a table."""
        if self.as_json:
            for row in rows:
                click.echo(to_json(row))
            return
        from rich.console import Console  # noqa: PLC0415 (no room shall load it)
        from rich.table import Table  # noqa: PLC0415

        table = Table(*columns)
        for row in rows:
            table.add_row(*("" if row[name] is None else str(row[name]) for name in columns))
        Console(file=sys.stdout).print(table)


class Instant(click.ParamType[datetime]):
    """An RFC 3339 time with its offset."""

    name = "RFC3339"

    def convert(
        self,
        value: Any,  # noqa: ANN401 (click's own)
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> datetime:
        """Read an RFC 3339 time with its offset."""
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not an RFC 3339 time", param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{value!r} lacks an offset such as Z", param, ctx)
        return moment


class Number(click.ParamType[int]):
    """A PID or an identifier of DVB, as analysers write it: 0x1F00, or in decimal."""

    name = "NUMBER"

    def convert(
        self,
        value: Any,  # noqa: ANN401 (click's own)
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        """Read a number; 0x, 0o and 0b say its base."""
        try:
            return int(value, 0)
        except ValueError:
            self.fail(f"{value!r} is not a number such as 0x1F00", param, ctx)


def common_options(command: _F) -> _F:
    """`--config FILE` and `--json`, on every command."""

    def take_config(context: click.Context, _: click.Parameter, value: Path | None) -> None:
        if value is not None:
            context.ensure_object(Context).config = value

    def take_json(context: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 (click calls it so)
        if value:
            context.ensure_object(Context).as_json = True

    command = click.option(
        "--json", is_flag=True, expose_value=False, callback=take_json, help="Answer in JSON."
    )(command)
    return click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        expose_value=False,
        callback=take_config,
        help="The TOML file; without it, defaults and the environment.",
    )(command)
