"""`envelope`: sealed EMMs per core-second, beside what OpenSSL's own loop does of it, and Tink."""

import os
import re
import subprocess
from collections.abc import Callable

import numpy as np
import tink
from tink import aead

from bench.measure import Measured, cpu_s, interleave
from bench.result import Criterion, Result
from portcullis.emm import DEK_BYTES, EmmColumns, Kind, seal_columns

_BATCH = 500
_BATCHES = 200
_ROUNDS = 9
_PACKET_PAYLOAD = 127  # the most that one packet carries; with the header 143 bytes through GCM
_ASKED_PAYLOAD = 150


def _openssl_s(*options: str) -> float:
    """CPU seconds of one operation by `openssl speed`."""
    size = int(options[options.index("-bytes") + 1])
    run = subprocess.run(
        ["openssl", "speed", "-seconds", "1", *options], capture_output=True, text=True, check=True
    )
    rate = re.search(r"([\d.]+)k\s*$", run.stdout)
    assert rate is not None, run.stdout
    return size / (float(rate[1]) * 1000)


def _limit() -> float:
    """CPU seconds of GCM over 150 bytes and a key wrap, in OpenSSL's own loop."""
    gcm = _openssl_s("-aead", "-bytes", str(_ASKED_PAYLOAD), "-evp", "aes-128-gcm")
    return gcm + _openssl_s("-bytes", "16", "-evp", "id-aes256-wrap")


def _ours(payload_bytes: int) -> Measured:
    """Our batch path: every set under another box's KEK, a fresh DEK each."""
    emms = EmmColumns(
        keks=[os.urandom(32) for _ in range(_BATCH)],
        addresses=np.arange(1, _BATCH + 1),
        kinds=np.full(_BATCH, Kind.STATE),
        epochs=np.zeros(_BATCH, np.int64),
        numbers=np.full(_BATCH, 1_800_000_000),
        payloads=[os.urandom(payload_bytes) for _ in range(_BATCH)],
    )
    return _per_item(lambda: seal_columns(emms, os.urandom(DEK_BYTES * _BATCH)))


def _tink() -> Measured:
    """Tink's local envelope: a fresh AES-128-GCM DEK, sealed by a remote AEAD that is local."""
    aead.register()
    remote = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM).primitive(aead.Aead)
    envelope = aead.KmsEnvelopeAead(aead.aead_key_templates.AES128_GCM, remote)
    payload, associated = os.urandom(_ASKED_PAYLOAD), os.urandom(16)

    def batch() -> None:
        for _ in range(_BATCH):
            envelope.encrypt(payload, associated)

    return _per_item(batch)


def _per_item(batch: Callable[[], object]) -> Measured:
    def measured() -> float:
        begun = cpu_s()
        for _ in range(_BATCHES):
            batch()
        return (cpu_s() - begun) / _BATCHES / _BATCH

    return measured


def run() -> Result:
    """Measure."""
    found = interleave(
        {
            "limit": _limit,
            "ours": _ours(_PACKET_PAYLOAD),
            "ours150": _ours(_ASKED_PAYLOAD),
            "tink": _tink(),
        },
        _ROUNDS,
    )
    return Result(
        "envelope",
        "`openssl speed`: GCM 128 over 150 bytes + AES-256 key wrap; Tink KmsEnvelopeAead",
        [
            Criterion(
                "one-packet EMMs against openssl speed", found["limit"] / found["ours"], 0.6, 0.95
            ),
            Criterion("one-packet EMMs against Tink", found["tink"] / found["ours"], 3, 4),
        ],
        {
            "envelopes per core-second": round(1 / found["ours"]),
            "openssl speed limit per core-second": round(1 / found["limit"]),
            "Tink per core-second": round(1 / found["tink"]),
            "two-packet sets (payload 150) per core-second": round(1 / found["ours150"]),
        },
    )
