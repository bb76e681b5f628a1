"""A progress bar on standard error; none with `--json`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
