"""What Prometheus reads of the EMMG."""

from portcullis.runtime.metrics import counter, gauge, histogram

SEALED = counter("portcullis_emmg_sealed_total", "EMM sets written for the carousel", "cause")
REFUSED = counter(
    "portcullis_emmg_refused_total", "Tries at a device that the encryptor refused to seal"
)
FAULTS = counter("portcullis_emmg_faults_total", "Batches lost to a fault, by whose", "part")
BATCH_S = histogram(
    "portcullis_emmg_batch_seconds",
    "A batch, from claim to commit",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
CLOCK_DIFFERENCE = gauge(
    "portcullis_emmg_clock_difference_seconds",
    "Largest difference between the clocks of database, encryptor and EMMG",
)
