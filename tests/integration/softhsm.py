"""A SoftHSM token of the test's own: Debian's softhsm2."""

import subprocess
from pathlib import Path

import pytest

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
TOKEN, PIN = "portcullis", "471147"


class SoftHsm:
    """One token in a directory; `away` and `back` are the plug being pulled and put in."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens = home / "tokens"
        self.tokens.mkdir()
        self.config = home / "softhsm2.conf"
        self.config.write_text(
            f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        self.pin_file = home / "pin"
        self.pin_file.write_text(PIN + "\n")
        self.pin_file.chmod(0o600)
        monkeypatch.setenv("SOFTHSM2_CONF", str(self.config))
        command = ["softhsm2-util", "--init-token", "--free", "--label", TOKEN]
        subprocess.run([*command, "--pin", PIN, "--so-pin", "0" + PIN], check=True, stdout=-3)

    def away(self) -> None:
        """The token is gone."""
        self.tokens.rename(self.tokens.with_name("elsewhere"))

    def back(self) -> None:
        """The token is there again."""
        self.tokens.with_name("elsewhere").rename(self.tokens)

    def toml(self) -> str:
        """The configuration of an encryptor that uses it."""
        return (
            "[encryptor.pkcs11]\n"
            f'module = "{MODULE}"\ntoken = "{TOKEN}"\npin_file = "{self.pin_file}"\n'
        )
