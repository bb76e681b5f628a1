"""A thief with a dump of the database, every log and the air: nothing of it opens an EMM."""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Engine, select

from portcullis.keys.custody import KeyLabel, Purpose
from portcullis.store.schema import keys, metadata
from stbsim.emm import Header, derive_kek, open_part, unwrap_dek
from stbsim.errors import IgnoredError

CA_SYSTEM_ID = 0xFFF0
KEY_BYTES = (16, 24, 32)
_WRAPPED_END, _NONCE = 40, 12
_HEX = re.compile(rb"[0-9A-Fa-f]{32,}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{22,}={0,2}")


def dump(engine: Engine) -> list[bytes]:
    """Every value of every table."""
    values: list[bytes] = []
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(select(table)):
                values += [_bytes(value) for value in row if value is not None]
    return values


def _bytes(value: Any) -> bytes:  # noqa: ANN401 (whatever a column holds)
    return value if isinstance(value, bytes) else str(value).encode()


def candidates(material: Iterable[bytes]) -> set[bytes]:
    """Whatever may be a key: each run of 16, 24 or 32 bytes, also behind hex and base64."""
    found: set[bytes] = set()
    for value in material:
        decoded = [bytes.fromhex(run[: len(run) // 2 * 2].decode()) for run in _HEX.findall(value)]
        decoded += [plain for run in _BASE64.findall(value) if (plain := _unbase64(run))]
        # A log is text, and keys in text are encoded; a short value may be a key itself.
        runs = [*decoded, value] if len(value) <= 1024 else decoded
        for run in runs:
            for size in KEY_BYTES:
                found |= {run[at : at + size] for at in range(len(run) - size + 1)}
    return found


def _unbase64(run: bytes) -> bytes | None:
    try:
        return base64.b64decode(run + b"=" * (-len(run) % 4), altchars=b"-_")
    except binascii.Error:
        return None


def opened(engine: Engine, sections: Sequence[bytes], tried: Iterable[bytes]) -> Iterator[str]:
    """What these keys open: EMMs as device key, KEK or DEK; rows of `keys` as master."""
    with engine.connect() as connection:
        rows = connection.execute(select(keys).limit(4)).all()
    sealed = [(row.sealed_key, _label(row).to_bytes()) for row in rows]
    headers = [(section, Header.of(section)) for section in sections]
    for key in tried:
        for section, header in headers:
            yield from _emm(section, header, key)
        if len(key) == 32:
            for blob, label in sealed:
                try:
                    AESGCM(key).decrypt(blob[:_NONCE], blob[_NONCE:], label)
                except InvalidTag:
                    continue
                yield "a sealed key, as its master"


def _label(row: Any) -> KeyLabel:  # noqa: ANN401 (a row)
    purpose = Purpose[row.purpose.upper()]
    return KeyLabel(purpose, row.owner, row.first_epoch, row.last_epoch, row.master_id)


def _emm(section: bytes, header: Header, key: bytes) -> Iterator[str]:
    kek = derive_kek(key, CA_SYSTEM_ID, header.address, header.epoch)
    for what, wrapping in (("device key", kek), ("KEK", key)):
        try:
            open_part(section, header, unwrap_dek(section, wrapping))
        except IgnoredError:
            continue
        yield f"an EMM of {header.address}, as its {what}"
    if len(key) == 16:
        try:
            open_part(section, header, AESGCM(key))
        except IgnoredError:
            return
        yield f"an EMM of {header.address}, as its DEK"


def first_parts(engine: Engine, limit: int) -> list[bytes]:
    """Sections that carry a wrapped DEK, newest first."""
    emms = metadata.tables["emms"]
    with engine.connect() as connection:
        statement = select(emms.c.section).where(emms.c.part == 1).order_by(emms.c.revision.desc())
        return list(connection.execute(statement.limit(limit)).scalars())


def files_of(home: Path, *, but: Sequence[str]) -> list[bytes]:
    """Every file below a directory, but for those whose path has one of these parts."""
    return [
        path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_file() and not set(path.relative_to(home).parts) & set(but)
    ]
