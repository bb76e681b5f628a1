"""After a restore: what is held, what is made anew, what goes on once the SMS has caught up."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from gateway_sms import give_keys
from sqlalchemy import Engine, make_url, select, text, update

from portcullis.cli.main import cli
from portcullis.runtime.clock import WallClock
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.scheduler.config import SchedulerConfig
from portcullis.scheduler.figures import Figures
from portcullis.scheduler.jobs import Jobs
from portcullis.store.database import database_now, engine_for, writing
from portcullis.store.feed import FeedWatch
from portcullis.store.health import DatabaseHealth
from portcullis.store.orders import Accepted, NewRequest, apply_requests
from portcullis.store.recovery import declare_restored, declare_resynchronised, open_recovery
from portcullis.store.schema import chains, device_work, feed, keys, messages
from portcullis.store.to_seal import read_orders
from portcullis.store.work import claim

DAY = timedelta(days=1)
HOLD = timedelta(minutes=1)
BACKUP_AT = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)


class ChainMaker:
    """An encryptor that makes chains of zeros."""

    def make_chain(self, product_id: int, first: int, last: int) -> pb.SealedKey:
        """A chain of the product."""
        return pb.SealedKey(
            purpose=pb.SealedKey.PRODUCT,
            owner=product_id,
            first_epoch=first,
            last_epoch=last,
            master_id="m",
            blob=bytes(16),
        )


@pytest.fixture
def engine(mariadb_url: str) -> Iterator[Engine]:
    """A database as a backup left it: device 1 holds product 101, sealed; 2 waits to be sealed."""
    engine = engine_for(mariadb_url)
    give_keys(engine, 1, 2)
    results = apply_requests(
        engine,
        [
            NewRequest("sms", None, "putproduct", {"name": "Sport"}, product_id=101),
            _order("a1", "adddevice", 1),
            _order("g1", "addentitlement", 1, product_id=101),
            _order("a2", "adddevice", 2),
        ],
    )
    assert all(isinstance(result, Accepted) for result in results)
    _jobs(engine).make_chains()
    with writing(engine) as connection:
        connection.execute(
            update(device_work)
            .where(device_work.c.device_id == 1)
            .values(
                sealed=2,
                state_sealed=2,
                dirty_at=None,
                due_at=None,
                state_sealed_at=datetime.now(UTC) - 2 * DAY,
            )
        )
    yield engine
    engine.dispose()


def _order(transaction_id: str, kind: str, device_id: int, **more: int) -> NewRequest:
    body = {"device_id": str(device_id), **more}
    return NewRequest(
        "sms",
        transaction_id,
        kind,
        body,
        body_hash=f"{kind} {body}".encode()[:32].ljust(32),
        device_id=device_id,
        product_id=more.get("product_id"),
    )


def _jobs(engine: Engine, ahead: timedelta = timedelta()) -> Jobs:
    def now() -> datetime:
        with engine.connect() as connection:
            return database_now(connection) + ahead

    return Jobs(engine, ChainMaker(), SchedulerConfig(chain_epochs=2), lambda: True, now)  # type: ignore[arg-type]


def _claimed(engine: Engine) -> list[int]:
    return sorted(one.device_id for one in claim(engine, "t", 10, HOLD))


def _run(url: str, home: Path, *arguments: str) -> Result:
    config = home / "portcullis.toml"
    shown = make_url(url).render_as_string(hide_password=False)
    config.write_text(f'[database]\nurl = "{shown}"\n')
    return CliRunner().invoke(cli, ["db", *arguments, "--config", str(config)])


def test_cyclers_reload_and_chains_of_evidence_begin_anew(engine: Engine) -> None:
    """Also where the lost database had moved its timeline on itself."""
    with writing(engine) as connection:
        connection.execute(update(feed).values(timeline=5))
    declare_restored(engine, BACKUP_AT)
    assert FeedWatch(engine).position().timeline > 1_700_000_000
    declare_restored(engine, BACKUP_AT)
    with engine.connect() as connection:
        series = connection.execute(
            select(chains.c.series).where(chains.c.writer == "gateway").order_by(chains.c.series)
        ).scalars()
        assert len(set(series)) == 3


def test_message_ids_jump_over_those_that_were_lost(engine: Engine) -> None:
    """A box drops a message whose id it has seen."""
    now = datetime.now(UTC)

    def show() -> int:
        with writing(engine) as connection:
            key = connection.execute(
                messages.insert().values(
                    device_id=1,
                    text="x",
                    duration_s=1,
                    position=0,
                    priority=0,
                    starts_at=now,
                    expires_at=now + DAY,
                    wanted=1,
                )
            ).inserted_primary_key
            assert key is not None
            return int(key[0])

    first = show()
    with writing(engine) as connection:
        connection.execute(messages.delete())  # purged: the highest id is not in the table
    declare_restored(engine, BACKUP_AT)
    assert show() > first + 1_000_000


def test_only_what_is_ordered_anew_is_sealed_until_the_sms_has_caught_up(engine: Engine) -> None:
    """Neither what waited in the backup, nor a re-seal, nor a rotation gives anything back."""
    declare_restored(engine, BACKUP_AT)
    jobs = _jobs(engine, ahead=40 * DAY)  # re-seal and rotation are long due
    for _ in range(3):
        jobs.rotate()
        jobs.reseal()
    assert _claimed(engine) == []
    apply_requests(
        engine, [_order("a1", "adddevice", 1), _order("g2", "addentitlement", 2, product_id=9)]
    )
    assert _claimed(engine) == []  # one is known, one is refused
    apply_requests(engine, [_order("r1", "removeentitlement", 1, product_id=101)])
    assert _claimed(engine) == [1]
    declare_resynchronised(engine, "tried", timedelta(days=3))
    assert _claimed(engine) == [2]


def test_products_get_chains_that_no_box_is_given_before(engine: Engine) -> None:
    """Their epochs lie beyond any that were lost; boxes get them in time before the switch."""
    declare_restored(engine, BACKUP_AT)
    declare_restored(engine, BACKUP_AT)
    _jobs(engine).rotate()
    _jobs(engine).rotate()
    with engine.connect() as connection:
        rows = connection.execute(
            select(keys.c.first_epoch, keys.c.seal_epoch, keys.c.switch_at)
            .where(keys.c.purpose == "product")
            .order_by(keys.c.first_epoch)
        ).all()
    assert [row[:2] for row in rows] == [(1, 1), (1027, None)]
    given = read_orders(engine, [1]).chains[101]
    assert [chain["first_epoch"] for chain in given] == [1]
    declare_resynchronised(engine, "tried", 3 * DAY)
    given = read_orders(engine, [1]).chains[101]
    assert [(chain["first_epoch"], chain["live_epoch"]) for chain in given] == [
        (1027, None),
        (1, 1),
    ]
    now = read_orders(engine, [1]).now
    assert now + 2 * DAY < given[0]["switch_at"] <= now + 3 * DAY
    for _ in range(2):
        _jobs(engine).rotate()  # boxes are counted, and marked
    assert _claimed(engine) == [1, 2]


def test_it_is_said_at_readyz_and_in_a_metric_until_then(engine: Engine, mariadb_url: str) -> None:
    health = DatabaseHealth(mariadb_url, WallClock())
    figures = Figures(engine, lambda: True, SchedulerConfig())

    def metric() -> Sequence[float]:
        figures.read()
        return [
            sample.value
            for family in figures.collect()
            for sample in family.samples
            if sample.name == "portcullis_scheduler_resynchronisation_pending"
        ]

    assert (health.notice(), metric()) == (None, [0])
    declare_restored(engine, BACKUP_AT)
    notice = health.notice()
    assert notice is not None
    assert "from a backup of 2026-01-31 03:00:00Z" in notice
    assert (health.check(), metric()) == (None, [1])
    declare_resynchronised(engine, "tried", DAY)
    assert (health.notice(), metric()) == (None, [0])


def test_the_commands_take_a_ledger_as_evidence(
    engine: Engine, mariadb_url: str, tmp_path: Path
) -> None:
    """Every transaction the SMS had accepted is looked up; what is missing is named."""
    ledger = tmp_path / "ledger.csv"
    ledger.write_text("client_id,transaction_id\nsms,a1\nsms,lost\n")
    evidence = ("resynchronised", "--transactions", str(ledger))
    early = _run(mariadb_url, tmp_path, *evidence)
    assert "no restore is waiting" in str(early.exception)
    restored = _run(mariadb_url, tmp_path, "restored", "--backup-taken-at", "2026-01-31T03:00:00Z")
    assert restored.exit_code == 0, restored.output
    assert "2026-01-31 03:00:00Z" in restored.output
    assert "start it" in str(_run(mariadb_url, tmp_path, *evidence).exception)
    _jobs(engine).rotate()
    missing = _run(mariadb_url, tmp_path, *evidence)
    assert "1 of 2 transactions are missing" in str(missing.exception)
    assert "lost" in missing.stdout
    apply_requests(engine, [_order("lost", "removedevice", 1)])
    done = _run(mariadb_url, tmp_path, *evidence)
    assert done.exit_code == 0, done.output
    assert "2 transactions are there" in done.output
    assert open_recovery(engine) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("resynchronised",), "give --transactions or --waive"),
        (("restored",), "--backup-taken-at"),
        (("restored", "--backup-taken-at", "yesterday"), "not an RFC 3339 time"),
        (("restored", "--backup-taken-at", "2100-01-01T00:00:00Z"), "is yet to come"),
    ],
)
def test_a_command_that_cannot_be_meant_is_refused(
    mariadb_url: str, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    refused = _run(mariadb_url, tmp_path, *arguments)
    assert refused.exit_code == 2
    assert said in refused.output


def test_a_waiver_is_kept_with_its_reason(engine: Engine, mariadb_url: str, tmp_path: Path) -> None:
    declare_restored(engine, BACKUP_AT)
    _jobs(engine).rotate()
    done = _run(mariadb_url, tmp_path, "resynchronised", "--waive", "a test system")
    assert done.exit_code == 0, done.output
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT evidence FROM recoveries")).scalar_one()
    assert kept == "waived: a test system"
