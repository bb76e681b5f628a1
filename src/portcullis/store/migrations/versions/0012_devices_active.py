"""The few removed devices, found without the rest (before the roll-out; built online by InnoDB)."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Index `devices` by whether they are active."""
    op.create_index("ix_devices_active", "devices", ["active"])


def downgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_devices_active", "devices")
