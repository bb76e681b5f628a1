"""Connections through promotions, deadlocks and lost answers, on a real cluster."""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from gateway_sms import Sms, gateway, give_keys
from sqlalchemy import Engine, event, select, text
from sqlalchemy.exc import OperationalError

from portcullis.emmg.config import EmmgConfig
from portcullis.emmg.worker import Worker
from portcullis.runtime.devca import init_ca
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.store.applying import Refusal
from portcullis.store.database import database_now, engine_for, retried, writing
from portcullis.store.feed import FeedWatch
from portcullis.store.orders import Accepted, NewRequest, Refused, apply_requests
from portcullis.store.schema import device_work, devices, products
from portcullis.store.servers import LOST_S
from tests.cluster import HOST, Cluster
from tests.conftest import MariaDb
from tests.faults.proxy import Proxies

pytestmark = pytest.mark.xdist_group("cluster")

ORDERS = 60
ANSWER_S = 30.0  # what a statement may take


@pytest.fixture
def engine(cluster: Cluster) -> Iterator[Engine]:
    """A gateway's engine, which knows all three servers."""
    engine = engine_for(cluster.multi_url("portcullis_gateway"))
    yield engine
    engine.dispose()


def _other(cluster: Cluster) -> str:
    return next(name for name in cluster.nodes if name != cluster.primary)


def _put_product(product_id: int) -> NewRequest:
    return NewRequest("sms", None, "putproduct", {"name": "p"}, product_id=product_id)


def _add_device(device_id: int) -> NewRequest:
    return NewRequest(
        "sms",
        f"add-{device_id}",
        "adddevice",
        {"device_id": str(device_id)},
        body_hash=device_id.to_bytes(32, "big"),
        device_id=device_id,
    )


def _give_keys(cluster: Cluster, *device_ids: int) -> None:
    engine = engine_for(cluster.url("portcullis_keys"))
    give_keys(engine, *device_ids)
    engine.dispose()


def test_an_engine_follows_a_promotion(cluster: Cluster, engine: Engine) -> None:
    """Connections that wait in the pool are not handed out once their server is a replica."""
    server = text("SELECT @@server_id")
    with engine.connect() as one, engine.connect() as two:
        before = {one.execute(server).scalar(), two.execute(server).scalar()}
    cluster.promote(_other(cluster))
    with engine.connect() as one, engine.connect() as two:
        after = {one.execute(server).scalar(), two.execute(server).scalar()}
    assert before.isdisjoint(after)
    assert len(after) == 1
    assert isinstance(apply_requests(engine, [_put_product(1)])[0], Accepted)


def test_a_watch_of_the_feed_follows_a_promotion(cluster: Cluster) -> None:
    """Though it keeps its connection: it never reads of what has become a replica."""
    engine = engine_for(cluster.multi_url("portcullis_cycler"))
    watch = FeedWatch(engine)
    watch.position()
    cluster.promote(_other(cluster))
    position = watch.position()
    assert position[:2] == FeedWatch(engine).position()[:2]
    connection = watch._connection
    assert connection is not None
    assert not connection.execute(text("SELECT @@read_only")).scalar()
    watch.close()
    engine.dispose()


def test_a_transaction_cut_by_a_promotion_is_run_again(cluster: Cluster, engine: Engine) -> None:
    """The server it began on refuses the write; it is done on the new one."""
    runs = []

    @retried
    def write() -> None:
        with writing(engine) as connection:
            connection.execute(select(products)).all()
            runs.append(connection.execute(text("SELECT @@server_id")).scalar())
            if len(runs) == 1:
                cluster.promote(_other(cluster))
            now = database_now(connection)
            connection.execute(products.insert().values(product_id=5, name="p", created_at=now))

    write()
    assert len(set(runs)) == len(runs) == 2
    assert cluster.execute("SELECT product_id FROM portcullis.products") == [{"product_id": 5}]


