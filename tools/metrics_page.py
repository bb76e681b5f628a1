"""Write docs/metrics.md from the metrics that the rooms declare: `make docs`."""

import importlib
import sys
import textwrap
from collections.abc import Iterator

from portcullis.cli.services import ROOMS
from portcullis.runtime.metrics import DECLARED, Declared

_HEAD = """\
# Metrics

Made from the code by `make docs`. Every service answers `GET /metrics` on its monitoring port
([configuration.md](configuration.md)) in Prometheus's text format. Times are in seconds, sizes in
bytes. Beside these, each service has the `process_*` and `python_*` metrics of Prometheus's client.
"""
_COLUMNS = 108


def main() -> None:
    """Print the page."""
    sys.stdout.write("\n".join(_lines()))


def _lines() -> Iterator[str]:
    yield _HEAD
    for room in ROOMS:
        importlib.import_module(f"portcullis.{room}.main")
    sections = {"": "Every service"} | {room: f"`{room}`" for room in sorted(ROOMS)}
    for room, title in sections.items():
        yield f"## {title}\n"
        for one in sorted(DECLARED, key=lambda one: one.name):
            if _room(one) == room:
                labels = f"{{{', '.join(one.labels)}}}" if one.labels else ""
                item = f"- `{one.name}{labels}` {one.kind}: {one.meaning}."
                yield from textwrap.wrap(
                    item,
                    _COLUMNS,
                    subsequent_indent="  ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
        yield ""


def _room(one: Declared) -> str:
    word = one.name.split("_")[1]
    return word if word in ROOMS else ""


if __name__ == "__main__":
    main()
