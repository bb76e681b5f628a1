"""Claims are found by device and by when they come due (after the roll-out; instant)."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_device_work_claim_token", "device_work")


def downgrade() -> None:
    """Index it."""
    op.create_index("ix_device_work_claim_token", "device_work", ["claim_token"])
