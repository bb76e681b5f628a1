"""Which chain of evidence a request is in (before the roll-out; no table is rewritten)."""

from alembic import op
from sqlalchemy import Column, Integer

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add `requests.chain_id`, NULL for what the release before writes."""
    op.add_column("requests", Column("chain_id", Integer))
