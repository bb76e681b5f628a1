"""The auditor's own key, changed: the old one signs the new one in, as its last head.

Who trusts any of the keys can verify all of the record: later ones are signed in by earlier ones,
and the heads that a key has signed hold the link of all that came before.
"""

from contextlib import closing
from datetime import datetime
from pathlib import Path

from portcullis.auditor.auditor import head_time, lock_directory
from portcullis.auditor.chainlog import ChainLog, Keeping
from portcullis.auditor.heads import HEADS, KEY_CHANGE, Signer, key_id, next_key_id
from portcullis.runtime.config import ConfigError
from portcullis.runtime.files import sync_directory


def change_key(directory: Path, key_file: Path, keeping: Keeping, now: datetime) -> Signer:
    """Make a new key, have it signed in, and put it in the old one's place, which is gone then.

    The auditor must be stopped. Interrupted, do it again: a change that is signed is not signed
    twice. Raises ConfigError where an auditor runs, nothing is signed, or the key is another.
    """
    next_file = key_file.with_name(key_file.name + ".next")
    with (
        lock_directory(directory),
        closing(ChainLog(directory, HEADS, keeping)) as log,
    ):
        if log.last is None:
            raise ConfigError(f"auditor.dir: {directory}: nothing is signed there yet")
        wanted, old = next_key_id(log.last.record), Signer.load(key_file)
        if wanted == key_id(old.public):
            new = Signer.load(next_file)
            change = {
                "from": old.public.public_bytes_raw().hex(),
                "to": new.public.public_bytes_raw().hex(),
            }
            statement = {
                "time": head_time(now),
                "chains": [],
                "at": log.last.record["head"]["at"],
                KEY_CHANGE: change,
            }
            log.append([old.record(log.seq + 1, log.link, statement)])
        elif not next_file.exists() or key_id((new := Signer.load(next_file)).public) != wanted:
            raise ConfigError(
                f"auditor.key_file: {key_file}: the record goes on with the key {wanted}, which is"
                " neither there nor beside it"
            )
        next_file.replace(key_file)
        sync_directory(key_file.parent)
    return new
