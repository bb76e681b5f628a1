"""Follows the chains, signs their heads, anchors them: one step of each at a time."""

import fcntl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Engine

from portcullis.auditor import metrics
from portcullis.auditor.anchors import Anchor, Head
from portcullis.auditor.chainlog import ChainLog, Keeping
from portcullis.auditor.heads import (
    HEADS,
    KEY_CHANGE,
    Signer,
    key_id,
    next_key_id,
    public_pem,
)
from portcullis.runtime.chain import root_of
from portcullis.runtime.config import ConfigError
from portcullis.runtime.files import write_durably
from portcullis.runtime.logging import get_logger
from portcullis.store.evidence import MISSING, Chain, lowest_number, read_chains, read_records

CHUNK = 1000
CHUNKS_IN_A_PASS = 100
PUBLIC_KEY = "public-key.pem"

log = get_logger("portcullis.auditor")


class Auditor:
    """Keeps the evidence of one database in one directory.

    Attributes:
        trouble: what is wrong, by its name; empty when all is well.
    """

    def __init__(
        self,
        engine: Engine,
        directory: Path,
        signer: Signer,
        anchors: Sequence[Anchor] = (),
        *,
        keeping: Keeping = Keeping(),  # noqa: B008 (never changed)
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Raises ConfigError where another keeps the same directory, or the key is another."""
        self.trouble: dict[str, str] = {}
        self._engine = engine
        self._directory = directory
        self._signer = signer
        self._anchors = anchors
        self._keeping = keeping
        self._now = now
        self._lock = lock_directory(directory)
        self._logs: dict[str, ChainLog] = {}
        self._pending: dict[str, list[bytes]] = {}  # leaves beyond what is signed
        self._anchored: dict[int, int] = {}
        self._open_heads()
        last = self._heads.last
        if last is not None and next_key_id(last.record) != key_id(signer.public):
            self.close()
            raise ConfigError(
                f"auditor.key_file: the record in {directory} goes on with the key"
                f" {next_key_id(last.record)}, not with {key_id(signer.public)}:"
                " `portcullis audit rotate-key` changes it, and ends a change that was interrupted"
            )
        write_durably(directory / PUBLIC_KEY, public_pem(signer.public), mode=0o644)

    def _open_heads(self) -> None:
        self._heads = ChainLog(self._directory, HEADS, self._keeping)
        last = {} if self._heads.last is None else self._heads.last.record["head"]
        self._signed: dict[str, int] = dict(last.get("at", {}))
        self._is_new_key = KEY_CHANGE in last
        for name in list(self._logs):  # their leaves are counted from what is signed
            self._logs.pop(name).close()

    def follow(self) -> int:
        """Write what has been committed since; returns how many records."""
        chains = read_chains(self._engine)
        count = sum(self._follow(chain) for chain in chains)
        back = [chain.name for chain in chains if self._logs[chain.name].seq > chain.seq]
        metrics.WENT_BACK.set(len(back))
        if back:
            self.trouble["back"] = (
                f"the database's numbers went back ({', '.join(back)}): was it restored?"
            )
        else:
            self.trouble.pop("back", None)
        metrics.LAST_PASS.set(self._now().timestamp())
        return count

    def _follow(self, chain: Chain) -> int:
        if (found := self._logs.get(chain.name)) is None:
            found = self._logs[chain.name] = self._open(chain)
        begun_with = found.seq
        for _ in range(CHUNKS_IN_A_PASS):  # then what there is may be signed
            if found.seq >= chain.seq:
                break
            last = min(found.seq + CHUNK, chain.seq)
            records = read_records(self._engine, chain, found.seq + 1, last)
            if missing := records.count(MISSING):
                log.error("committed rows are missing", chain=chain.name, rows=missing)
            metrics.RECORDS.labels("missing").inc(missing)
            metrics.RECORDS.labels(chain.table.name).inc(len(records) - missing)
            first = found.seq + 1
            try:
                leaves = found.append(records)
            except OSError:
                del self._logs[chain.name]
                raise
            unsigned = max(0, self._signed.get(chain.name, 0) - first + 1)
            self._pending[chain.name] += leaves[unsigned:]
        return max(0, found.seq - begun_with)

    def _open(self, chain: Chain) -> ChainLog:
        opened = ChainLog(self._directory, chain.name, self._keeping)
        if opened.cut_off:
            log.warning("a torn line was cut off", chain=chain.name, bytes=opened.cut_off)
        if not opened.is_begun:
            lowest = lowest_number(self._engine, chain)
            if lowest is not None and chain.name not in self._signed:
                opened.begin_at(lowest)
                self._signed[chain.name] = lowest - 1
        signed = self._signed.setdefault(chain.name, 0)
        if opened.seq < signed:
            log.warning("the log ends before its signed head", chain=chain.name, signed=signed)
        self._pending[chain.name] = opened.leaves_after(signed)
        return opened

    def sign(self) -> bool:
        """Sign how far the chains have come, where any has; returns whether there was need to.

        A new key signs at once: from then on it vouches for the heads before it.
        """
        grown = {name: self._pending[name] for name in self._logs if self._pending[name]}
        if not grown and not self._is_new_key:
            return False
        signed = dict(self._signed)
        heads = []
        for name, leaves in grown.items():
            signed[name] += len(leaves)
            heads.append(
                {
                    "chain": name,
                    "from": self._signed[name] + 1,
                    "to": signed[name],
                    "link": self._logs[name].link.hex(),
                    "root": root_of(leaves).hex(),
                }
            )
        statement = {"time": head_time(self._now()), "chains": heads, "at": signed}
        record = self._signer.record(self._heads.seq + 1, self._heads.link, statement)
        try:
            self._heads.append([record])
        except OSError:
            self._open_heads()
            raise
        for name in grown:
            self._pending[name] = []
        self._signed = signed
        self._is_new_key = False
        metrics.HEADS.inc()
        return True

    def anchor(self) -> None:
        """Lay the newest head down wherever it is not yet."""
        last = self._heads.last
        if last is None:
            return
        newest = Head(last.seq, last.encode())
        for place, lay_down in enumerate(self._anchors):
            if self._anchored.get(place) == newest.seq:
                continue
            try:
                lay_down(newest)
            except OSError as error:
                metrics.ANCHORED.labels("failed").inc()
                self.trouble[f"anchor {place}"] = f"anchor {place + 1}: {error}"
                log.warning("head not anchored", anchor=place + 1, error=str(error))
            else:
                metrics.ANCHORED.labels("done").inc()
                self._anchored[place] = newest.seq
                self.trouble.pop(f"anchor {place}", None)

    def close(self) -> None:
        """Close every file."""
        for opened in (self._heads, *self._logs.values()):
            opened.close()
        self._lock.close()


def head_time(moment: datetime) -> str:
    """As a head says when it was signed."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def lock_directory(directory: Path) -> BinaryIO:
    """Keep every other auditor out until it is closed; raises ConfigError if one is in."""
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    lock = (directory / "lock").open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise ConfigError(f"auditor.dir: another auditor keeps {directory}") from error
    return lock
