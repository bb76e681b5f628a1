"""A request's number in its chain of evidence (before the roll-out; no table is rewritten)."""

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add `requests.chain_seq`, NULL for what the release before writes."""
    op.add_column("requests", Column("chain_seq", BigInteger))
