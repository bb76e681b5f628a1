"""Custody of the master keys (docs/keys.md).

Does: reads and makes the master key file; seals and opens the blobs of the
      `keys` table, bound to what their row says they are.
Owns: the master key file, and the layout of a sealed key. Hears: the
encryptor, which alone imports it. Speaks to: nobody.
Never: writes a key anywhere but the master key file, or shows one in a text.
"""

from portcullis.keys.custody import Custody, KeyLabel, Purpose
from portcullis.keys.errors import KeyCustodyError, KeyFileError, KeyNotOpenedError
from portcullis.keys.keyfile import MasterKey, add_master, read_masters

__all__ = [
    "Custody",
    "KeyCustodyError",
    "KeyFileError",
    "KeyLabel",
    "KeyNotOpenedError",
    "MasterKey",
    "Purpose",
    "add_master",
    "read_masters",
]
