"""The numbers that writers give to what they commit (before the roll-out; takes no lock)."""

from alembic import op
from sqlalchemy import BigInteger, Column, Index, Integer, String
from sqlalchemy.dialects import mysql

from portcullis.store.schema import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make `chains`."""
    writer = String(100).with_variant(
        mysql.VARCHAR(100, charset="ascii", collation="ascii_bin"), "mysql"
    )
    op.create_table(
        "chains",
        Column("chain_id", Integer, primary_key=True, autoincrement=True),
        Column("writer", writer, nullable=False),
        Column("series", BigInteger, nullable=False),
        Column("seq", BigInteger, nullable=False),
        Column("begun_at", UtcDateTime, nullable=False),
        Index("ix_chains_writer_series", "writer", "series", unique=True),
    )
