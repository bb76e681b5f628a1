"""The few tombstones, found without the rest (before the roll-out; built online by InnoDB)."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Index `emms` by tombstone: it hardly ever changes, so sealing pays nothing for it."""
    op.create_index("ix_emms_tombstone", "emms", ["tombstone"])


def downgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_emms_tombstone", "emms")
