"""Which devices are being sealed, by whom (before the roll-out)."""

from alembic import op
from sqlalchemy import Column, Integer, String, Text
from sqlalchemy.dialects import mysql

from portcullis.store.schema import UtcDateTime

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make `claims`."""
    token = String(32).with_variant(
        mysql.VARCHAR(32, charset="ascii", collation="ascii_bin"), "mysql"
    )
    device_ids = Text().with_variant(
        mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql"
    )
    op.create_table(
        "claims",
        Column("token", token, primary_key=True),
        Column("claimed_at", UtcDateTime, nullable=False),
        Column("claimed_until", UtcDateTime, nullable=False),
        Column("devices", Integer, nullable=False),
        Column("device_ids", device_ids, nullable=False),
    )


def downgrade() -> None:
    """Drop `claims`."""
    op.drop_table("claims")
