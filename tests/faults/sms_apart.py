"""An SMS in a process of its own: a thousand boxes in the test's would leave it no time.

    python -m tests.faults.sms_apart    an order on standard input: what `Sms` is given, as JSON

It orders until standard input ends, and then says what came of it.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.faults.sms import Access, Sms


@dataclass
class Apart:
    """What came of it, once it has ended."""

    answered: int = 0
    failed_tries: int = 0
    surprises: list[str] = field(default_factory=list)


@contextmanager
def sms_apart(
    access: Access,
    ledger: Path,
    device_ids: Sequence[str],
    *,
    seed: int,
    pause_s: float,
    batches: float,
    boxes_a_batch: int,
) -> Iterator[Apart]:
    """Orders for boxes, as `Sms` gives them; at the end all of them answered."""
    given = {
        "access": asdict(access) | {"certificate": str(access.certificate)},
        "ledger": str(ledger),
        "device_ids": list(device_ids),
        "seed": seed,
        "pause_s": pause_s,
        "batches": batches,
        "boxes_a_batch": boxes_a_batch,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.sms_apart"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    apart = Apart()
    try:
        process.stdin.write(json.dumps(given) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ordering\n"
        yield apart
        said, _ = process.communicate()
        assert process.returncode == 0
        vars(apart).update(json.loads(said))
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Order until standard input ends."""
    given = json.loads(sys.stdin.readline())
    access = Access(**given["access"] | {"certificate": Path(given["access"]["certificate"])})
    sms = Sms(
        access,
        Path(given["ledger"]),
        given["device_ids"],
        seed=given["seed"],
        run="apart",
        pause_s=given["pause_s"],
        batches=given["batches"],
        boxes_a_batch=given["boxes_a_batch"],
    )
    with sms:
        sys.stdout.write("ordering\n")
        sys.stdout.flush()
        sys.stdin.read()
    failed = sms.failed_tries.total()
    sys.stdout.write(json.dumps(asdict(Apart(sms.answered, failed, sms.surprises))))


if __name__ == "__main__":
    main()
