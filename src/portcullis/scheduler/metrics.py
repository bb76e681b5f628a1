"""What Prometheus reads of the scheduler."""

from collections.abc import Sequence

from portcullis.runtime.metrics import counter, gauge
from portcullis.store.rekey import Progress

LEADING = gauge("portcullis_scheduler_leading", "1 while this process holds the lease")
JOBS = counter("portcullis_scheduler_jobs_total", "Runs of a job, by result", "task", "result")
LAST_RUN = gauge(
    "portcullis_scheduler_last_success_timestamp_seconds", "When a job last ended well", "task"
)
KEY_STEPS = counter(
    "portcullis_scheduler_key_steps_total",
    "Steps in the lives of product keys: chain (made), prepared, switched",
    "step",
)
MARKED = counter(
    "portcullis_scheduler_marked_devices_total", "Devices marked to be sealed anew", "cause"
)
PURGED = counter(
    "portcullis_scheduler_purged_rows_total",
    "Rows taken off the air (ended, removed) or deleted (tombstone, over, old)",
    "what",
)
ARCHIVED = counter(
    "portcullis_scheduler_archived_requests_total", "Requests moved to files of the archive"
)
LEAD_NEEDED_S = gauge(
    "portcullis_scheduler_lead_needed_seconds",
    "How long a re-key of all boxes takes at present: to seal them, and to air them often enough",
)
REKEY_BOXES = gauge(
    "portcullis_scheduler_rekey_boxes",
    "Boxes of a rotation under way: entitled, marked, sealed, skipped (could not be sealed)",
    "product",
    "state",
)
REKEY_CYCLES = gauge(
    "portcullis_scheduler_rekey_cycles",
    "Full cycles of a rotation under way: aired since all boxes were sealed, and needed",
    "product",
    "state",
)
REKEY_END = gauge(
    "portcullis_scheduler_rekey_end_timestamp_seconds",
    "When a rotation under way is expected to switch",
    "product",
)


def tell_rotations(rotations: Sequence[Progress], cycles_needed: int) -> None:
    """Show the rotations under way, and none that are over."""
    for family in (REKEY_BOXES, REKEY_CYCLES, REKEY_END):
        family.clear()
    for one in rotations:
        if one.switched_at is not None:
            continue
        product = str(one.product_id)
        REKEY_BOXES.labels(product, "entitled").set(one.boxes)
        REKEY_BOXES.labels(product, "marked").set(one.marked)
        REKEY_BOXES.labels(product, "sealed").set(one.sealed)
        REKEY_BOXES.labels(product, "skipped").set(one.skipped)
        REKEY_CYCLES.labels(product, "aired").set(one.cycles_aired)
        REKEY_CYCLES.labels(product, "needed").set(cycles_needed)
        if one.ends_at is not None:
            REKEY_END.labels(product).set(one.ends_at.timestamp())
