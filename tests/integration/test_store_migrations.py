"""The migrations, run one after the other, end where `schema.py` is."""

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import LargeBinary

from portcullis.store.database import engine_for
from portcullis.store.schema import metadata


def _differs(_context: Any, _in_database: Any, _column: Any, is_there: Any, wanted: Any) -> Any:  # noqa: ANN401 (as Alembic calls it)
    # BLOB(32) is a TINYBLOB to MariaDB: the size chose the type.
    return False if isinstance(wanted, LargeBinary) and "BLOB" in str(is_there) else None


def test_the_migrations_make_the_tables_of_the_schema(database_url: str) -> None:
    """Neither a column nor an index is missing, nor one too many, on both kinds of database."""
    engine = engine_for(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": _differs})
        assert compare_metadata(context, metadata) == []
    engine.dispose()
