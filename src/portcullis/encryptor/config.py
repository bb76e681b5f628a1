"""`[encryptor]`."""

from portcullis.runtime.config import Section


class EncryptorConfig(Section, frozen=True):
    """Where the encryptor listens and keeps its master.

    listen: "unix:PATH" (mode 0600), or "host:port" on loopback; device keys come in clear.
    monitor: "host:port" of /metrics, /livez and /readyz.
    master_key_file: JSON, mode 0600; `portcullis keys init` makes it.
    max_batch: the most items one call may carry; more is refused as a whole.
    """

    listen: str = "unix:var/run/encryptor.sock"
    monitor: str = "127.0.0.1:9103"
    master_key_file: str = "var/keys/master.json"
    max_batch: int = 1000