def test_without_a_primary_the_error_names_every_server(cluster: Cluster) -> None:
    url = cluster.multi_url("portcullis_gateway")
    cluster.execute("SET GLOBAL read_only = 1")
    engine = engine_for(url)
    try:
        with pytest.raises(OperationalError, match="no database server takes writes") as refused:
            engine.connect()
        assert all(f"{host} is read-only" in str(refused.value) for host in cluster.hosts)
    finally:
        cluster.execute("SET GLOBAL read_only = 0")
        engine.dispose()


def test_a_server_whose_certificate_is_for_another_name_is_refused(cluster: Cluster) -> None:
    url = cluster.url("portcullis_gateway").replace("@127.0.0.1:", "@localhost:")
    engine = engine_for(url)
    with pytest.raises(OperationalError, match="certificate"):
        engine.connect()
    engine.dispose()


def test_the_ca_of_the_database_is_read_anew_for_each_connection(
    cluster: Cluster, tmp_path: Path
) -> None:
    """One that is replaced is believed at once by a process that runs; nonsense is left alone."""
    trusted = tmp_path / "ca.pem"
    ours, theirs = cluster.ssl_ca.read_bytes(), init_ca(tmp_path / "other").read_bytes()
    trusted.write_bytes(theirs)
    url = cluster.url("portcullis_gateway").replace(str(cluster.ssl_ca), str(trusted))
    engine = engine_for(url, pool_size=1)
    with pytest.raises(OperationalError, match="certificate"):
        engine.connect()
    trusted.write_bytes(ours)
    engine.connect().close()
    for text_of_file, is_trusted in ((b"nonsense", True), (theirs, False), (ours, True)):
        engine.dispose()  # as a pool does with connections that are old
        trusted.write_bytes(text_of_file)
        if is_trusted:
            engine.connect().close()
        else:
            with pytest.raises(OperationalError, match="certificate"):
                engine.connect()
    engine.dispose()


def test_a_deadlock_is_run_again_and_the_orders_are_written_once(
    cluster: Cluster, engine: Engine
) -> None:
    """The group holds device 1 and wants 2; the other holds 2, has written more, and wants 1."""
    _give_keys(cluster, 1, 2)
    apply_requests(engine, [_add_device(1), _add_device(2), _put_product(101)])
    rival = engine_for(cluster.url("portcullis_migrate"))
    errors: list[int] = []

    def note(context: Any) -> None:  # noqa: ANN401 (SQLAlchemy's)
        errors.append(context.original_exception.args[0])

    event.listen(engine, "handle_error", note)
    group = [
        NewRequest(
            "sms",
            f"grant-{device_id}",
            "addentitlement",
            {"device_id": str(device_id), "product_id": 101},
            body_hash=device_id.to_bytes(32, "big"),
            device_id=device_id,
            product_id=101,
        )
        for device_id in (1, 2)
    ]
    with ThreadPoolExecutor() as pool, rival.begin() as connection:
        connection.execute(
            products.insert(),
            [
                {"product_id": number, "name": "p", "created_at": datetime.now(UTC)}
                for number in range(1000, 3000)
            ],
        )
        # The group locks `devices` first, then `device_work`, so this meets it crosswise.
        lock = select(device_work.c.device_id).where(device_work.c.device_id == 1)
        connection.execute(lock.with_for_update())
        written = pool.submit(apply_requests, engine, group)
        _await_lock_wait(cluster)
        connection.execute(
            select(devices.c.device_id).where(devices.c.device_id == 1).with_for_update()
        )
        connection.commit()
        results = written.result(30)
    rival.dispose()
    assert 1213 in errors
    assert all(isinstance(result, Accepted) for result in results)
    rows = cluster.execute(
        "SELECT transaction_id AS t, outcome AS o FROM portcullis.requests"
        " WHERE kind = 'addentitlement' ORDER BY 1"
    )
    assert rows == [{"t": "grant-1", "o": "accepted"}, {"t": "grant-2", "o": "accepted"}]
    assert _wanted(cluster) == {1: 2, 2: 2}


def _await_lock_wait(cluster: Cluster) -> None:
    """Return once a transaction waits for a lock; the test's time-out bounds it."""
    while not cluster.execute("SELECT 1 FROM information_schema.INNODB_LOCK_WAITS"):
        time.sleep(0.02)  # the server has no event for it


