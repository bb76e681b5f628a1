"""Masters in a PKCS#11 token: made there, used there, not to be had out of it.

Each is an AES-256 secret key object, CKA_SENSITIVE and not CKA_EXTRACTABLE,
allowed to encrypt and decrypt and nothing else. Its CKA_LABEL is
`portcullis-master:<master_id>` (`portcullis-retired:` once it is retired); its
CKA_ID is a rank of four bytes, the highest of them the current master, 0 one
that waits.

The calls used: C_Initialize, C_Finalize, C_GetSlotList, C_GetTokenInfo, C_OpenSession, C_Login,
C_FindObjects, C_GenerateKey, C_GetAttributeValue, C_SetAttributeValue, C_Encrypt and C_Decrypt
(CKM_AES_GCM). The library is told nothing of threads, so one lock holds every call; nothing may
fork after C_Initialize.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pkcs11
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, ObjectClass

from portcullis.keys.errors import (
    CustodyAwayError,
    KeyNotOpenedError,
    MasterError,
    TokenError,
)
from portcullis.keys.masters import MASTER_KEY_BYTES, MasterState

_IN_USE, _RETIRED = "portcullis-master:", "portcullis-retired:"
_TAG_BITS = 128
_RECALLED_RANK, _FIRST_RANK = 1, 2  # below every current one's; not 0, which waits
_RECONNECT_S = 1.0
_BUSY_S = 2.0
_PIN_REFUSED = (
    pkcs11.PinIncorrect,
    pkcs11.PinInvalid,
    pkcs11.PinLenRange,
    pkcs11.PinLocked,
    pkcs11.PinExpired,
    pkcs11.UserPinNotInitialized,
)
_T = TypeVar("_T")
_Key = Any  # a secret key object; the library adds its `encrypt` and `decrypt` at run time


class TokenMasters:
    """The masters of one token. When the token goes away, calls say so until it is back.

    `module`: path of the vendor's PKCS#11 library. `clock`: seconds that never go back.
    Raises TokenError if there is no such library.
    """

    def __init__(
        self, module: str, token: str, pin: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not Path(module).is_file():
            raise TokenError(f"there is no PKCS#11 library {module}")
        self._module, self._token, self._pin = module, token, pin
        self._clock = clock
        self._lock = threading.RLock()
        self._session: pkcs11.Session | None = None
        self._keys: dict[str, _Key] = {}
        self._ranks: dict[str, int] = {}
        self._states: dict[str, MasterState] = {}
        self._trouble = "not connected yet"
        self._tried_at = self._looked_at = float("-inf")
        self._pin_is_refused = False

    def __repr__(self) -> str:
        """Show the place, never the PIN."""
        return f"TokenMasters({self._module}, {self._token!r}, ***)"

    def init(self, master_id: str) -> bool:
        """Make the first master; False if there is one. Raises TokenError or CustodyAwayError."""
        with self._lock:
            self._be_connected()
            self._call(self._look)
            if self._keys:
                return False
            self.make(master_id)
            return True

    def masters(self) -> Mapping[str, MasterState]:
        """See `Ciphers`."""
        with self._lock:
            self._be_connected()
            if not self._states:
                self._call(self._look)
            if not self._states:
                raise CustodyAwayError(
                    f"token {self._token!r} holds no master key; `portcullis keys init` makes one"
                )
            return self._states

    def encrypt(self, master_id: str, nonce: bytes, data: bytes, label: bytes) -> bytes:
        """See `Ciphers`."""
        with self._lock:
            self._be_connected()
            key = self._key(master_id)
            return self._call(lambda: _encrypt(key, nonce, data, label))

    def decrypt(self, master_id: str, nonce: bytes, data: bytes, label: bytes) -> bytes:
        """See `Ciphers`.

        Tokens have no one word for a tag that does not verify; SoftHSM says CKR_GENERAL_ERROR.
        So a token that still opens what it has just sealed is sound, and the blob is not.
        """
        with self._lock:
            self._be_connected()
            key = self._key(master_id)
            try:
                return _decrypt(key, nonce, data, label)
            except pkcs11.PKCS11Error as error:
                probe, fresh = os.urandom(16), os.urandom(12)
                sealed = self._call(lambda: _encrypt(key, fresh, probe, label))
                if self._call(lambda: _decrypt(key, fresh, sealed, label)) != probe:
                    raise TokenError(
                        f"token {self._token!r} does not open what it seals"
                    ) from error
                raise KeyNotOpenedError("the tag does not verify") from error

    def refresh(self) -> None:
        """See `MasterStore`."""
        with self._lock:
            self._be_connected()
            self._call(self._look)

    def check(self) -> str | None:
        """See `MasterStore`; connects again when the token has been away."""
        if not self._lock.acquire(timeout=_BUSY_S):
            return f"token {self._token!r}: a call does not come back"
        try:
            self.masters()
        except (CustodyAwayError, TokenError) as error:
            return str(error)
        finally:
            self._lock.release()
        return None

    def make(self, master_id: str) -> None:
        """See `MasterStore`."""
        with self._lock:
            self._be_connected()
            self._call(self._look)
            if master_id in self._keys:
                return
            rank = 0 if self._keys else _FIRST_RANK
            self._call(lambda: self._generate(master_id, rank))
            self._call(self._look)

    def use(self, master_id: str) -> None:
        """See `MasterStore`."""
        with self._lock:
            self._be_connected()
            self._call(self._look)
            self._at_hand(master_id)
            highest = max(self._ranks.values())
            if self._ranks[master_id] < highest:
                self._change(_IN_USE + master_id, {Attribute.ID: _rank(highest + 1)})

    def retire(self, master_id: str) -> None:
        """See `MasterStore`; the object stays in the token under another label."""
        with self._lock:
            self._be_connected()
            self._call(self._look)
            if master_id not in self._keys and self._call(lambda: self._is_retired(master_id)):
                return
            self._at_hand(master_id)
            if self._ranks[master_id] == max(self._ranks.values()):
                raise MasterError(f"master {master_id} is the current one")
            self._change(_IN_USE + master_id, {Attribute.LABEL: _RETIRED + master_id})

    def recall(self, master_id: str) -> None:
        """See `MasterStore`."""
        with self._lock:
            self._be_connected()
            self._call(self._look)
            if master_id in self._keys:
                return
            if not self._call(lambda: self._is_retired(master_id)):
                raise MasterError(f"master {master_id} is not in token {self._token!r}")
            changed = {Attribute.LABEL: _IN_USE + master_id, Attribute.ID: _rank(_RECALLED_RANK)}
            self._change(_RETIRED + master_id, changed)

    def _key(self, master_id: str) -> _Key:
        if master_id not in self._keys and self._clock() - self._looked_at > _RECONNECT_S:
            self._call(self._look)
        key = self._keys.get(master_id)
        if key is None:
            raise KeyNotOpenedError(f"master {master_id!r} is not at hand")
        return key

    def _at_hand(self, master_id: str) -> None:
        if master_id not in self._keys:
            raise MasterError(f"master {master_id} is not in token {self._token!r}")

    def _be_connected(self) -> None:
        if self._session is None:
            if self._clock() - self._tried_at < _RECONNECT_S or self._pin_is_refused:
                raise CustodyAwayError(self._trouble)
            self._connect()

    def _connect(self) -> None:
        """Start the library anew: what it held of a token that went away is worth nothing."""
        self._tried_at = self._clock()
        try:
            library = pkcs11.lib(self._module)
            with suppress(pkcs11.PKCS11Error):
                library.finalize()
            library.initialize()
            session = library.get_token(token_label=self._token).open(user_pin=self._pin)
        except _PIN_REFUSED as error:
            # Asked again and again, the token would lock itself.
            self._pin_is_refused = True
            self._trouble = (
                f"token {self._token!r} refuses the PIN ({type(error).__name__}): it is not asked"
                " again until the encryptor is started again"
            )
            raise TokenError(self._trouble) from error
        except pkcs11.NoSuchToken as error:
            self._trouble = f"token {self._token!r} is not there"
            raise CustodyAwayError(self._trouble) from error
        except pkcs11.MultipleTokensReturned as error:
            raise TokenError(f"more than one token is called {self._token!r}") from error
        except pkcs11.PKCS11Error as error:
            self._trouble = f"token {self._token!r} is away: {_name(error)}"
            raise CustodyAwayError(self._trouble) from error
        self._session = session
        self._call(self._look)

    def _call(self, call: Callable[[], _T]) -> _T:
        """Do something in the token; whatever it answers but success, it counts as away."""
        try:
            return call()
        except pkcs11.PKCS11Error as error:
            self._session = None
            self._keys, self._ranks, self._states = {}, {}, {}
            self._tried_at = self._clock()
            self._trouble = f"token {self._token!r} is away: {_name(error)}"
            raise CustodyAwayError(self._trouble) from error

    def _look(self) -> None:
        """Find the masters in the token."""
        self._looked_at = self._clock()
        keys, ranks = {}, {}
        for key, label in self._objects():
            if label.startswith(_IN_USE):
                master_id = label.removeprefix(_IN_USE)
                keys[master_id] = key
                ranks[master_id] = int.from_bytes(key[Attribute.ID], "big")
        self._keys, self._ranks = keys, ranks
        order = sorted(ranks, key=ranks.__getitem__, reverse=True)
        self._states = {
            one: MasterState.OLDER if ranks[one] else MasterState.WAITING for one in order
        } | dict.fromkeys(order[:1], MasterState.CURRENT)

    def _is_retired(self, master_id: str) -> bool:
        return any(label == _RETIRED + master_id for _, label in self._objects())

    def _objects(self) -> Iterator[tuple[_Key, str]]:
        assert self._session is not None  # noqa: S101 (`_be_connected` has opened it)
        wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.AES}
        for key in list(self._session.get_objects(wanted)):
            yield key, key[Attribute.LABEL]

    def _generate(self, master_id: str, rank: int) -> None:
        with self._writing() as session:
            session.generate_key(
                KeyType.AES,
                8 * MASTER_KEY_BYTES,
                id=_rank(rank),
                label=_IN_USE + master_id,
                store=True,
                template={
                    Attribute.SENSITIVE: True,
                    Attribute.EXTRACTABLE: False,
                    Attribute.ENCRYPT: True,
                    Attribute.DECRYPT: True,
                    Attribute.SIGN: False,
                    Attribute.VERIFY: False,
                    Attribute.WRAP: False,
                    Attribute.UNWRAP: False,
                    Attribute.DERIVE: False,
                },
            )

    def _change(self, label: str, attributes: Mapping[Attribute, object]) -> None:
        def change() -> None:
            with self._writing() as session:
                key = session.get_key(object_class=ObjectClass.SECRET_KEY, label=label)
                for name, value in attributes.items():
                    key[name] = value

        self._call(change)
        self._call(self._look)

    @contextmanager
    def _writing(self) -> Iterator[pkcs11.Session]:
        """A second session that may write; the login is the library's, so it needs none."""
        assert self._session is not None  # noqa: S101 (`_be_connected` has opened it)
        session = self._session.token.open(rw=True)
        try:
            yield session
        finally:
            session.close()


def _rank(number: int) -> bytes:
    return number.to_bytes(4, "big")


def _encrypt(key: _Key, nonce: bytes, data: bytes, label: bytes) -> bytes:
    parameters = GCMParams(nonce, label, _TAG_BITS)
    return bytes(key.encrypt(data, mechanism=Mechanism.AES_GCM, mechanism_param=parameters))


def _decrypt(key: _Key, nonce: bytes, data: bytes, label: bytes) -> bytes:
    parameters = GCMParams(nonce, label, _TAG_BITS)
    return bytes(key.decrypt(data, mechanism=Mechanism.AES_GCM, mechanism_param=parameters))


def _name(error: pkcs11.PKCS11Error) -> str:
    return str(error) or type(error).__name__
