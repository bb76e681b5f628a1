"""Custody of the master keys (docs/keys.md).

Does: keeps the masters, in a file or in a PKCS#11 token; seals and opens the
      blobs of the `keys` table, bound to what their row says they are.
Owns: the master key file and the import key file, the token's key objects,
      and the layout of a sealed key. Hears: the encryptor, which alone imports
      it. Speaks to: the token.
Never: writes a key anywhere but the master key file, or shows one in a text.
"""

from portcullis.keys.custody import LABEL_BYTES, LABEL_OWNER, Custody, KeyLabel, Purpose
from portcullis.keys.errors import (
    CustodyAwayError,
    KeyCustodyError,
    KeyFileError,
    KeyNotOpenedError,
    MasterError,
    TokenError,
)
from portcullis.keys.importkey import ImportKey
from portcullis.keys.keyfile import FileMasters, init_masters
from portcullis.keys.masters import (
    MASTER_ID,
    KeyRing,
    MasterKey,
    MasterState,
    MasterStore,
    check_value,
)
from portcullis.keys.token import TokenMasters

__all__ = [
    "LABEL_BYTES",
    "LABEL_OWNER",
    "MASTER_ID",
    "Custody",
    "CustodyAwayError",
    "FileMasters",
    "ImportKey",
    "KeyCustodyError",
    "KeyFileError",
    "KeyLabel",
    "KeyNotOpenedError",
    "KeyRing",
    "MasterError",
    "MasterKey",
    "MasterState",
    "MasterStore",
    "Purpose",
    "TokenError",
    "TokenMasters",
    "check_value",
    "init_masters",
]
