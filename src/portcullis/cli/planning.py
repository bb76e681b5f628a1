"""What a head-end of so many boxes and orders comes to: the formulas of docs/capacity.md. Pure."""

from dataclasses import dataclass
from importlib.resources import files
from math import ceil, inf

import msgspec

from portcullis.cycler.capacity import capacity_of, full_cycle_s, served, stretches
from portcullis.cycler.config import StreamConfig
from portcullis.scheduler.config import SchedulerConfig
from portcullis.scheduler.leadtime import MARKED_PER_S, lead_time

DAY_S = 86_400


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What the benchmarks have found; None: not measured yet. CPU is that of one core.

    Attributes:
        machine: where.
        gateway_us_per_order, database_us_per_order: of accepted orders, one by one.
        emmg_us_per_state, encryptor_us_per_state, database_us_per_state: of a re-key.
        cycler_us_per_packet: over SimulCrypt TCP, as-run log on.
        states_per_s: sealed and written by one EMMG.
        bytes_per_order, redo_bytes_per_order: kept in, and logged by the database.
        bytes_per_box: kept in the database.
        cycler_bytes_per_box: memory.
        asrun_bytes_per_record: on disk.
    """

    machine: str | None = None
    gateway_us_per_order: float | None = None
    database_us_per_order: float | None = None
    emmg_us_per_state: float | None = None
    encryptor_us_per_state: float | None = None
    database_us_per_state: float | None = None
    cycler_us_per_packet: float | None = None
    states_per_s: float | None = None
    bytes_per_order: float | None = None
    redo_bytes_per_order: float | None = None
    bytes_per_box: float | None = None
    cycler_bytes_per_box: float | None = None
    asrun_bytes_per_record: float | None = None

    @classmethod
    def shipped(cls) -> "Measured":
        """What `make bench` has last found, as it comes with the release."""
        data = files("portcullis.cli").joinpath("measured.json").read_bytes()
        return msgspec.json.decode(data, type=cls)


@dataclass(frozen=True)
class ClassPlan:
    """One class; packets per second, seconds. inf: it falls behind its orders for ever."""

    name: str
    wanted_per_s: float
    gets_per_s: float
    stretch: float
    period_s: float


@dataclass(frozen=True)
class Plan:
    """What to expect; None where a benchmark it rests on has no result yet.

    Attributes:
        load: wanted over what the bandwidth carries; above 1 something stretches.
        worst_wait_s: of a box that was switched off and needs its state: a full cycle.
        rekey_s: from the begin of a re-key until every box has been given it often enough.
        cores: by service, at the mean of the day, re-keys and daily re-seals included.
    """

    classes: list[ClassPlan]
    load: float
    worst_wait_s: float
    rekey_s: float
    database_bytes: float | None
    database_write_bytes_per_s: float | None
    cycler_memory_bytes: float | None
    asrun_bytes_per_day: float | None
    cores: dict[str, float | None]


def plan(
    stream: StreamConfig,
    scheduler: SchedulerConfig,
    boxes: int,
    orders_per_day: float,
    measured: Measured,
) -> Plan:
    """Work it out for one stream that airs every box."""
    orders_per_s = orders_per_day / DAY_S
    wanted = capacity_of(stream, boxes, orders_per_s)
    got = served(stream, boxes, orders_per_s)
    stretch = stretches(stream, boxes, orders_per_s)
    cycle_s = full_cycle_s(stream, boxes, orders_per_s)
    sealed_per_s = min(MARKED_PER_S, measured.states_per_s or MARKED_PER_S)
    # Orders, and every box once in `reseal_every` and once in each key period.
    seals_per_s = orders_per_s + boxes / scheduler.reseal_every
    seals_per_s += boxes / scheduler.product_key_period
    packets_per_s = sum(got.values())
    kept_orders = orders_per_s * scheduler.requests_keep
    return Plan(
        classes=[
            ClassPlan(
                one.name,
                wanted.demand[one.name],
                got[one.name],
                stretch[one.name],
                one.every * stretch[one.name],
            )
            for one in stream.classes
        ],
        load=wanted.load,
        worst_wait_s=cycle_s,
        rekey_s=_rekey_s(boxes, cycle_s, scheduler.air_cycles, sealed_per_s),
        database_bytes=_sum(
            _times(boxes, measured.bytes_per_box), _times(kept_orders, measured.bytes_per_order)
        ),
        database_write_bytes_per_s=_times(orders_per_s, measured.redo_bytes_per_order),
        cycler_memory_bytes=_times(boxes, measured.cycler_bytes_per_box),
        asrun_bytes_per_day=_times(packets_per_s * DAY_S, measured.asrun_bytes_per_record),
        cores={
            "gateway": _cores(orders_per_s, measured.gateway_us_per_order),
            "emmg": _cores(seals_per_s, measured.emmg_us_per_state),
            "encryptor": _cores(seals_per_s, measured.encryptor_us_per_state),
            "cycler": _cores(packets_per_s, measured.cycler_us_per_packet),
            "database": _sum(
                _cores(orders_per_s, measured.database_us_per_order),
                _cores(seals_per_s, measured.database_us_per_state),
            ),
        },
    )


def waits_s(
    stream: StreamConfig, orders_per_box_s: float, populations: list[int]
) -> list[tuple[int, float]]:
    """The worst wait for each population, orders growing with it; where there is one."""
    found = [
        (boxes, full_cycle_s(stream, boxes, boxes * orders_per_box_s)) for boxes in populations
    ]
    return [(boxes, wait_s) for boxes, wait_s in found if wait_s < inf]


def _rekey_s(boxes: int, cycle_s: float, cycles: int, sealed_per_s: float) -> float:
    if cycle_s == inf:
        return inf
    return float(ceil(lead_time(boxes, cycle_s, cycles, sealed_per_s).delta.total_seconds()))


def _times(count: float, each: float | None) -> float | None:
    return None if each is None else count * each


def _cores(per_s: float, us: float | None) -> float | None:
    return _times(per_s / 1e6, us)


def _sum(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
