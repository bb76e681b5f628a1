"""The tables. Each names the room that writes it; times are UTC with microseconds.

`device_work.due_at` is the queue: NULL is clean; else the row may be claimed from
then on. A claim is a row of `claims` and leaves `device_work` alone, until what was
sealed is written; it ends by itself, so the work of a killed EMMG is taken over.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.dialects import mysql, sqlite


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC datetimes with microseconds; naive values are refused."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:  # noqa: ANN401 (as SQLAlchemy types it)
        """MySQL keeps fractions of a second only where asked to."""
        if dialect.name == "mysql":
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To naive UTC; ValueError for a naive value."""
        del dialect
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime has no place in the database")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From naive UTC."""
        del dialect
        return None if value is None else value.replace(tzinfo=UTC)


def _ascii(length: int) -> String:
    """A string of exact bytes: compared and sorted as such."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql"
    )


def _exact(length: int) -> String:
    """Text whose case and accents count."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql"
    )


_LONG_TEXT = Text().with_variant(
    mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql"
)
_ID = BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
_FLAG = SmallInteger()

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# gateway: every request of an authenticated SMS. `request_id` is a UUIDv7 in hex, so that id
# order is time order and the monthly partitions (MySQL) are ranges of the id itself.
requests = Table(
    "requests",
    metadata,
    Column("request_id", _ascii(32), primary_key=True),
    Column("client_id", _exact(64), nullable=False),
    Column("transaction_id", _exact(64)),  # NULL: the request had none that is valid
    Column("kind", _ascii(20), nullable=False),  # as the API spells it: adddevice …
    Column("device_id", BigInteger),
    Column("product_id", Integer),
    Column("message_id", BigInteger),
    Column("body", _LONG_TEXT, nullable=False),  # JSON as validated; as received when refused
    Column("outcome", _ascii(24), nullable=False),  # accepted, or the problem's code
    Column("detail", _exact(500)),  # why it was refused
    Column("wanted", BigInteger),  # device_work.wanted that this order raised it to
    Column("received_at", UtcDateTime, nullable=False),
    Column("chain_id", Integer),  # of `chains`; NULL: written by a release before them
    Column("chain_seq", BigInteger),
    Index(None, "client_id", "transaction_id"),
    Index(None, "device_id", "wanted"),
    Index(None, "received_at"),
    Index(None, "chain_id", "chain_seq"),
)

# gateway: the idempotency key; accepted orders only.
transactions = Table(
    "transactions",
    metadata,
    Column("client_id", _exact(64), primary_key=True),
    Column("transaction_id", _exact(64), primary_key=True),
    Column("request_id", _ascii(32), nullable=False),
    Column("body_hash", LargeBinary(32), nullable=False),  # SHA-256 of kind and validated values
    Column("message_id", BigInteger),
    Column("accepted_at", UtcDateTime, nullable=False),
    Index(None, "accepted_at"),
)

# gateway
devices = Table(
    "devices",
    metadata,
    Column("device_id", BigInteger, primary_key=True, autoincrement=False),
    Column("active", _FLAG, nullable=False),  # 0: removed
    Column("added_at", UtcDateTime, nullable=False),
    Column("removed_at", UtcDateTime),
    Column("blacklisted_at", UtcDateTime),  # by an operator: it cannot be added again
    Index(None, "active"),  # the scheduler looks for the few removed ones each minute
)

# gateway; scheduler deletes those long over. A revoked entitlement has no row.
entitlements = Table(
    "entitlements",
    metadata,
    Column("device_id", BigInteger, primary_key=True, autoincrement=False),
    Column("product_id", Integer, primary_key=True, autoincrement=False),
    Column("starts_at", UtcDateTime, nullable=False),  # whole seconds
    Column("ends_at", UtcDateTime),  # whole seconds; NULL: open
    # whole seconds; as `starts_at`: it is in force since its order, whatever the clock says now
    Column("ordered_at", UtcDateTime),
    Index(None, "product_id"),
    Index(None, "ends_at"),
)

