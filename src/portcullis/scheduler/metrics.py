"""What Prometheus reads of the scheduler."""

from prometheus_client import Counter, Gauge

LEADING = Gauge("portcullis_scheduler_leading", "1 while this process holds the lease")
JOBS = Counter("portcullis_scheduler_jobs", "Runs of a job, by result", ["job", "result"])
LAST_RUN = Gauge("portcullis_scheduler_last_success_seconds", "When a job last ended well", ["job"])
DONE = Counter("portcullis_scheduler_done", "What was done, by kind", ["what"])
