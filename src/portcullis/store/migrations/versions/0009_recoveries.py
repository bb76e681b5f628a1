"""When the database was restored, and whether the SMS has caught up (before the roll-out)."""

from alembic import op
from sqlalchemy import Column, Integer, String
from sqlalchemy.dialects import mysql

from portcullis.store.schema import UtcDateTime

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make `recoveries`."""
    evidence = String(500).with_variant(
        mysql.VARCHAR(500, charset="utf8mb4", collation="utf8mb4_bin"), "mysql"
    )
    op.create_table(
        "recoveries",
        Column("recovery_id", Integer, primary_key=True, autoincrement=True),
        Column("backup_at", UtcDateTime, nullable=False),
        Column("restored_at", UtcDateTime, nullable=False),
        Column("chains_made_at", UtcDateTime),
        Column("resynchronised_at", UtcDateTime),
        Column("evidence", evidence),
    )


def downgrade() -> None:
    """Drop `recoveries`."""
    op.drop_table("recoveries")