def _wanted(cluster: Cluster) -> dict[int, int]:
    rows = cluster.execute("SELECT device_id, wanted FROM portcullis.device_work")
    return {row["device_id"]: row["wanted"] for row in rows}


def test_a_commit_whose_answer_was_lost_is_found_and_not_repeated(
    cluster: Cluster, engine: Engine
) -> None:
    """Also for requests that have no transaction_id: a product, and one that was refused."""
    _give_keys(cluster, 3)
    unreadable = Refusal("malformed", "not JSON")
    group = [
        _add_device(3),
        _put_product(7),
        NewRequest("sms", None, "adddevice", {"raw": "{"}, refusal=unreadable),
    ]
    replicas = [name for name in cluster.nodes if name != cluster.primary]
    for name in replicas:
        cluster.kill(name)
    with ThreadPoolExecutor() as pool:
        written = pool.submit(apply_requests, engine, group)
        # The commit waits for a replica. A server that is told to end the connection commits,
        # and answers nothing.
        connection_id = _await_waiting_commit(cluster)
        cluster.execute(f"KILL CONNECTION {connection_id}")
        results = written.result(30)
    assert [type(result) for result in results] == [Accepted, Accepted, Refused]
    rows = cluster.execute("SELECT request_id AS r FROM portcullis.requests ORDER BY 1")
    assert [row["r"] for row in rows] == [result.request_id for result in results]
    assert _wanted(cluster) == {3: 1}


def _await_waiting_commit(cluster: Cluster) -> int:
    """The id of the connection whose commit waits for a replica."""
    while True:
        rows = cluster.execute(
            "SELECT ID AS id FROM information_schema.PROCESSLIST"
            " WHERE USER = 'portcullis_gateway' AND STATE LIKE '%semi-sync%'"
        )
        if rows:
            return int(rows[0]["id"])
        time.sleep(0.02)  # the server has no event for it


class _Sealer:
    """Seals anything, after `before`."""

    def __init__(self, before: Callable[[], None]) -> None:
        self._before = before

    def seal(
        self, ca_system_id: int, product_keys: Sequence[pb.SealedKey], items: Sequence[pb.SealItem]
    ) -> pb.SealReply:
        del ca_system_id, product_keys
        answers = [pb.Sealed(sections=[b"section"]) for _ in items]
        return pb.SealReply(clock_us=self._clock_us(), items=answers)

    def seal_states(self, request: pb.SealStatesRequest) -> pb.SealStatesReply:
        states = len(request.addresses)
        return pb.SealStatesReply(
            clock_us=self._clock_us(), parts=[1] * states, sections=[b"section"] * states
        )

    def _clock_us(self) -> int:
        self._before()
        return int(datetime.now(UTC).timestamp() * 1e6)


def test_an_emmg_takes_its_batch_up_again_after_a_failover(
    cluster: Cluster, engine: Engine
) -> None:
    """The claim does not have to run out first, which takes half a minute."""
    _give_keys(cluster, 4)
    apply_requests(engine, [_add_device(4)])
    worker_engine = engine_for(cluster.multi_url("portcullis_emmg"))
    dead = cluster.primary
    sealer = _Sealer(lambda: cluster.kill(dead))
    worker = Worker(worker_engine, sealer, EmmgConfig(), threading.Event())
    with pytest.raises(OperationalError):
        worker.round()
    cluster.promote(_other(cluster))
    has_worked = False
    while not has_worked:  # it looks for a primary twice a second
        with suppress(OperationalError):
            has_worked = worker.round()
    assert cluster.execute("SELECT device_id, covers FROM portcullis.emms") == [
        {"device_id": 4, "covers": 1}
    ]
    assert cluster.execute("SELECT tries FROM portcullis.device_work") == [{"tries": 0}]
    assert cluster.execute("SELECT token FROM portcullis.claims WHERE devices > 0") == []
    worker_engine.dispose()


