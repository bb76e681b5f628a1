"""PyMySQL, without the 8 MB of `cryptography` until a server asks for what needs it.

That is RSA, for the password of a user of MySQL (caching_sha2_password, sha256_password) over a
connection without TLS.
"""

import importlib
import sys

_modules: dict[str, object] = sys.modules  # type: ignore[assignment]  # None: not to be found
_modules.setdefault("cryptography", None)

import pymysql  # noqa: E402 (cryptography is hidden from it)
from pymysql import _auth  # noqa: E402

if _modules["cryptography"] is None:
    del _modules["cryptography"]

from pymysql.constants import CLIENT  # noqa: E402
from pymysql.cursors import Cursor as OneStatementCursor  # noqa: E402

__all__ = ["SCRIPTS", "Cursor", "pymysql"]

SCRIPTS = CLIENT.MULTI_STATEMENTS | CLIENT.FOUND_ROWS
"""A connection takes several statements as one text; an UPDATE counts as SQLAlchemy expects."""


class Cursor(OneStatementCursor):
    """Has run all statements of a text when it has run it."""

    def execute(self, query: str, args: object = None) -> int:
        """Run a text; the first statement that fails ends it, and is raised.

        Rows are those of the last one.
        """
        super().execute(query, args)
        while self.nextset():
            pass
        return self.rowcount


def _encrypt_with_rsa(password: bytes, salt: bytes, public_key: bytes) -> bytes:
    """Do it as PyMySQL does where it has found `cryptography`."""
    importlib.reload(_auth)
    encrypted: bytes = _auth.sha2_rsa_encrypt(password, salt, public_key)
    return encrypted


_auth.sha2_rsa_encrypt = _encrypt_with_rsa
