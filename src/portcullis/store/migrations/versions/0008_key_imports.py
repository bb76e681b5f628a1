"""How far imports of device keys have come (before the roll-out; a new table, no lock)."""

from alembic import op
from sqlalchemy import BigInteger, Column, String
from sqlalchemy.dialects import mysql, sqlite

from portcullis.store.schema import UtcDateTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make `key_imports`."""
    op.create_table(
        "key_imports",
        Column(
            "import_id",
            BigInteger().with_variant(sqlite.INTEGER(), "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        Column(
            "file_sha256",
            String(64).with_variant(
                mysql.VARCHAR(64, charset="ascii", collation="ascii_bin"), "mysql"
            ),
            nullable=False,
        ),
        Column(
            "file_name",
            String(255).with_variant(
                mysql.VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin"), "mysql"
            ),
            nullable=False,
        ),
        Column("lines", BigInteger, nullable=False),
        Column("imported", BigInteger, nullable=False),
        Column("present", BigInteger, nullable=False),
        Column("refused", BigInteger, nullable=False),
        Column("started_at", UtcDateTime, nullable=False),
        Column("finished_at", UtcDateTime),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("key_imports")
