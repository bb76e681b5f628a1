"""What `portcullis keys init` does: apart from the service, so that commands load none of it."""

from pathlib import Path

from portcullis.encryptor.config import EncryptorConfig
from portcullis.keys import add_master


def init_master_key(config: EncryptorConfig, master_id: str) -> Path:
    """Make a master and put it first in the master key file; raises KeyFileError.

    What `portcullis keys init` and the first step of a change of master do; the encryptor
    reads the file when it starts.
    """
    path = Path(config.master_key_file)
    add_master(path, master_id)
    return path
