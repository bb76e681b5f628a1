"""The tables of the first release (before the roll-out; takes no lock on anything there).

A snapshot: what changes later is a migration of its own, and `schema.py` has the sum.
"""

from alembic import op
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects import mysql, sqlite

from portcullis.store.schema import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


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

Table(
    "requests",
    metadata,
    Column("request_id", _ascii(32), primary_key=True),
    Column("client_id", _exact(64), nullable=False),
    Column("transaction_id", _exact(64)),
    Column("kind", _ascii(20), nullable=False),
    Column("device_id", BigInteger),
    Column("product_id", Integer),
    Column("message_id", BigInteger),
    Column("body", _LONG_TEXT, nullable=False),
    Column("outcome", _ascii(24), nullable=False),
    Column("detail", _exact(500)),
    Column("wanted", BigInteger),
    Column("received_at", UtcDateTime, nullable=False),
    Index(None, "client_id", "transaction_id"),
    Index(None, "device_id", "wanted"),
    Index(None, "received_at"),
)

Table(
    "transactions",
    metadata,
    Column("client_id", _exact(64), primary_key=True),
    Column("transaction_id", _exact(64), primary_key=True),
    Column("request_id", _ascii(32), nullable=False),
    Column("body_hash", LargeBinary(32), nullable=False),
    Column("message_id", BigInteger),
    Column("accepted_at", UtcDateTime, nullable=False),
    Index(None, "accepted_at"),
)

Table(
    "devices",
    metadata,
    Column("device_id", BigInteger, primary_key=True, autoincrement=False),
    Column("active", _FLAG, nullable=False),
    Column("added_at", UtcDateTime, nullable=False),
    Column("removed_at", UtcDateTime),
)

Table(
    "entitlements",
    metadata,
    Column("device_id", BigInteger, primary_key=True, autoincrement=False),
    Column("product_id", Integer, primary_key=True, autoincrement=False),
    Column("starts_at", UtcDateTime, nullable=False),
    Column("ends_at", UtcDateTime),
    Index(None, "product_id"),
    Index(None, "ends_at"),
)

Table(
    "products",
    metadata,
    Column("product_id", Integer, primary_key=True, autoincrement=False),
    Column("name", _exact(200), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint("product_id BETWEEN 1 AND 65535", name="product_id"),
)

Table(
    "messages",
    metadata,
    Column("message_id", _ID, primary_key=True, autoincrement=True),
    Column("device_id", BigInteger, nullable=False),
    Column("text", _LONG_TEXT, nullable=False),
    Column("duration_s", Integer, nullable=False),
    Column("position", SmallInteger, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("starts_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("removed_at", UtcDateTime),
    Column("wanted", BigInteger, nullable=False),
    Column("sealed", _FLAG, nullable=False, default=0),
    Column("withdrawal_sealed", _FLAG, nullable=False, default=0),
    Index(None, "device_id", "sealed", "withdrawal_sealed"),
    Index(None, "expires_at"),
    sqlite_autoincrement=True,  # as elsewhere: no id a second time, which a box would not show
)


Table(
    "device_work",
    metadata,
    Column("device_id", BigInteger, primary_key=True, autoincrement=False),
    Column("wanted", BigInteger, nullable=False),
    Column("sealed", BigInteger, nullable=False, default=0),
    Column("state_wanted", BigInteger, nullable=False),
    Column("state_sealed", BigInteger, nullable=False, default=0),
    Column("epoch", Integer, nullable=False, default=0),
    Column("sequence", BigInteger, nullable=False, default=0),
    Column("cause", _ascii(8), nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("dirty_at", UtcDateTime),
    Column("due_at", UtcDateTime),
    Column("claim_token", _ascii(32)),
    Column("claim_wanted", BigInteger),
    Column("tries", Integer, nullable=False, default=0),
    Column("failed_at", UtcDateTime),
    Column("last_error", _exact(500)),
    Column("held", _LONG_TEXT, nullable=False, default="{}"),
    Column("state_sealed_at", UtcDateTime),
    Index(None, "priority", "due_at"),
    Index(None, "claim_token"),
    Index(None, "dirty_at"),
    Index(None, "failed_at"),
    Index(None, "state_sealed_at"),
)

Table(
    "keys",
    metadata,
    Column("purpose", _ascii(8), primary_key=True),
    Column("owner", BigInteger, primary_key=True, autoincrement=False),
    Column("first_epoch", Integer, primary_key=True, autoincrement=False),
    Column("last_epoch", Integer, nullable=False),
    Column("master_id", _ascii(16), nullable=False),
    Column("sealed_key", LargeBinary(128), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("live_epoch", Integer),
    Column("seal_epoch", Integer),
    Column("live_since", UtcDateTime),
    Column("switch_at", UtcDateTime),
    Column("retired_at", UtcDateTime),
    Index(None, "master_id"),
)

Table(
    "emms",
    metadata,
    Column("device_id", BigInteger, primary_key=True, autoincrement=False),
    Column("message_id", BigInteger, primary_key=True, autoincrement=False),
    Column("part", SmallInteger, primary_key=True, autoincrement=False),
    Column("parts", SmallInteger, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("cause", _ascii(8), nullable=False),
    Column("covers", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("tombstone", _FLAG, nullable=False, default=0),
    Column("section", LargeBinary(256), nullable=False),
    Column("starts_at", UtcDateTime),
    Column("ends_at", UtcDateTime),
    Column("sealed_at", UtcDateTime, nullable=False),
    Column("first_aired_at", UtcDateTime),
    Index(None, "revision"),
    Index(None, "ends_at"),
)

Table(
    "airings",
    metadata,
    Column("device_id", BigInteger, primary_key=True, autoincrement=False),
    Column("message_id", BigInteger, primary_key=True, autoincrement=False),
    Column("wanted", BigInteger, primary_key=True, autoincrement=False),
    Column("sealed_at", UtcDateTime, nullable=False),
    Column("first_aired_at", UtcDateTime),
    Index(None, "sealed_at"),
)

feed = Table(
    "feed",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("timeline", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
)

Table(
    "leases",
    metadata,
    Column("name", _ascii(64), primary_key=True),
    Column("holder", _exact(100), nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("note", _LONG_TEXT, nullable=False, default="{}"),
)


def upgrade() -> None:
    """Make every table, and the one row of the feed."""
    connection = op.get_bind()
    metadata.create_all(connection)
    connection.execute(feed.insert().values(id=1, timeline=1, revision=0))
    if connection.dialect.name == "mysql":
        # One partition to begin with; the scheduler splits the months off it.
        op.execute(
            "ALTER TABLE requests PARTITION BY RANGE COLUMNS (request_id)"
            " (PARTITION p_rest VALUES LESS THAN (MAXVALUE))"
        )


def downgrade() -> None:
    """Drop every table."""
    metadata.drop_all(op.get_bind())
