"""The write side of the carousel's feed: revision order is commit order."""

from sqlalchemy import Connection, select, update

from portcullis.store.schema import feed


def next_revision(connection: Connection) -> int:
    """Lock the feed and take the next revision.

    The lock is held until commit, so take it last: a reader that sees revision n can see
    every row up to n. Raises NoResultFound on a database without its feed row.
    """
    connection.execute(update(feed).where(feed.c.id == 1).values(revision=feed.c.revision + 1))
    return int(connection.execute(select(feed.c.revision).where(feed.c.id == 1)).scalar_one())
