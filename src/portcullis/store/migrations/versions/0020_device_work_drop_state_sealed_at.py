"""The age of states without the queue (after the roll-out; instant)."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_device_work_state_sealed_at", "device_work")


def downgrade() -> None:
    """Index it."""
    op.create_index("ix_device_work_state_sealed_at", "device_work", ["state_sealed_at"])
