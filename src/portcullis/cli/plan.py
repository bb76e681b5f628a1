"""`portcullis plan`: what a head-end of so many boxes needs (docs/capacity.md)."""

from dataclasses import asdict, replace
from math import inf
from pathlib import Path
from typing import Any

import click
from msgspec import structs

from portcullis.cli.context import Context, common_options
from portcullis.cli.plan_chart import chart
from portcullis.cli.planning import DAY_S, Measured, Plan, plan, waits_s
from portcullis.cycler.config import CyclerConfig, StreamConfig
from portcullis.runtime.config import ConfigError, ConfigSource
from portcullis.runtime.errors import PortcullisError
from portcullis.scheduler.config import SchedulerConfig

_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_TIMES = (("d", DAY_S), ("h", 3600.0), ("min", 60.0))


@click.command("plan")
@click.option("--boxes", type=click.IntRange(1), required=True, help="How many there are.")
@click.option(
    "--bandwidth", type=click.IntRange(1, 0xFFFF), required=True, help="Of the stream, kbit/s."
)
@click.option(
    "--classes",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML with the stream's [[class]] tables; without it, the default classes.",
)
@click.option("--orders-per-day", type=click.FloatRange(0), required=True, help="From the SMS.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write the worst wait as SVG."
)
@common_options
@click.pass_obj
def plan_command(
    context: Context,
    *,
    boxes: int,
    bandwidth: int,
    classes: Path | None,
    orders_per_day: float,
    plot: Path | None,
) -> None:
    """Say what so many boxes come to: waits, database, cores. Nothing is asked of a database.

    Keys' periods and what is kept how long are those of [scheduler] in the configuration.
    """
    stream = _stream(classes, bandwidth)
    scheduler = SchedulerConfig.of(context.source())
    measured = Measured.shipped()
    found = plan(stream, scheduler, boxes, orders_per_day, measured)
    if plot is not None:
        _draw(plot, stream, boxes, orders_per_day, found)
    if context.as_json:
        context.show(_for_json(found, measured))
    else:
        _print(context, found, measured)


def _stream(classes: Path | None, kbit_s: int) -> StreamConfig:
    """A stream with the classes of a file; raises ConfigError."""
    one: dict[str, Any] = {"bandwidth_kbit_s": kbit_s}
    text = ""
    if classes is not None:
        source = ConfigSource.load(classes, {})
        if source.data.keys() != {"class"}:
            raise ConfigError(f"{classes}: expected [[class]] tables and nothing else")
        one["class"], text = source.data["class"], source.text
    config = CyclerConfig.of(ConfigSource(classes, text, {"cycler": {"stream": [one]}}))
    return config.stream[0]


def _draw(path: Path, stream: StreamConfig, boxes: int, orders_per_day: float, found: Plan) -> None:
    if found.worst_wait_s == inf:
        raise PortcullisError("nothing to plot: the last class gets no bandwidth at all")
    populations = sorted({max(1, int(boxes * 10 ** (step / 4))) for step in range(-8, 5)})
    per_box_s = orders_per_day / DAY_S / boxes
    rates = sorted(
        {max(1, stream.bandwidth_kbit_s // 2), stream.bandwidth_kbit_s, 2 * stream.bandwidth_kbit_s}
    )
    lines = {
        f"{kbit_s} kbit/s": waits_s(
            structs.replace(stream, bandwidth_kbit_s=kbit_s), per_box_s, populations
        )
        for kbit_s in rates
    }
    try:
        path.write_text(chart(lines, (boxes, found.worst_wait_s)), encoding="utf-8")
    except OSError as error:
        raise PortcullisError(f"{path}: cannot be written: {error.strerror}") from error


def _for_json(found: Plan, measured: Measured) -> dict[str, object]:
    """JSON has no infinity: null, and `falls_behind` says why."""
    finite = replace(
        found,
        classes=[],
        worst_wait_s=_finite(found.worst_wait_s),
        rekey_s=_finite(found.rekey_s),
    )
    classes = [
        asdict(one)
        | {
            "stretch": _finite(one.stretch),
            "period_s": _finite(one.period_s),
            "falls_behind": one.stretch == inf,
        }
        for one in found.classes
    ]
    return asdict(finite) | {"classes": classes, "measured_on": measured.machine}


def _finite(value: float) -> Any:  # noqa: ANN401 (a number, or null)
    return None if value == inf else value


def _print(context: Context, found: Plan, measured: Measured) -> None:
    context.show_rows(
        [
            {
                "class": one.name,
                "wants packets/s": f"{one.wanted_per_s:.1f}",
                "gets": f"{one.gets_per_s:.1f}",
                "stretch": "falls behind" if one.stretch == inf else f"{one.stretch:.2f}",
                "period": _time(one.period_s),
            }
            for one in found.classes
        ],
        ("class", "wants packets/s", "gets", "stretch", "period"),
    )
    context.show(
        {
            "load of the bandwidth": f"{found.load:.0%}",
            "worst wait of a box": _time(found.worst_wait_s),
            "lead time of a re-key": _time(found.rekey_s),
            "database": _bytes(found.database_bytes),
            "database writes a second": _bytes(found.database_write_bytes_per_s),
            "memory of the cycler": _bytes(found.cycler_memory_bytes),
            "as-run log a day": _bytes(found.asrun_bytes_per_day),
        }
    )
    for service, cores in found.cores.items():
        context.show({f"cores, {service}": _NOT_MEASURED if cores is None else f"{cores:.3f}"})
    if measured.machine is not None:
        context.show({"measured on": measured.machine})


_NOT_MEASURED = "not measured yet: make bench"


def _bytes(value: float | None) -> str:
    if value is None:
        return _NOT_MEASURED
    unit, size = next(((u, s) for u, s in _UNITS if value >= s), ("bytes", 1.0))
    return f"{value / size:.3g} {unit}"


def _time(seconds: float) -> str:
    if seconds == inf:
        return "for ever"
    unit, size = next(((u, s) for u, s in _TIMES if seconds >= s), ("s", 1.0))
    return f"{seconds / size:.3g} {unit}"
