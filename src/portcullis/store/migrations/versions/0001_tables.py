"""The tables of the first release (before the roll-out; takes no lock on anything there)."""

from alembic import op

from portcullis.store.schema import feed, metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


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
