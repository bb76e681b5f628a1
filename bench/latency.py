"""`latency`: from an order's first byte to its first airing, all services on MariaDB."""

import asyncio
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pymysql

from bench.cycler import cycler
from bench.headend import head_end
from bench.mariadb import Server, free_port, server
from bench.measure import cpu_s, percentile
from bench.population import PRODUCTS, states
from bench.processes import service
from bench.result import Criterion, Result
from bench.sms import gateway, open_sms

_STREAM = "bandwidth_kbit_s = 20000\n"  # with the default classes
_CONNECTIONS = 64
_SETTLE_S = 5
_COMMITS = 200


@dataclass
class Order:
    """One on its way. `sent_at`: Unix seconds, before its first byte."""

    sent_at: float
    request_id: str = ""
    answer_s: float = 0.0


@contextmanager
def all_services(database: Server, boxes: int) -> Iterator[tuple[str, Mapping[str, int]]]:
    """Every service a head-end has; the gateway's URL, and the pids by room."""
    with ExitStack() as stack:
        head = stack.enter_context(head_end(database, boxes))
        states(database, boxes, "3")
        (emmg,) = stack.enter_context(head.emmgs(1))
        config, monitor = _scheduler_config(head.home, head.config), f"127.0.0.1:{free_port()}"
        config.write_text(config.read_text(encoding="utf-8").replace("MONITOR", monitor))
        scheduler = stack.enter_context(service("scheduler", config, monitor, ready="livez"))
        airing = stack.enter_context(cycler(database.url, [_STREAM]))
        sms = stack.enter_context(gateway(database))
        yield (
            sms.url,
            {
                "gateway": sms.pid,
                "emmg": emmg,
                "encryptor": head.encryptor,
                "cycler": airing.pid,
                "scheduler": scheduler.pid,
                "database": database.pid,
            },
        )


def _scheduler_config(home: Path, config: Path) -> Path:
    own = home / "scheduler.toml"
    text = config.read_text(encoding="utf-8")
    own.write_text(
        text + f'[scheduler]\nencryptor = "unix:{home}/e.sock"\nmonitor = "MONITOR"\n',
        encoding="utf-8",
    )
    return own


async def _send(url: str, boxes: int, per_s: float, seconds: float) -> list[Order]:
    """Orders at even times, whether those before them are answered or not."""
    run = uuid4().hex[:12]
    orders: list[Order] = []

    async def one(order: Order, number: int) -> None:
        body = {
            "transaction_id": f"{run}-{number}",
            "device_id": str(1 + secrets.randbelow(boxes)),
            "product_id": 1 + secrets.randbelow(PRODUCTS),
        }
        answer = await sms.order("/addentitlement", body)
        order.answer_s = time.time() - order.sent_at
        order.request_id = str(answer["request_id"])

    async with open_sms(url, _CONNECTIONS) as sms, asyncio.TaskGroup() as group:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for number in range(int(per_s * seconds)):
            await asyncio.sleep(begun + number / per_s - loop.time())
            orders.append(Order(time.time()))
            group.create_task(one(orders[-1], number))
    return orders


_AIRED = """
SELECT r.request_id,
       MIN(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', a.first_aired_at)) / 1e6
FROM requests r JOIN airings a ON a.device_id = r.device_id AND a.message_id = 0
     AND a.wanted >= r.wanted
WHERE a.first_aired_at IS NOT NULL GROUP BY r.request_id
"""


def _aired_at(database: Server, orders: int) -> dict[str, float]:
    """When each order was first aired, Unix seconds by the database; waits until all were."""
    end = time.monotonic() + 120
    while len(rows := database.run(_AIRED)) < orders:
        assert time.monotonic() < end, f"{len(rows)} of {orders} on air"
        time.sleep(0.5)
    return {str(request_id): float(str(at)) for request_id, at in rows}


def _three_commits_ms(database: Server) -> list[float]:
    """Milliseconds of three durable commits in a row on one connection."""
    database.run("CREATE TABLE bare (id BIGINT PRIMARY KEY AUTO_INCREMENT, at DATETIME(6))")
    found = []
    where = {"unix_socket": str(database.socket), "user": "root", "database": "bench"}
    with pymysql.connect(**where) as link, link.cursor() as cursor:
        for _ in range(_COMMITS):
            begun = time.perf_counter()
            for _ in range(3):
                cursor.execute("INSERT INTO bare (at) VALUES (NOW(6))")
                link.commit()
            found.append((time.perf_counter() - begun) * 1000)
    return found


def run(boxes: int = 100_000, per_s: float = 200, seconds: float = 60) -> Result:
    """Measure."""
    with server() as database, all_services(database, boxes) as (url, pids):
        warm = asyncio.run(_send(url, boxes, per_s, _SETTLE_S))
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        orders = asyncio.run(_send(url, boxes, per_s, seconds))
        cpu = {name: cpu_s(pid) - before[name] for name, pid in pids.items()}
        aired = _aired_at(database, len(warm) + len(orders))
        commits = _three_commits_ms(database)
    on_air = [(aired[one.request_id] - one.sent_at) * 1000 for one in orders]
    answers = [one.answer_s * 1000 for one in orders]
    figures = {
        "order to first airing, p50, ms": round(percentile(on_air, 50), 1),
        "order to its answer, p50, ms": round(percentile(answers, 50), 1),
        "order to its answer, p99, ms": round(percentile(answers, 99), 1),
        "three durable commits in a row, p50, ms": round(percentile(commits, 50), 1),
        "three durable commits in a row, p99, ms": round(percentile(commits, 99), 1),
        "orders": len(orders),
        "boxes": boxes,
    }
    figures |= {f"share of a core, {name}": round(used / seconds, 3) for name, used in cpu.items()}
    return Result(
        "latency",
        "absolute; three durable commits in a row on one connection among the figures",
        [
            Criterion(
                f"p99 from order to first airing at {per_s:g} orders/s",
                percentile(on_air, 99),
                500,
                150,
                "ms",
                less_is_better=True,
            )
        ],
        figures,
    )
