"""`[encryptor]`."""

from pathlib import Path

from portcullis.encryptor.permits import AllowConfig
from portcullis.keys import (
    Custody,
    FileMasters,
    ImportKey,
    MasterStore,
    TokenMasters,
    init_masters,
)
from portcullis.runtime.config import ConfigError, ConfigSource, Section, read_secret
from portcullis.runtime.rpc.client import Addresses, each_address
from portcullis.runtime.tls import TlsConfig


class Pkcs11Config(Section, frozen=True):
    """`[encryptor.pkcs11]`: keep the masters in a PKCS#11 token instead of a file.

    module: the vendor's library.
    token: label of the token, which has been initialised.
    pin_file: file with the user PIN.
    """

    module: str
    token: str
    pin_file: str


class EncryptorConfig(Section, frozen=True):
    """Where the encryptor listens and keeps its master.

    listen: "unix:PATH" (mode 0600: this user may make every call), or "host:port" with `tls`; or
        a list of them.
    tls: this encryptor's certificate, for TCP; each peer must show one of the same CA.
    allow: which peers may make which calls over TCP.
    monitor: "host:port" of /metrics, /livez and /readyz.
    master_key_file: JSON, mode 0600; `portcullis keys init` makes it. Not used with `pkcs11`.
    pkcs11: the token that the masters are in.
    import_key_file: the key pair that vendors encrypt key files to, its private part sealed under
        the master; `import.json` beside the master key file, or beside the PIN file, if omitted.
    max_batch: the most items one call may carry; more is refused as a whole.
    """

    listen: Addresses = "unix:var/run/encryptor.sock"
    tls: TlsConfig | None = None
    allow: AllowConfig = AllowConfig()
    monitor: str = "127.0.0.1:9103"
    master_key_file: str = "var/keys/master.json"
    pkcs11: Pkcs11Config | None = None
    import_key_file: str | None = None
    max_batch: int = 1000

    @property
    def import_key_path(self) -> Path:
        """Where the import key is."""
        if self.import_key_file is not None:
            return Path(self.import_key_file)
        beside = self.master_key_file if self.pkcs11 is None else self.pkcs11.pin_file
        return Path(beside).with_name("import.json")

    @classmethod
    def of(cls, source: ConfigSource) -> "EncryptorConfig":
        """Read the section; raises ConfigError, also for TCP that has no certificate."""
        config = source.section("encryptor", cls)
        for listen in each_address(config.listen):
            if not listen.startswith("unix:") and config.tls is None:
                raise ConfigError(
                    f"encryptor.listen: {listen}: TCP needs [encryptor.tls]; on one host use"
                    " unix:PATH"
                )
        return config

    def masters(self) -> MasterStore:
        """The masters of the file or the token; raises KeyFileError or ConfigError."""
        if self.pkcs11 is None:
            return FileMasters(Path(self.master_key_file))
        return self._token(self.pkcs11)

    def init_keys(self, master_id: str) -> tuple[bool, ImportKey]:
        """Make the first master and the import key where there are none.

        Returns whether a master was made. Raises PortcullisError.
        """
        if self.pkcs11 is None:
            made = init_masters(Path(self.master_key_file), master_id)
        else:
            made = self._token(self.pkcs11).init(master_id)
        import_key = ImportKey(self.import_key_path, Custody(self.masters()))
        import_key.make()
        return made, import_key

    @staticmethod
    def _token(pkcs11: Pkcs11Config) -> TokenMasters:
        pin = read_secret(pkcs11.pin_file, "encryptor.pkcs11.pin_file")
        return TokenMasters(pkcs11.module, pkcs11.token, pin)
