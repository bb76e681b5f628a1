"""What Prometheus reads of the gateway."""

from portcullis.runtime.metrics import counter, gauge, histogram

REQUESTS = counter(
    "portcullis_gateway_requests_total",
    "HTTP requests answered; outcome is ok, a problem's code, or error (a bug)",
    *("call", "outcome"),
)
ORDERS = counter(
    "portcullis_gateway_orders_total",
    "Orders, single and in batches; outcome is accepted, or the code of the refusal",
    *("kind", "outcome"),
)
ANSWER_S = histogram(
    "portcullis_gateway_answer_seconds",
    "From a request to its answer",
    "call",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
WAITING = gauge("portcullis_gateway_waiting_orders", "Orders that wait for the database")
GROUPS = counter("portcullis_gateway_groups_total", "Transactions that orders were committed in")
GROUP_FAILURES = counter(
    "portcullis_gateway_group_failures_total", "Groups of orders that could not be committed"
)
REQUEST_LOG_ERRORS = counter(
    "portcullis_gateway_request_log_errors_total", "Failed writes of the request log"
)
REQUEST_LOG_WAITING = gauge(
    "portcullis_gateway_request_log_waiting_lines",
    "Lines of the request log that wait for the disk to take them",
)
REQUEST_LOG_LOST = counter(
    "portcullis_gateway_request_log_lost_lines_total", "Lines missing from the request log"
)
