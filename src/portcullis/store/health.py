"""What a room says of its database at `/readyz`."""

from sqlalchemy.exc import SQLAlchemyError

from portcullis.runtime.clock import WallClock
from portcullis.store.database import database_now, engine_for, reason_of
from portcullis.store.recovery import open_recovery
from portcullis.store.revisions import schema_problem

_ANSWER_S = 2.0


class DatabaseHealth:
    """Asks the database on a connection of its own: a pool that is busy is no sign of trouble.

    `clock` is told the database's time by each check.
    """

    def __init__(self, url: str, clock: WallClock) -> None:
        self._engine = engine_for(url, pool_size=1, answer_s=_ANSWER_S)
        self._clock = clock

    def check(self) -> str | None:
        """Why this release cannot work on the database: away, or with another schema."""
        try:
            with self._engine.connect() as connection:
                self._clock.compare(database_now(connection).timestamp())
                return schema_problem(connection)
        except SQLAlchemyError as error:
            return f"the database does not answer: {reason_of(error)}"

    def notice(self) -> str | None:
        """Whether the SMS has still to repeat its orders after a restore."""
        try:
            recovery = open_recovery(self._engine)
        except SQLAlchemyError:
            return None  # `check` says so
        return None if recovery is None else str(recovery)
