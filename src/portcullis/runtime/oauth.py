"""Access tokens and who may ask for them.

`TokenVerifier` checks JWT access tokens (RFC 9068) of any authorization
server against its key set; `ClientRegister` and `signing_key` are the files of
the small built-in one. Only hashes of client secrets are kept.
"""

import fcntl
import hashlib
import hmac
import math
import os
import secrets
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import msgspec
from joserfc import jws, jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, Key
from joserfc.jws import JWSRegistry

from portcullis.runtime.errors import PortcullisError
from portcullis.runtime.jwks import KeyCache

SCOPES = ("device", "entitlement", "message", "product", "read", "rehit")
ALGORITHMS = ("ES256", "EdDSA", "RS256")

_KEY_TYPE = {"ES256": "EC", "EdDSA": "OKP", "RS256": "RSA"}
_TYPES = ("at+jwt", "application/at+jwt")  # RFC 9068 4
_SKEW_S = 30
_CACHED_TOKENS = 10_000
_MAX_TOKEN_CHARS = 8192
_MAX_CLIENT_ID_CHARS = 64


class InvalidTokenError(PortcullisError):
    """The token is not one of ours, not any more or not yet; the text may be told to its bearer."""


@dataclass(frozen=True)
class Grant:
    """What a valid token says: who asks, and what for."""

    client_id: str
    scopes: frozenset[str]
    expires_at: float  # Unix seconds


class TokenVerifier:
    """Checks bearer tokens; those found valid are remembered while they and their key are."""

    def __init__(
        self, issuer: str, audience: str, keys: KeyCache, clock: Callable[[], float] = time.time
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys
        self._clock = clock
        self._valid: OrderedDict[str, tuple[Grant, str]] = OrderedDict()

    async def verify(self, token: str) -> Grant:
        """Read a token; raises InvalidTokenError or KeysUnavailableError."""
        keys = await self._keys.keys()
        if (known := self._valid.get(token)) is not None:
            grant, thumbprint = known
            if grant.expires_at + _SKEW_S > self._clock() and thumbprint in keys:
                return grant
            self._valid.pop(token, None)
        grant, thumbprint = await self._verify_new(token, keys)
        self._valid[token] = grant, thumbprint
        if len(self._valid) > _CACHED_TOKENS:
            self._valid.popitem(last=False)
        return grant

    async def _verify_new(self, token: str, keys: Mapping[str, Key]) -> tuple[Grant, str]:
        if len(token) > _MAX_TOKEN_CHARS:
            raise InvalidTokenError("the token is too long")
        try:
            header = jws.extract_compact(token.encode("ascii")).headers()
        except (JoseError, ValueError) as error:
            raise InvalidTokenError("not a signed JWT") from error
        algorithm, type_, kid = header.get("alg"), header.get("typ"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise InvalidTokenError("the token's algorithm is not accepted")
        if not isinstance(type_, str) or type_.lower() not in _TYPES:
            raise InvalidTokenError("not an access token: typ is not at+jwt")
        candidates = _candidates(keys, algorithm, kid)
        if not candidates:
            candidates = _candidates(await self._keys.newer(), algorithm, kid)
        for thumbprint, key in candidates.items():
            try:
                return self._grant(_decode(token, key, algorithm)), thumbprint
            except JoseError:
                continue
        raise InvalidTokenError("the token's signature does not verify")

    def _grant(self, claims: Mapping[str, Any]) -> Grant:
        now = self._clock()
        audience = claims.get("aud")
        expires_at, not_before = claims.get("exp"), claims.get("nbf", 0)
        if claims.get("iss") != self._issuer:
            raise InvalidTokenError("the token is of another issuer")
        audiences = audience if isinstance(audience, list) else [audience]
        if self._audience not in audiences:
            raise InvalidTokenError("the token is for another audience")
        if not _is_time(expires_at) or not _is_time(not_before):
            raise InvalidTokenError("the token lacks a time")
        if expires_at + _SKEW_S <= now:
            raise InvalidTokenError("the token has expired")
        if not_before - _SKEW_S > now:
            raise InvalidTokenError("the token is not valid yet")
        # RFC 9068 2.2. Not `sub`: a person may be named like a client (RFC 9068 5).
        client_id = claims.get("client_id")
        if not isinstance(client_id, str) or not 1 <= len(client_id) <= _MAX_CLIENT_ID_CHARS:
            raise InvalidTokenError("the token names no client")
        scope = claims.get("scope", "")
        if not isinstance(scope, str):
            raise InvalidTokenError("the token's scope is not a string")
        return Grant(client_id, frozenset(scope.split()), float(expires_at))


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _candidates(keys: Mapping[str, Key], algorithm: str, kid: object) -> dict[str, Key]:
    """The keys that may have signed (RFC 8725 3.1): of the algorithm's type, and of this kid."""
    return {
        thumbprint: key
        for thumbprint, key in keys.items()
        if key.key_type == _KEY_TYPE[algorithm]
        and key.alg in (None, algorithm)
        and kid in (None, key.kid)
    }


def _decode(token: str, key: Key, algorithm: str) -> Mapping[str, Any]:
    """The claims of a token whose signature is right; raises JoseError."""
    # RFC 7515 4: what a header says beyond the known is ignored, unless it is critical.
    registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    with warnings.catch_warnings():
        # RFC 9864 renames EdDSA; authorization servers still say EdDSA.
        warnings.simplefilter("ignore", SecurityWarning)
        return jwt.decode(token, key, registry=registry).claims


def signing_key(directory: Path) -> ECKey:
    """The built-in server's ES256 key; made, mode 0600, when there is none."""
    path = directory / "signing-key.json"
    with locked(directory):
        if not path.exists():
            key = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)
            write_private(path, msgspec.json.encode(key.as_dict(private=True)))
    return ECKey.import_key(msgspec.json.decode(path.read_bytes(), type=dict[str, Any]))


def issue_token(
    key: ECKey,
    *,
    issuer: str,
    audience: str,
    client_id: str,
    scopes: Collection[str],
    lifetime_s: int,
) -> str:
    """Sign an access token (RFC 9068 2.2)."""
    now = int(time.time())
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": client_id,
        "client_id": client_id,
        "iat": now,
        "exp": now + lifetime_s,
        "jti": secrets.token_hex(16),
        "scope": " ".join(sorted(scopes)),
    }
    header = {"alg": "ES256", "typ": "at+jwt", "kid": key.kid}
    return jwt.encode(header, claims, key, algorithms=["ES256"])


