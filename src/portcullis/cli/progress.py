"""A progress bar on standard error; none with `--json`."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from portcullis.cli.context import Context

_T = TypeVar("_T")


def counted(steps: Iterable[_T], advance: Callable[[int], None]) -> Iterator[_T]:
    """Hand the steps on, one after the other, and tell of each."""
    for step in steps:
        yield step
        advance(1)


@contextmanager
def progress_bar(
    context: Context, what: str, total: int | None, *, unit: str = ""
) -> Iterator[Callable[[int], None]]:
    """Show how far something is; the block is given a function that is told each step.

    `unit`: "bytes" shows them with their prefixes.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn() if unit == "bytes" else MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=context.as_json,
    ) as progress:
        task = progress.add_task(what, total=total)
        yield lambda step: progress.update(task, advance=step)
