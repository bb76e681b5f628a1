"""Requests by their place in a chain (before the roll-out; built online by InnoDB)."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Index `requests` by chain and number."""
    op.create_index("ix_requests_chain_id_chain_seq", "requests", ["chain_id", "chain_seq"])
