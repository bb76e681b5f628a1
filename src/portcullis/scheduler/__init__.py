"""The scheduler: what time, and not an order, calls for (docs/keys.md).

Does: gives products their key chains, rotates them, has boxes sealed anew for
      it and once a day; takes what is over off the air and out of the tables.
Owns: `keys` (product chains). Marks `device_work`, tombstones `emms`, deletes
      what is long over. Only the holder of the lease "scheduler" does any of it.
Speaks to: the encryptor, which makes the keys. Hears: nobody.
Never: sees a key in clear; does in one transaction what can be cut in chunks.
"""