class Client(msgspec.Struct, frozen=True):
    """A registered client; the secret's scrypt hash only."""

    name: str
    scopes: tuple[str, ...]
    salt: str
    secret_hash: str

    def has_secret(self, secret: str) -> bool:
        """Whether this is the client's secret."""
        return hmac.compare_digest(scrypt_hash(secret, bytes.fromhex(self.salt)), self.secret_hash)


class ClientRegister:
    """`clients.json`, mode 0600: read anew each time, so that a change needs no restart."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "clients.json"

    def all(self) -> dict[str, Client]:
        """Every client by its id."""
        if not self._path.exists():
            return {}
        return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Client])

    def add(self, name: str, scopes: Collection[str] = SCOPES) -> tuple[str, str]:
        """Register a client; returns its id and its secret, which is kept nowhere.

        Raises ValueError for a scope there is none of.
        """
        if unknown := set(scopes) - set(SCOPES):
            raise ValueError(f"unknown scope: {', '.join(sorted(unknown))}")
        client_id, secret = f"sms-{secrets.token_hex(6)}", secrets.token_urlsafe(32)
        salt = secrets.token_bytes(16)
        client = Client(name, tuple(sorted(scopes)), salt.hex(), scrypt_hash(secret, salt))
        with locked(self._directory):
            self._write(self.all() | {client_id: client})
        return client_id, secret

    def remove(self, client_id: str) -> bool:
        """Strike a client off; its tokens live on until they expire. False: not there."""
        with locked(self._directory):
            clients = self.all()
            found = clients.pop(client_id, None) is not None
            self._write(clients)
        return found

    def _write(self, clients: Mapping[str, Client]) -> None:
        write_private(self._path, msgspec.json.format(msgspec.json.encode(clients)))


def scrypt_hash(secret: str, salt: bytes) -> str:
    """What is kept of a secret: 64 bytes in hex."""
    return hashlib.scrypt(secret.encode(), salt=salt, n=2**14, r=8, p=1).hex()


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep others from writing into a directory, which is made if there is none."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_private(path: Path, data: bytes) -> None:
    """Replace a file at once, readable by its owner alone."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
