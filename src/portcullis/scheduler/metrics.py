"""What Prometheus reads of the scheduler."""

from portcullis.runtime.metrics import counter, gauge

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
