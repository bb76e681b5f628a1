"""What a room says of its database at `/readyz`."""

from sqlalchemy.exc import SQLAlchemyError

from portcullis.store.database import engine_for
from portcullis.store.migrate import schema_problem

_ANSWER_S = 2.0


class DatabaseHealth:
    """Asks the database on a connection of its own: a pool that is busy is no sign of trouble."""

    def __init__(self, url: str) -> None:
        self._engine = engine_for(url, pool_size=1, answer_s=_ANSWER_S)

    def check(self) -> str | None:
        """Why this release cannot work on the database: away, or with another schema."""
        try:
            return schema_problem(self._engine)
        except SQLAlchemyError as error:
            return f"the database does not answer: {type(error).__name__}"
