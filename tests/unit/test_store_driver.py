"""What the database driver loads, and when."""

import subprocess
import sys

_PASSWORD_BY_RSA = """
import sys
from portcullis.cycler import main
assert "cryptography" not in sys.modules
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from portcullis.store.driver import pymysql
key = rsa.generate_private_key(65537, 2048)
form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
public = key.public_key().public_bytes(*form)
for _ in range(2):
    sent = pymysql._auth.sha2_rsa_encrypt(b"secret", bytes(20), public)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    print(key.decrypt(sent, oaep))
"""


def test_cryptography_is_loaded_for_a_password_by_rsa() -> None:
    """And not by a room that needs none, for the driver or for certificates it has not."""
    run = subprocess.run(
        [sys.executable, "-c", _PASSWORD_BY_RSA], capture_output=True, check=True, text=True
    )
    assert run.stdout.split() == ["b'secret\\x00'"] * 2
