"""Who may use the console: names with hashed passwords and roles, and signed sessions.

The gateway reads these files and never writes them; `portcullis console` does.
"""

import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from portcullis.runtime.oauth import locked, scrypt_hash, write_private

Role = Literal["viewer", "help-desk"]
SESSION_S = 8 * 3600
MAX_NAME_CHARS = 64
_TYPE = "portcullis-session+jwt"
_NOBODY_SALT = bytes(16)


class Person(msgspec.Struct, frozen=True):
    """One person; the password's scrypt hash only."""

    role: Role
    salt: str
    password_hash: str


@dataclass(frozen=True)
class Session:
    """Who is signed in. `csrf` is to come back with every form."""

    name: str
    role: Role
    csrf: str

    @property
    def may_rehit(self) -> bool:
        """Whether "send again now" is for this person."""
        return self.role == "help-desk"


class People:
    """`console-people.json` and `console-session-key`, mode 0600; read anew each time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._people = directory / "console-people.json"
        self._key = directory / "console-session-key"

    def all(self) -> Mapping[str, Person]:
        """Everybody by name."""
        if not self._people.exists():
            return {}
        return msgspec.json.decode(self._people.read_bytes(), type=dict[str, Person])

    def add(self, name: str, role: Role) -> str:
        """Add a person, or give one a new password and role; returns the password, kept nowhere."""
        password, salt = secrets.token_urlsafe(15), secrets.token_bytes(16)
        person = Person(role, salt.hex(), scrypt_hash(password, salt))
        with locked(self._directory):
            if not self._key.exists():
                write_private(self._key, secrets.token_hex(32).encode())
            self._write({**self.all(), name: person})
        return password

    def remove(self, name: str) -> bool:
        """Strike a person off; their sessions end at once. False: not there."""
        with locked(self._directory):
            people = dict(self.all())
            found = people.pop(name, None) is not None
            self._write(people)
        return found

    def sign_in(self, name: str, password: str) -> str | None:
        """A session for whoever knows the password; None otherwise. Takes its time, on purpose."""
        person = self.all().get(name)
        salt = _NOBODY_SALT if person is None else bytes.fromhex(person.salt)
        hashed = scrypt_hash(password, salt)  # for a name that is not there, too
        if person is None or not hmac.compare_digest(hashed, person.password_hash):
            return None
        claims = {
            "sub": name,
            "exp": int(time.time()) + SESSION_S,
            "csrf": secrets.token_hex(16),
            "salt": person.salt,
        }
        return jwt.encode({"alg": "HS256", "typ": _TYPE}, claims, self._session_key())

    def session(self, token: str) -> Session | None:
        """Read a session; None for one that is over, forged, or of an earlier password."""
        if not token or not self._key.exists():
            return None
        try:
            signed = jwt.decode(token, self._session_key(), algorithms=["HS256"])
            jwt.JWTClaimsRegistry(exp={"essential": True}).validate(signed.claims)
        except (JoseError, ValueError):
            return None
        name = str(signed.claims["sub"])
        person = self.all().get(name)
        if person is None or person.salt != signed.claims["salt"]:
            return None
        return Session(name, person.role, str(signed.claims["csrf"]))

    def _session_key(self) -> OctKey:
        return OctKey.import_key(bytes.fromhex(self._key.read_text(encoding="ascii")))

    def _write(self, people: Mapping[str, Person]) -> None:
        write_private(self._people, msgspec.json.format(msgspec.json.encode(people)))
