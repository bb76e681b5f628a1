"""`[scheduler]`."""

from portcullis.runtime.config import Duration, Section


class SchedulerConfig(Section, frozen=True):
    """`[scheduler]`."""

    monitor: str = "127.0.0.1:9105"
    encryptor: str = "unix:var/run/encryptor.sock"
    chain_epochs: int = 64
