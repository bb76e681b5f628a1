"""Work that is due, and states that grow old, by one index (before the roll-out; built online)."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Index `device_work` by urgency, by when it is due, and by when the state was sealed."""
    op.create_index(
        "ix_device_work_priority_due_at_state_sealed_at",
        "device_work",
        ["priority", "due_at", "state_sealed_at"],
    )


def downgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_device_work_priority_due_at_state_sealed_at", "device_work")
