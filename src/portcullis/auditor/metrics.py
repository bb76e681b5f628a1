"""What Prometheus reads of the auditor."""

from portcullis.runtime.metrics import counter, gauge

RECORDS = counter("portcullis_auditor_records_total", "Records written into chains", "type")
HEADS = counter("portcullis_auditor_heads_total", "Heads signed")
ANCHORED = counter("portcullis_auditor_anchored_total", "Heads laid down", "result")
LAST_PASS = gauge(
    "portcullis_auditor_last_success_timestamp_seconds", "When all chains were last followed"
)
WENT_BACK = gauge(
    "portcullis_auditor_chains_gone_back", "Chains whose numbers in the database went back"
)
