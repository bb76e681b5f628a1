"""The baseline of `encryptor`: the same work on a bare socket, with nothing checked.

Request: length 4, then per EMM (big-endian) address 8, number 4, sealed device
key 60, five times product 2, epoch 1, end 4. Reply: length 4, then the
sections, each behind its length 1. The keys that would be checked come as
arguments; what is left is the cryptography, the layout and the socket.
"""

import os
import socket
import struct
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from portcullis.emm import derive_kek

PRODUCTS = 5
ITEM = struct.Struct(">QI60s" + "HBI" * PRODUCTS)
_LABEL = struct.Struct(">2sBQHH16s")
_HEAD = struct.Struct(">BH5sBBHI")
_RECORD = struct.Struct(">HBI16s")


def seal(request: bytes, master: AESGCM, master_id: bytes, product_key: bytes) -> bytes:
    """Open each device key, derive its KEK, lay the state out, seal it."""
    random = os.urandom(16 * (len(request) // ITEM.size))
    out = []
    at = 0
    for address, number, blob, *entitlements in ITEM.iter_unpack(request):
        label = _LABEL.pack(b"PK", 1, address, 0, 65535, master_id)
        device_key = master.decrypt(blob[:12], blob[12:], label)
        box = address.to_bytes(5, "big")
        kek = derive_kek(device_key, 0xFFF0, address, 0)
        payload = b"\1" + number.to_bytes(4, "big") + bytes((1, 23 * PRODUCTS))
        payload += b"".join(
            [_RECORD.pack(*entitlements[i : i + 3], product_key) for i in range(0, 15, 3)]
        )
        dek = random[at : at + 16]
        at += 16
        head = _HEAD.pack(0x82, 0x7000 | (53 + len(payload)), box, 0x11, 0x11, 0, number)
        nonce = head[3:8] + head[10:] + b"\1"
        section = head + aes_key_wrap(kek, dek) + AESGCM(dek).encrypt(nonce, payload, head)
        out += (bytes((len(section),)), section)
    return b"".join(out)


def serve(path: str, master_key: str, master_id: str) -> None:
    """Answer one client after the other."""
    master, product_key = AESGCM(bytes.fromhex(master_key)), os.urandom(16)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as requests:
                while len(head := requests.read(4)) == 4:
                    request = requests.read(int.from_bytes(head, "big"))
                    reply = seal(request, master, master_id.encode(), product_key)
                    connection.sendall(len(reply).to_bytes(4, "big") + reply)


if __name__ == "__main__":
    serve(*sys.argv[1:])
