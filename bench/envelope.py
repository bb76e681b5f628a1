"""`envelope`: sealed EMMs per core-second, beside what OpenSSL's own loop does of it, and Tink.

The clock of a core changes from one second to the next, by half and more. So each round has a
ratio of its own, to what was measured around the same time: Tink and we take turns of some 0.1 s,
and we are measured before and between the two runs of `openssl speed`, which take a second each.
"""

import os
import re
import subprocess
from collections.abc import Callable, Mapping

import numpy as np
import tink
from tink import aead

from bench.measure import Round, cpu_s, median_ratio, medians
from bench.result import Criterion, Result
from portcullis.emm import DEK_BYTES, EmmColumns, Kind, seal_columns

_BATCH = 500
_BATCHES = 20  # a turn; after a few, the caches are one's own
_TURNS = 3
_ROUNDS = 13
_PACKET_PAYLOAD = 127  # the most that one packet carries; 16 bytes of header are authenticated
_ASKED_PAYLOAD = 150

_Batch = Callable[[], object]


def _openssl_s(*options: str) -> float:
    """CPU seconds of one operation by `openssl speed`."""
    size = int(options[options.index("-bytes") + 1])
    run = subprocess.run(
        ["openssl", "speed", "-seconds", "1", *options], capture_output=True, text=True, check=True
    )
    rate = re.search(r"([\d.]+)k\s*$", run.stdout)
    assert rate is not None, run.stdout
    return size / (float(rate[1]) * 1000)


def _gcm_s() -> float:
    return _openssl_s("-aead", "-bytes", str(_PACKET_PAYLOAD), "-evp", "aes-128-gcm")


def _wrap_s() -> float:
    return _openssl_s("-bytes", "16", "-evp", "id-aes256-wrap")


def _ours(payload_bytes: int) -> _Batch:
    """Our batch path: every set under another box's KEK, a fresh DEK each."""
    emms = EmmColumns(
        keks=[os.urandom(32) for _ in range(_BATCH)],
        addresses=np.arange(1, _BATCH + 1),
        kinds=np.full(_BATCH, Kind.STATE),
        epochs=np.zeros(_BATCH, np.int64),
        numbers=np.full(_BATCH, 1_800_000_000),
        payloads=[os.urandom(payload_bytes) for _ in range(_BATCH)],
    )
    return lambda: seal_columns(emms, os.urandom(DEK_BYTES * _BATCH))


def _tink() -> _Batch:
    """Tink's local envelope: a fresh AES-128-GCM DEK, sealed by a remote AEAD that is local."""
    aead.register()
    remote = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM).primitive(aead.Aead)
    envelope = aead.KmsEnvelopeAead(aead.aead_key_templates.AES128_GCM, remote)
    payload, associated = os.urandom(_PACKET_PAYLOAD), os.urandom(16)

    def batch() -> None:
        for _ in range(_BATCH):
            envelope.encrypt(payload, associated)

    return batch


def _in_turns(batches: Mapping[str, _Batch]) -> Round:
    """CPU seconds of one envelope of each."""
    spent = dict.fromkeys(batches, 0.0)
    for _ in range(_TURNS):
        for name, batch in batches.items():
            begun = cpu_s()
            for _ in range(_BATCHES):
                batch()
            spent[name] += cpu_s() - begun
    return {name: cpu / (_TURNS * _BATCHES * _BATCH) for name, cpu in spent.items()}


def _measure(batches: Mapping[str, _Batch]) -> Round:
    """CPU seconds of one envelope of each, around the runs of OpenSSL, and of those: `limit`."""
    before, gcm_s = _in_turns(batches), _gcm_s()
    between, wrap_s = _in_turns(batches), _wrap_s()
    return {name: (before[name] + between[name]) / 2 for name in batches} | {
        "limit": gcm_s + wrap_s
    }


def run() -> Result:
    """Measure."""
    batches = {
        "ours": _ours(_PACKET_PAYLOAD),
        "two packets": _ours(_ASKED_PAYLOAD),
        "tink": _tink(),
    }
    rounds = [_measure(batches) for _ in range(_ROUNDS)]
    found = medians(rounds)
    return Result(
        "envelope",
        "`openssl speed`: GCM 128 over the payload + AES-256 key wrap; Tink KmsEnvelopeAead",
        [
            Criterion(
                "one-packet EMMs against openssl speed",
                median_ratio(rounds, lambda one: one["limit"] / one["ours"]),
                0.6,
                0.95,
            ),
            Criterion(
                "one-packet EMMs against Tink",
                median_ratio(rounds, lambda one: one["tink"] / one["ours"]),
                3,
                4,
            ),
        ],
        {
            "envelopes per core-second (payload 127, as of all)": round(1 / found["ours"]),
            "openssl speed limit per core-second": round(1 / found["limit"]),
            "Tink per core-second": round(1 / found["tink"]),
            "two-packet sets (payload 150) per core-second": round(1 / found["two packets"]),
        },
    )
