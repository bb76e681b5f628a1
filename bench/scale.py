"""`scale`: what an EMM, a box, a claim and a look at the feed cost, as boxes grow."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from uuid import uuid4

from bench.cycler import STEADY, cycler
from bench.mariadb import Server, server
from bench.measure import (
    Measured,
    Meter,
    Round,
    in_rounds,
    median_ratio,
    medians,
    resident_bytes,
)
from bench.population import orderable, states
from bench.result import Criterion, Result
from portcullis.store.database import engine_for
from portcullis.store.feed import FeedWatch, changes
from portcullis.store.queue import is_any_due
from portcullis.store.work import claim

_KBIT_S = 20_000
_EMMS_PER_S = _KBIT_S * 1000 / 8 / 188
_BATCH = 500
_TIMES = 3
_TIMES_IDLE = 50  # of what takes less than a millisecond
_HOLD = timedelta(seconds=30)
_SEALED_KEY_BYTES = 12 + 32 + 16  # nonce, key, tag


def _airing(database: Server, boxes: int, seconds: float, bare: int) -> dict[str, float]:
    """CPU an EMM aired, and memory a box beyond that of a cycler without any."""
    every = f"{max(1, round(1000 * boxes / _EMMS_PER_S / 1.5))}ms"  # more due than is sent
    stream = f"bandwidth_kbit_s = {_KBIT_S}\n" + STEADY.format(every=every)
    with cycler(database.url, [stream]) as one:
        time.sleep(2)
        name = "portcullis_cycler_aired_emms_total"
        before = one.metric(name)
        with Meter([one.pid]) as meter:
            time.sleep(seconds)
        aired = one.metric(name) - before
        assert aired
        return {
            "µs of CPU an EMM aired": meter.cpu / aired * 1e6,
            "bytes of memory a box": (resident_bytes(one.pid) - bare) / boxes,
        }


def _bare_cycler() -> int:
    stream = f"bandwidth_kbit_s = {_KBIT_S}\n" + STEADY.format(every="1s")
    with server() as database, cycler(database.url, [stream]) as one:
        time.sleep(2)
        return resident_bytes(one.pid)


def _median_ms(
    call: Callable[[], object], times: int, before: Callable[[], object] = lambda: None
) -> Measured:
    def measured() -> float:
        found = []
        for _ in range(times):
            before()
            begun = time.perf_counter()
            call()
            found.append((time.perf_counter() - begun) * 1000)
        return statistics.median(found)

    return measured


@contextmanager
def _statements(database: Server, boxes: int) -> Iterator[dict[str, Measured]]:
    """Milliseconds of an idle claim, of one of 500 boxes, of 500 changes and of the feed."""
    step = max(1, boxes // _BATCH)
    some = f"device_id MOD {step} = 0 ORDER BY device_id LIMIT {_BATCH}"

    def make_due() -> None:
        database.run(
            "UPDATE device_work SET due_at = NULL WHERE due_at IS NOT NULL",
            "DELETE FROM claims",
            f"UPDATE device_work SET due_at = NOW(6) WHERE {some}",
        )

    def change() -> None:
        database.run(
            "UPDATE feed SET revision = revision + 1",
            f"UPDATE emms SET revision = (SELECT revision FROM feed) WHERE {some}",
        )

    def idle() -> None:
        assert not is_any_due(engine, _HOLD)

    def take() -> None:
        assert len(claim(engine, uuid4().hex, _BATCH, _HOLD)) == min(_BATCH, boxes)

    def poll() -> None:
        revision = watch.position().revision
        assert len(changes(engine, revision - 1, revision)) == min(_BATCH, boxes)

    engine = engine_for(database.url)
    watch = FeedWatch(engine)
    try:
        yield {
            "ms of a claim where nothing is due": _median_ms(idle, _TIMES_IDLE),
            f"ms of a claim of {_BATCH} boxes": _median_ms(take, _TIMES, make_due),
            f"ms to read {_BATCH} changes of the feed": _median_ms(poll, _TIMES, change),
            "ms to look at a feed where nothing has changed": _median_ms(
                watch.position, _TIMES_IDLE
            ),
        }
    finally:
        watch.close()
        engine.dispose()


def _box_bytes(database: Server, boxes: int) -> float:
    """Bytes that each box keeps in the database, with a sealed key of its own."""
    tables = ("keys", "devices", "entitlements", "device_work", "emms")
    database.run(
        "INSERT INTO `keys` (purpose, owner, first_epoch, last_epoch, master_id, sealed_key,"
        f" created_at) SELECT 'device', seq, 0, 65535, 'm1', RANDOM_BYTES({_SEALED_KEY_BYTES}),"
        f" NOW(6) FROM seq_1_to_{boxes}",
        "ANALYZE TABLE `keys`, devices, entitlements, device_work, emms",
    )
    ((size,),) = database.run(
        "SELECT SUM(data_length + index_length) FROM information_schema.tables"
        f" WHERE table_schema = 'bench' AND table_name IN {tables}"
    )
    return int(str(size)) / boxes


def _over(rounds: Sequence[Round], size: str, least: str) -> float:
    return median_ratio(rounds, lambda one: one[size] / one[least])


def run(
    sizes: Sequence[int] = (1000, 10_000, 100_000, 1_000_000), seconds: float = 8, rounds: int = 9
) -> Result:
    """Measure; statements by all sizes in turn, `rounds` times: a core's clock changes."""
    bare = _bare_cycler()
    found: dict[int, dict[str, float]] = {}
    statements: dict[int, dict[str, Measured]] = {}
    growth: dict[str, float] = {}
    with ExitStack() as stack:
        for boxes in sizes:
            database = stack.enter_context(server())
            orderable(database, boxes)
            states(database, boxes)
            found[boxes] = _airing(database, boxes, seconds, bare)
            statements[boxes] = stack.enter_context(_statements(database, boxes))
        least = sizes[0]
        for what, value in found[least].items():
            growth[what] = max(one[what] / value for one in found.values())
        for what in statements[least]:
            subjects = {str(boxes): each[what] for boxes, each in statements.items()}
            times = in_rounds(subjects, rounds)
            growth[what] = max(_over(times, size, str(least)) for size in subjects)
            for size, value in medians(times).items():
                found[int(size)][what] = value
        box_bytes = _box_bytes(database, boxes)
    return Result(
        "scale",
        f"the same with {least} boxes",
        [Criterion(what, value, 2, 1.3, less_is_better=True) for what, value in growth.items()],
        {
            f"{what}, {boxes} boxes": round(value, 3)
            for boxes, one in found.items()
            for what, value in one.items()
        }
        | {"bytes a box keeps in the database": round(box_bytes)},
    )
