"""What is done to keys and clients (before the roll-out; takes no lock)."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, String, Text
from sqlalchemy.dialects import mysql

from portcullis.store.schema import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make `key_events`."""
    event = String(32).with_variant(
        mysql.VARCHAR(32, charset="ascii", collation="ascii_bin"), "mysql"
    )
    actor = String(100).with_variant(
        mysql.VARCHAR(100, charset="utf8mb4", collation="utf8mb4_bin"), "mysql"
    )
    detail = Text().with_variant(
        mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql"
    )
    op.create_table(
        "key_events",
        Column("chain_id", Integer, primary_key=True, autoincrement=False),
        Column("chain_seq", BigInteger, primary_key=True, autoincrement=False),
        Column("at", UtcDateTime, nullable=False),
        Column("event", event, nullable=False),
        Column("actor", actor, nullable=False),
        Column("detail", detail, nullable=False),
    )
