"""How far rotations of product keys have come (before the roll-out; a new table, no lock)."""

from alembic import op
from sqlalchemy import BigInteger, Column, Float, Integer, Text
from sqlalchemy.dialects import mysql

from portcullis.store.schema import UtcDateTime

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make `rotations`."""
    long_text = Text().with_variant(
        mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql"
    )
    op.create_table(
        "rotations",
        Column("product_id", Integer, primary_key=True, autoincrement=False),
        Column("seal_epoch", Integer, primary_key=True, autoincrement=False),
        Column("begun_at", UtcDateTime, nullable=False),
        Column("boxes", BigInteger, nullable=False),
        Column("marked", BigInteger, nullable=False),
        Column("marked_after", BigInteger, nullable=False),
        Column("marked_at", UtcDateTime),
        Column("sealed", BigInteger, nullable=False),
        Column("skipped", BigInteger, nullable=False),
        Column("sealed_after", BigInteger, nullable=False),
        Column("sealed_at", UtcDateTime),
        Column("revision", BigInteger, nullable=False),
        Column("cycles_from", long_text, nullable=False),
        Column("cycles_aired", Float, nullable=False),
        Column("ends_at", UtcDateTime),
        Column("switched_at", UtcDateTime),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("rotations")
