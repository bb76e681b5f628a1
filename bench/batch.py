"""`batch`: orders a second through `POST /batch`, beside a prebuilt INSERT of the same rows."""

import json
import time
from pathlib import Path
from uuid import uuid4

import httpx

from bench.mariadb import Server, server
from bench.measure import interleave
from bench.population import orderable
from bench.processes import folder
from bench.result import Criterion, Result
from bench.sms import gateway, token

_TABLES = ("requests", "transactions", "entitlements", "device_work")
"""What an order for a box that is there leaves a row in, or changes one."""
_ROWS = 1000


def _post_s(http: httpx.Client, lines: int, boxes: int) -> float:
    """Seconds for one batch of grants, each for another box."""
    run, first = uuid4().hex[:12], int.from_bytes(uuid4().bytes[:3]) % boxes
    body = "\n".join(
        json.dumps(
            {
                "op": "addentitlement",
                "transaction_id": f"{run}-{i}",
                "device_id": str(1 + (first + i) % boxes),
                "product_id": 1 + i % 10,
            }
        )
        for i in range(lines)
    )
    begun = time.perf_counter()
    answer = http.post("/batch", content=body)
    passed = time.perf_counter() - begun
    statuses = {json.loads(line)["status"] for line in answer.text.splitlines()}
    assert statuses == {"accepted"}, answer.text[:500]
    return passed


def _prebuilt(database: Server, path: Path, lines: int) -> None:
    """Write the newest orders' rows as INSERTs of 1000 rows into copies of their tables."""
    with path.open("w", encoding="utf-8") as file:
        for table in _TABLES:
            columns = [
                (str(name), "blob" in str(kind) or "binary" in str(kind))
                for name, kind in database.run(
                    "SELECT column_name, data_type FROM information_schema.columns"
                    f" WHERE table_schema = 'bench' AND table_name = '{table}'"
                )
            ]
            values = ",".join(
                f"IF({name} IS NULL, 'NULL', CONCAT('x', QUOTE(HEX({name}))))"
                if is_bytes
                else f"QUOTE({name})"
                for name, is_bytes in columns
            )
            names = ", ".join(name for name, _ in columns)
            rows = database.run(
                f"CREATE TABLE {table}_copy LIKE {table}",
                f"SELECT CONCAT('(', CONCAT_WS(',', {values}), ')') FROM {table} LIMIT {lines}",
            )
            for start in range(0, len(rows), _ROWS):
                some = ",".join(_text(row[0]) for row in rows[start : start + _ROWS])
                file.write(f"INSERT INTO {table}_copy ({names}) VALUES {some};\n")


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _insert_s(database: Server, path: Path) -> float:
    """Seconds the `mariadb` client takes for the same rows."""
    database.run(*(f"TRUNCATE {table}_copy" for table in _TABLES))
    begun = time.perf_counter()
    database.client(path)
    return time.perf_counter() - begun


def _written(database: Server) -> dict[str, int]:
    """Bytes the server has written so far, to its logs and to its tables."""
    rows = database.run("SHOW GLOBAL STATUS LIKE 'innodb_%written'")
    wanted = ("Innodb_os_log_written", "Innodb_data_written")
    return {str(name): int(str(value)) for name, value in rows if name in wanted}


def _size(database: Server) -> int:
    """Bytes of the tables that grow with each order."""
    ((size,),) = database.run(
        "ANALYZE TABLE requests, transactions",
        "SELECT SUM(data_length + index_length) FROM information_schema.tables"
        " WHERE table_schema = 'bench' AND table_name IN ('requests', 'transactions')",
    )
    return int(str(size))


def run(boxes: int = 100_000, lines: int = 10_000, rounds: int = 9) -> Result:
    """Measure."""
    with server() as database, folder() as home, gateway(database) as ours:
        orderable(database, boxes)
        path = home / "rows.sql"
        headers = {"Authorization": f"Bearer {token()}"}
        with httpx.Client(base_url=ours.url, headers=headers, timeout=120) as http:
            _post_s(http, lines, boxes)
            _prebuilt(database, path, lines)
            size, written = _size(database), _written(database)
            for _ in range(rounds):
                _post_s(http, lines, boxes)
            grown = (_size(database) - size) / (rounds * lines)
            log = {name: value - written[name] for name, value in _written(database).items()}
            found = interleave(
                {
                    "batch": lambda: _post_s(http, lines, boxes),
                    "insert": lambda: _insert_s(database, path),
                },
                rounds,
            )
    return Result(
        "batch",
        "a prebuilt INSERT of the same rows by the `mariadb` client, 1000 a statement",
        [Criterion("orders", found["insert"] / found["batch"], 0.2, 0.4)],
        {
            "orders/s, POST /batch": round(lines / found["batch"]),
            "orders/s, prebuilt INSERT": round(lines / found["insert"]),
            "lines of a batch": lines,
            "bytes an order keeps in the database": round(grown),
            "bytes an order writes to the redo log": round(
                log["Innodb_os_log_written"] / (rounds * lines)
            ),
        },
    )
