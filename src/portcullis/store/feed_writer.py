"""The write side of the carousel's feed: revision order is commit order."""

from sqlalchemy import Connection, func, select, update

from portcullis.store.schema import feed


def next_revision(connection: Connection) -> int:
    """Lock the feed and take the next revision.

    The lock is held until commit, so take it last: a reader that sees revision n can see
    every row up to n. Raises NoResultFound on a database without its feed row.
    """
    next_one = feed.c.revision + 1
    if connection.dialect.name == "mysql":
        next_one = func.last_insert_id(next_one)  # comes back with the answer to the UPDATE
    done = connection.execute(update(feed).where(feed.c.id == 1).values(revision=next_one))
    if connection.dialect.name == "mysql" and done.rowcount:
        return int(done.lastrowid)
    return int(connection.execute(select(feed.c.revision).where(feed.c.id == 1)).scalar_one())
