"""Product key chains: K(e − 1) from K(e) (docs/emm-format.md, "Product keys")."""

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PRODUCT_KEY_BYTES = 16
MAX_CHAIN_EPOCHS = 128


def chain_key(key: bytes, product_id: int, from_epoch: int, to_epoch: int) -> bytes:
    """Walk a chain down from `from_epoch` to `to_epoch` (absolute epochs, `to` ≤ `from`).

    Raises ValueError if `to_epoch` lies above, or below what one chain can hold.
    """
    if not 0 <= from_epoch - to_epoch < MAX_CHAIN_EPOCHS:
        raise ValueError(f"epoch {to_epoch} is not within the chain that reaches {from_epoch}")
    for epoch in range(from_epoch - 1, to_epoch - 1, -1):
        info = (
            b"portcullis product chain v1"
            + product_id.to_bytes(2, "big")
            + (epoch % 256).to_bytes(1, "big")
        )
        key = HKDF(SHA256(), PRODUCT_KEY_BYTES, None, info).derive(key)
    return key
