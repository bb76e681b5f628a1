"""What Prometheus reads of the gateway."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "portcullis_gateway_requests", "Requests answered, by call and outcome", ["call", "outcome"]
)
ANSWER_S = Histogram(
    "portcullis_gateway_answer_seconds",
    "From a request to its answer",
    ["call"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
WAITING = Gauge("portcullis_gateway_waiting_orders", "Orders that wait for the database")
GROUPS = Counter("portcullis_gateway_groups", "Transactions that orders were committed in")
GROUP_FAILURES = Counter(
    "portcullis_gateway_group_failures", "Groups of orders that could not be committed"
)