# gateway
products = Table(
    "products",
    metadata,
    Column("product_id", Integer, primary_key=True, autoincrement=False),
    Column("name", _exact(200), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint("product_id BETWEEN 1 AND 65535", name="product_id"),
)

AGAIN = 2
"""In `sealed` and `withdrawal_sealed`: it is, and is to be sealed once more (a re-hit)."""

# gateway; emmg sets sealed and withdrawal_sealed; scheduler deletes those long over.
messages = Table(
    "messages",
    metadata,
    Column("message_id", _ID, primary_key=True, autoincrement=True),
    Column("device_id", BigInteger, nullable=False),
    Column("text", _LONG_TEXT, nullable=False),
    Column("duration_s", Integer, nullable=False),
    Column("position", SmallInteger, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("starts_at", UtcDateTime, nullable=False),  # whole seconds
    Column("expires_at", UtcDateTime, nullable=False),  # whole seconds
    Column("ordered_at", UtcDateTime),  # as in `entitlements`
    Column("removed_at", UtcDateTime),
    Column("wanted", BigInteger, nullable=False),  # device_work.wanted of the order
    Column("sealed", _FLAG, nullable=False, default=0),  # its EMMs are in `emms`
    Column("withdrawal_sealed", _FLAG, nullable=False, default=0),
    Index(None, "device_id", "sealed", "withdrawal_sealed"),
    Index(None, "expires_at"),
    sqlite_autoincrement=True,  # as elsewhere: no id a second time, which a box would not show
)

PRIORITIES = PRIORITY_ORDER, PRIORITY_REKEY, PRIORITY_RESEAL = 0, 1, 2

# emmg; the gateway raises `wanted`, the scheduler asks for re-keys. One row per device, made
# with the device's first order.
device_work = Table(
    "device_work",
    metadata,
    Column("device_id", BigInteger, primary_key=True, autoincrement=False),
    Column("wanted", BigInteger, nullable=False),  # +1 by every order and every re-key
    Column("sealed", BigInteger, nullable=False, default=0),  # `wanted` that `emms` covers
    # `wanted` of the last change of state: the state is to be sealed when > state_sealed
    Column("state_wanted", BigInteger, nullable=False),
    Column("state_sealed", BigInteger, nullable=False, default=0),
    Column("epoch", Integer, nullable=False, default=0),
    Column("sequence", BigInteger, nullable=False, default=0),
    Column("cause", _ascii(8), nullable=False),  # order, rekey, reseal
    Column("priority", SmallInteger, nullable=False),
    Column("dirty_at", UtcDateTime),  # since when; NULL: clean
    Column("due_at", UtcDateTime),  # NULL: clean or failed
    Column("claim_token", _ascii(32)),  # of an EMMG of a release before `claims`; else NULL
    Column("claim_wanted", BigInteger),  # `wanted` when that claimed it
    Column("tries", Integer, nullable=False, default=0),
    Column("failed_at", UtcDateTime),  # given up until the next order or a retry by hand
    Column("last_error", _exact(500)),
    # JSON {product_id: highest epoch ever sealed for it}: what a removed box can still open
    Column("held", _LONG_TEXT, nullable=False, default="{}"),
    Column("state_sealed_at", UtcDateTime),
    # Each sealing writes it twice: the queue, and behind the clean ones' NULL the age of states.
    Index(None, "priority", "due_at", "state_sealed_at"),
    Index(None, "failed_at"),
)

# emmg: which devices are being sealed, by whom.
claims = Table(
    "claims",
    metadata,
    Column("token", _ascii(32), primary_key=True),
    Column("claimed_at", UtcDateTime, nullable=False),  # numbers are made of it
    Column("claimed_until", UtcDateTime, nullable=False),  # others may take it over from then on
    Column("devices", Integer, nullable=False),
    Column("device_ids", _LONG_TEXT, nullable=False),  # 1,3-5: in ascending order
)

# emmg: how far the queue is claimed, by priority; NULL: the next claim begins with the first entry.
# Who claims holds the rows' locks.
queue_places = Table(
    "queue_places",
    metadata,
    Column("priority", SmallInteger, primary_key=True, autoincrement=False),
    Column("due_at", UtcDateTime),
    Column("state_sealed_at", UtcDateTime),
    Column("device_id", BigInteger),
    Column("begun_at", UtcDateTime),  # with the first entry
)

# scheduler (device keys: by import). `sealed_key` opens only in the encryptor, which checks
# purpose, owner, epochs and master against the row's own authenticated data.
keys = Table(
    "keys",
    metadata,
    Column("purpose", _ascii(8), primary_key=True),  # device, product
    Column("owner", BigInteger, primary_key=True, autoincrement=False),
    Column("first_epoch", Integer, primary_key=True, autoincrement=False),  # device: 0
    Column("last_epoch", Integer, nullable=False),  # device: 65535
    Column("master_id", _ascii(16), nullable=False),
    Column("sealed_key", LargeBinary(128), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    # product chains: content is scrambled under live_epoch; boxes are given seal_epoch, which
    # is live_epoch or the next one, prepared for switch_at; NULL withholds the chain from all.
    # retired_at: no box needs it.
    Column("live_epoch", Integer),
    Column("seal_epoch", Integer),
    Column("live_since", UtcDateTime),
    Column("switch_at", UtcDateTime),
    Column("retired_at", UtcDateTime),
    Index(None, "master_id"),
)

# keys import-devices: how far the import of a file has come. Written with the keys themselves.
key_imports = Table(
    "key_imports",
    metadata,
    Column("import_id", _ID, primary_key=True, autoincrement=True),
    Column("file_sha256", _ascii(64), nullable=False),  # of the file as it came, in hex
    Column("file_name", _exact(255), nullable=False),
    Column("lines", BigInteger, nullable=False),  # of the decrypted file that are dealt with
    Column("imported", BigInteger, nullable=False),
    Column("present", BigInteger, nullable=False),  # the same key was there
    Column("refused", BigInteger, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
)

# scheduler: how far each rotation of a product key has come (store/rekey.py).
rotations = Table(
    "rotations",
    metadata,
    Column("product_id", Integer, primary_key=True, autoincrement=False),
    Column("seal_epoch", Integer, primary_key=True, autoincrement=False),  # the new one
    Column("begun_at", UtcDateTime, nullable=False),
    Column("boxes", BigInteger, nullable=False),  # entitled beyond the switch, when it began
    Column("marked", BigInteger, nullable=False),
    Column("marked_after", BigInteger, nullable=False),  # device_id of the last one marked
    Column("marked_at", UtcDateTime),  # all were
    Column("sealed", BigInteger, nullable=False),
    Column("skipped", BigInteger, nullable=False),  # given up: they could not be sealed
    Column("sealed_after", BigInteger, nullable=False),  # device_id of the last one found sealed
    Column("sealed_at", UtcDateTime),  # all were
    Column("revision", BigInteger, nullable=False),  # of the feed at sealed_at
    Column("cycles_from", _LONG_TEXT, nullable=False),  # JSON {stream: cycles aired at sealed_at}
    Column("cycles_aired", Float, nullable=False),  # since then, on the stream that has aired least
    Column("ends_at", UtcDateTime),  # when it is expected to switch
    Column("switched_at", UtcDateTime),
)

# emmg (scheduler tombstones what is over; cycler sets first_aired_at). A row is one part of a
# state (message_id 0, part 1…) or one segment of a message or its withdrawal. A re-key keeps
# first_aired_at, an order clears it.
emms = Table(
    "emms",
    metadata,
    Column("device_id", BigInteger, primary_key=True, autoincrement=False),
    Column("message_id", BigInteger, primary_key=True, autoincrement=False),  # 0: state
    Column("part", SmallInteger, primary_key=True, autoincrement=False),
    Column("parts", SmallInteger, nullable=False),
    Column("kind", SmallInteger, nullable=False),  # emm.Kind
    Column("epoch", Integer, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("cause", _ascii(8), nullable=False),
    Column("covers", BigInteger, nullable=False),  # device_work.wanted it is good for
    Column("revision", BigInteger, nullable=False),
    Column("tombstone", _FLAG, nullable=False, default=0),
    Column("section", LargeBinary(256), nullable=False),
    Column("starts_at", UtcDateTime),  # not to be aired before
    Column("ends_at", UtcDateTime),  # not to be aired from then on
    Column("sealed_at", UtcDateTime, nullable=False),
    Column("first_aired_at", UtcDateTime),
    Column("ordered_at", UtcDateTime),  # since when its orders waited; kept like first_aired_at
    Index(None, "revision"),
    Index(None, "ends_at"),
    Index(None, "tombstone"),  # the scheduler looks for the few that are set each minute
)

# emmg writes, cycler sets first_aired_at: when an EMM that covers a device's orders up to
# `wanted` was sealed and first aired. kind 0: state orders; else the message id.
airings = Table(
    "airings",
    metadata,
    Column("device_id", BigInteger, primary_key=True, autoincrement=False),
    Column("message_id", BigInteger, primary_key=True, autoincrement=False),  # 0: state
    Column("wanted", BigInteger, primary_key=True, autoincrement=False),
    Column("sealed_at", UtcDateTime, nullable=False),
    Column("first_aired_at", UtcDateTime),
    Index(None, "sealed_at"),
)

# emmg and scheduler: one row (id 1), locked last before commit, so that revision order is
# commit order. A new timeline (restored or promoted database) forces a reload.
feed = Table(
    "feed",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("timeline", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
)

# gateway ("gateway@host:port"), and whoever changes keys ("keys"): the last number that a
# writer has given to what it committed. A restored database begins new series.
chains = Table(
    "chains",
    metadata,
    Column("chain_id", Integer, primary_key=True, autoincrement=True),
    Column("writer", _ascii(100), nullable=False),
    Column("series", BigInteger, nullable=False),  # 0; after a restore its Unix second
    Column("seq", BigInteger, nullable=False),
    Column("begun_at", UtcDateTime, nullable=False),
    Index(None, "writer", "series", unique=True),
)

# scheduler and command line: what was done to keys and clients, in the order of commits.
key_events = Table(
    "key_events",
    metadata,
    Column("chain_id", Integer, primary_key=True, autoincrement=False),
    Column("chain_seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False),
    Column("event", _ascii(32), nullable=False),
    Column("actor", _exact(100), nullable=False),  # user@host
    Column("detail", _LONG_TEXT, nullable=False),  # JSON; never a key
)

# command line: each restore from a backup; scheduler sets chains_made_at. While one is not
# resynchronised, nothing is sealed but what the SMS orders anew.
recoveries = Table(
    "recoveries",
    metadata,
    Column("recovery_id", Integer, primary_key=True, autoincrement=True),
    Column("backup_at", UtcDateTime, nullable=False),  # of the state that was restored
    Column("restored_at", UtcDateTime, nullable=False),
    Column("chains_made_at", UtcDateTime),  # every product has a new key chain
    Column("resynchronised_at", UtcDateTime),  # NULL: the SMS has not repeated its orders
    Column("evidence", _exact(500)),
)

# all: who leads ("scheduler"), who airs ("stream:0xFFF00001:1"); `note` is the holder's own JSON.
leases = Table(
    "leases",
    metadata,
    Column("name", _ascii(64), primary_key=True),
    Column("holder", _exact(100), nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("note", _LONG_TEXT, nullable=False, default="{}"),
)
