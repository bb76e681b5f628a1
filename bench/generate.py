"""`generate`: a re-key, from due boxes to sealed states in `emms`, beside a prebuilt INSERT."""

import time

from bench.headend import HeadEnd, head_end
from bench.mariadb import prebuilt_insert, server
from bench.measure import Measured, cpu_s, in_rounds, median_ratio, medians
from bench.population import states
from bench.result import Criterion, Result

_BOXES = 100_000
_ROUNDS = 5
_PATIENCE_S = 300


def rekey_s(head: HeadEnd) -> float:
    """Seconds from the mark of all boxes until the last state is committed."""
    _mark(head)
    return _sealed_s(head)


def _mark(head: HeadEnd) -> None:
    """Have all boxes be due for a re-key: at once, which the scheduler does little by little."""
    with head.emmgs_at_rest():
        head.server.run(
            "UPDATE device_work SET cause = 'rekey', priority = 1, due_at = NOW(6),"
            " dirty_at = NOW(6), state_wanted = wanted + 1, wanted = wanted + 1"
        )


def _sealed_s(head: HeadEnd) -> float:
    """Seconds until the last state that is due is committed."""
    begun = time.perf_counter()
    # From box to box, for all before the first that waits are done: to look through the queue, or
    # to count, keeps the server from its work.
    waiting = (
        "SELECT device_id FROM device_work WHERE device_id >= {} AND due_at IS NOT NULL"
        " ORDER BY device_id LIMIT 1"
    )
    box: object = 1
    with head.server.asking() as ask:
        while rows := ask(waiting.format(box)):
            ((box,),) = rows
            assert time.perf_counter() < begun + _PATIENCE_S, "no end of it"
            time.sleep(0.02)
    return time.perf_counter() - begun


def measure(head: HeadEnd, insert: Measured, emmgs: int) -> dict[str, float]:
    """Median seconds of both and their ratio, and CPU seconds of each process for a re-key."""
    with head.emmgs(emmgs) as pids:
        rekey_s(head)  # connections, caches
        groups = {"database": [head.server.pid], "encryptor": [head.encryptor], "emmg": pids}
        _mark(head)
        before = {name: sum(map(cpu_s, group)) for name, group in groups.items()}
        _sealed_s(head)
        cpu = {name: sum(map(cpu_s, group)) - before[name] for name, group in groups.items()}
        rounds = in_rounds({"rekey": lambda: rekey_s(head), "insert": insert}, _ROUNDS)
    ratio = median_ratio(rounds, lambda one: one["insert"] / one["rekey"])
    return medians(rounds) | cpu | {"ratio": ratio}


def run() -> Result:
    """Measure."""
    with server() as database, head_end(database, _BOXES) as head:
        states(database, _BOXES, "3")
        insert = prebuilt_insert(database, "emms", head.home / "emms.sql")
        one, three = measure(head, insert, 1), measure(head, insert, 3)
    figures = {}
    for count, found in (("one EMMG", one), ("three EMMGs", three)):
        figures[f"{count}: states/s"] = round(_BOXES / found["rekey"])
        for name in ("emmg", "encryptor", "database"):
            figures[f"{count}: µs of CPU a state, {name}"] = round(found[name] / _BOXES * 1e6, 1)
    figures["prebuilt INSERT: rows/s"] = round(_BOXES / three["insert"])
    return Result(
        "generate",
        "the same rows in a prebuilt INSERT of the `mariadb` client, 1000 a statement",
        [
            Criterion("three EMMGs", three["ratio"], 0.35, 0.6),
            Criterion("one EMMG", one["ratio"], 0.2, 0.35),
        ],
        figures,
    )
