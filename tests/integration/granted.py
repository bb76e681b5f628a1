"""A database whose users have what deploy/mariadb/grants.sql gives them, and no more."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql
from sqlalchemy import URL, make_url

GRANTS = Path(__file__).parents[2] / "deploy" / "mariadb" / "grants.sql"


@contextmanager
def users(url: str) -> Iterator[dict[str, str]]:
    """Make every user that the grants name; service → URL of the database as that user."""
    owner = make_url(url)
    text = GRANTS.read_text()
    names = sorted(set(re.findall(r"portcullis_(\w+)@", text)))
    assert "gateway" in names
    with _as_owner(owner) as connection, connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"CREATE USER portcullis_{name}@'%' IDENTIFIED BY 'pretend'")
    try:
        command = ["mariadb", f"--host={owner.host}", f"--port={owner.port}", "--skip-ssl"]
        command += [f"--user={owner.username}", f"--password={owner.password or ''}"]
        subprocess.run([*command, str(owner.database)], input=text, text=True, check=True)
        yield {
            name: owner.set(username=f"portcullis_{name}", password="pretend").render_as_string(
                hide_password=False
            )
            for name in names
        }
    finally:
        with _as_owner(owner) as connection, connection.cursor() as cursor:
            for name in names:
                cursor.execute(f"DROP USER portcullis_{name}@'%'")


def _as_owner(owner: URL) -> "pymysql.Connection[pymysql.cursors.Cursor]":
    return pymysql.connect(
        host=owner.host or "",
        port=owner.port or 0,
        user=owner.username,
        password=owner.password or "",
        database=owner.database,
        autocommit=True,
    )