def test_a_gateway_answers_503_without_a_primary_and_loses_and_doubles_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The primary is killed under load; the SMS repeats what was not accepted."""
    _give_keys(cluster, *range(1, ORDERS + 1))
    answered: Counter[int] = Counter()
    refused = asyncio.Event()
    dead = cluster.primary

    async def order(sms: Sms, device_id: int) -> None:
        """Repeat an order until it is accepted."""
        body = {"transaction_id": f"t{device_id}", "device_id": str(device_id)}
        while (response := await sms.http.post("/adddevice", json=body)).status_code != 202:
            answered[response.status_code] += 1
            assert int(response.headers["Retry-After"]) > 0
            refused.set()
            await asyncio.sleep(0.1)  # less than it says: more tries in the gap
        answered[202] += 1

    async def fail_over() -> None:
        await asyncio.to_thread(cluster.kill, dead)
        await refused.wait()
        await asyncio.to_thread(cluster.promote, _other(cluster))

    async def play() -> None:
        url = cluster.multi_url("portcullis_gateway")
        async with gateway(url, tmp_path / "requests.jsonl") as sms:
            await asyncio.gather(*(order(sms, n) for n in range(1, ORDERS // 2)))
            in_the_gap = (order(sms, n) for n in range(ORDERS // 2, ORDERS + 1))
            await asyncio.gather(fail_over(), *in_the_gap)

    asyncio.run(play())
    assert set(answered) == {202, 503}
    [row] = cluster.execute(
        "SELECT COUNT(*) AS n, COUNT(DISTINCT transaction_id) AS d FROM portcullis.requests"
        " WHERE outcome = 'accepted'"
    )
    assert row == {"n": ORDERS, "d": ORDERS}
    assert _wanted(cluster) == dict.fromkeys(range(1, ORDERS + 1), 1)


def test_a_client_that_vanished_holds_no_lock_for_hours(engine: Engine) -> None:
    """The server ends its transaction: without that, the feed's row stays locked for all."""
    with engine.connect() as connection:
        bounds = connection.execute(text("SELECT @@idle_transaction_timeout, @@wait_timeout")).one()
    assert tuple(bounds) == (10, 60)


def test_a_machine_that_the_network_no_longer_reaches_is_lost_in_seconds(engine: Engine) -> None:
    """The kernel asks after it, while a statement is waited for (keepalive) or sent (RFC 5482)."""
    with engine.connect() as connection:
        link = connection.connection.driver_connection._sock
        idle, between, times, sending_ms = (
            link.getsockopt(socket.IPPROTO_TCP, option)
            for option in (
                socket.TCP_KEEPIDLE,
                socket.TCP_KEEPINTVL,
                socket.TCP_KEEPCNT,
                socket.TCP_USER_TIMEOUT,
            )
        )
        assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert idle + between * times <= LOST_S
    assert 0 < sending_ms <= LOST_S * 1000


def test_a_server_of_the_same_machine_may_be_reached_by_its_socket(mariadb: MariaDb) -> None:
    """`unix_socket` in the URL, as the driver takes it; a socket has no network to lose."""
    engine = engine_for(f"{mariadb.new_database()}&unix_socket={mariadb.home}/s")
    with engine.connect() as connection:
        link = connection.connection.driver_connection._sock
        assert link.family == socket.AF_UNIX
        assert database_now(connection).tzinfo is UTC
    engine.dispose()


def test_a_server_that_takes_connections_and_says_nothing_is_given_up(cluster: Cluster) -> None:
    """A connection that has gone silent is not waited for as long as a statement may take."""
    with Proxies() as proxies:
        node = cluster.nodes[cluster.primary]
        wire = proxies.before(HOST, node.port)
        url = cluster.url("portcullis_gateway").replace(node.address, f"{HOST}:{wire.port}")
        engine = engine_for(url)
        with engine.connect():
            pass
        wire.go_silent()
        began = time.monotonic()
        with pytest.raises(OperationalError):
            engine.connect()  # the pooled one, then a new one
        assert time.monotonic() - began < ANSWER_S
        wire.restore()
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
        engine.dispose()
