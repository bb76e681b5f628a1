"""The dashboards, as code: `make docs` writes deploy/grafana/dashboards/*.json.

A panel is a line: title, unit, and its queries, each with what its legend says.
"""

from pathlib import Path
from string import ascii_uppercase
from typing import NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableHide

HERE = Path(__file__).parent
_SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
_HEIGHT = 8  # of a row; a row is 24 wide
_LINK = '"$stream"'


class Panel(NamedTuple):
    """`queries`: expression → legend. `unit`: as Grafana names it."""

    title: str
    unit: str
    queries: dict[str, str]
    span: int = 8


DASHBOARDS: dict[str, tuple[str, list[Panel]]] = {
    "orders": (
        "Portcullis: from order to air",
        [
            Panel(
                "Orders",
                "reqps",
                {"kind_outcome:portcullis_gateway_orders:rate5m": "{{kind}} {{outcome}}"},
            ),
            Panel(
                "Requests of the SMS that fail",
                "percentunit",
                {"portcullis:gateway_errors:ratio5m": "unavailable or error"},
            ),
            Panel(
                "Answer, p99",
                "s",
                {
                    "portcullis:gateway_answer_seconds:p99_5m": "all",
                    "histogram_quantile(0.99, sum by (call, le) "
                    "(rate(portcullis_gateway_answer_seconds_bucket[$__rate_interval])))": (
                        "{{call}}"
                    ),
                },
            ),
            Panel(
                "Order to air",
                "s",
                {
                    "stream:portcullis_cycler_order_to_air_seconds:p50_5m": "p50 {{stream}}",
                    "stream:portcullis_cycler_order_to_air_seconds:p99_5m": "p99 {{stream}}",
                },
            ),
            Panel(
                "Waiting to be encrypted",
                "short",
                {"cause:portcullis_scheduler_waiting_devices:max": "{{cause}}"},
            ),
            Panel(
                "Oldest order not encrypted",
                "s",
                {"portcullis:oldest_order_seconds:max": "oldest"},
            ),
            Panel(
                "EMMs encrypted",
                "ops",
                {
                    "sum by (instance) "
                    "(rate(portcullis_encryptor_sealed_total[$__rate_interval]))": ("{{instance}}")
                },
            ),
            Panel(
                "A call to the encryptor, p99",
                "s",
                {
                    "histogram_quantile(0.99, sum by (call, le) "
                    "(rate(portcullis_encryptor_call_seconds_bucket[$__rate_interval])))": (
                        "{{call}}"
                    )
                },
            ),
            Panel(
                "Sealed for the carousel",
                "ops",
                {"cause:portcullis_emmg_sealed:rate5m": "{{cause}}"},
            ),
            Panel(
                "Waiting in the gateways",
                "short",
                {"portcullis_gateway_waiting_orders": "{{instance}}"},
            ),
            Panel(
                "Orders in one transaction",
                "short",
                {
                    "sum(rate(portcullis_gateway_orders_total[$__rate_interval])) "
                    "/ (sum(rate(portcullis_gateway_groups_total[$__rate_interval])) > 0)": "mean"
                },
            ),
            Panel(
                "Devices given up",
                "short",
                {"max(portcullis_scheduler_failed_devices)": "failed"},
            ),
        ],
    ),
    "air": (
        "Portcullis: on air",
        [
            Panel(
                "Bandwidth",
                "Bps",
                {
                    "max by (stream) (portcullis_cycler_bandwidth_asked_bytes_per_second"
                    f"{{stream=~{_LINK}}})": "asked {{stream}}",
                    "max by (stream) (portcullis_cycler_bandwidth_allocated_bytes_per_second"
                    f"{{stream=~{_LINK}}})": "allocated {{stream}}",
                    f"stream:portcullis_cycler_aired_bytes:rate1m{{stream=~{_LINK}}}": (
                        "used {{stream}}"
                    ),
                },
                12,
            ),
            Panel(
                "Bandwidth used",
                "percentunit",
                {
                    f"stream:portcullis_cycler_bandwidth_used:ratio1m{{stream=~{_LINK}}}": (
                        "{{stream}}"
                    )
                },
                12,
            ),
            Panel(
                "Stretch of each class",
                "short",
                {
                    "max by (stream, class) "
                    f"(portcullis_cycler_class_stretch_ratio{{stream=~{_LINK}}})": (
                        "{{stream}} {{class}}"
                    )
                },
            ),
            Panel(
                "Cycle of each class",
                "s",
                {
                    "max by (stream, class) "
                    f"(portcullis_cycler_class_cycle_seconds{{stream=~{_LINK}}})": (
                        "{{stream}} {{class}}"
                    )
                },
            ),
            Panel(
                "EMMs in each class",
                "short",
                {
                    f"max by (stream, class) (portcullis_cycler_class_emms{{stream=~{_LINK}}})": (
                        "{{stream}} {{class}}"
                    )
                },
            ),
            Panel(
                "EMMs aired",
                "ops",
                {
                    "sum by (stream, class) (rate(portcullis_cycler_class_aired_emms_total"
                    f"{{stream=~{_LINK}}}[$__rate_interval]))": "{{stream}} {{class}}"
                },
            ),
            Panel(
                "Awaiting their first airing",
                "short",
                {f"portcullis_cycler_first_waiting{{stream=~{_LINK}}}": "{{stream}} {{instance}}"},
            ),
            Panel(
                "Link to the multiplexer",
                "short",
                {
                    f"portcullis_cycler_link{{stream=~{_LINK}}} == 1": (
                        "{{stream}} {{instance}} {{state}}"
                    )
                },
            ),
            Panel(
                "Who airs",
                "short",
                {f"portcullis_cycler_holds_lease{{stream=~{_LINK}}}": "{{stream}} {{instance}}"},
            ),
            Panel(
                "Age of the feed",
                "s",
                {"portcullis_cycler_feed_age_seconds": "{{instance}}"},
            ),
            Panel(
                "As-run log",
                "short",
                {
                    "increase(portcullis_cycler_asrun_errors_total[$__rate_interval])": (
                        "errors {{stream}}"
                    ),
                    "increase(portcullis_cycler_asrun_lost_records_total[$__rate_interval])": (
                        "lost {{stream}}"
                    ),
                },
            ),
            Panel(
                "Multiplexer: packets waiting, refused",
                "short",
                {
                    "portcullis_mux_queued_packets": "waiting {{client_id}} {{data_id}}",
                    "rate(portcullis_mux_refused_packets_total[$__rate_interval])": (
                        "refused/s {{client_id}} {{data_id}}"
                    ),
                },
            ),
        ],
    ),
    "keys": (
        "Portcullis: keys and jobs",
        [
            Panel(
                "Epoch on air, epoch given to boxes",
                "short",
                {
                    "max by (product_id) (portcullis_scheduler_key_live_epoch)": (
                        "live {{product_id}}"
                    ),
                    "max by (product_id) (portcullis_scheduler_key_seal_epoch)": (
                        "given {{product_id}}"
                    ),
                },
                12,
            ),
            Panel(
                "Age of the key on air",
                "s",
                {
                    "time() - max by (product_id) "
                    "(portcullis_scheduler_key_live_since_timestamp_seconds)": "{{product_id}}",
                    "max(portcullis_scheduler_key_period_seconds)": "changes at",
                },
                12,
            ),
            Panel(
                "Re-key: devices waiting",
                "short",
                {'cause:portcullis_scheduler_waiting_devices:max{cause="rekey"}': "waiting"},
            ),
            Panel(
                "Devices marked to be sealed anew",
                "ops",
                {
                    "sum by (cause) "
                    "(rate(portcullis_scheduler_marked_devices_total[$__rate_interval]))": (
                        "{{cause}}"
                    )
                },
            ),
            Panel(
                "Refused by the encryptor",
                "short",
                {"sum by (code) (portcullis_encryptor_refused_total)": "{{code}}"},
            ),
            Panel(
                "Leader",
                "short",
                {"portcullis_scheduler_leading": "{{instance}}"},
            ),
            Panel(
                "Jobs",
                "ops",
                {
                    "sum by (task, result) "
                    "(rate(portcullis_scheduler_jobs_total[$__rate_interval]))": (
                        "{{task}} {{result}}"
                    )
                },
            ),
            Panel(
                "Since a job last ended well",
                "s",
                {
                    "time() - max by (task) "
                    "(portcullis_scheduler_last_success_timestamp_seconds)": "{{task}}"
                },
            ),
            Panel(
                "Purged",
                "ops",
                {
                    "sum by (what) "
                    "(rate(portcullis_scheduler_purged_rows_total[$__rate_interval]))": ("{{what}}")
                },
            ),
        ],
    ),
    "underneath": (
        "Portcullis: services and what they stand on",
        [
            Panel("Up", "short", {'up{job=~"portcullis-.+"}': "{{job}} {{instance}}"}),
            Panel(
                "Releases",
                "short",
                {"sum by (job, version) (portcullis_build_info)": "{{job}} {{version}}"},
            ),
            Panel(
                "Errors and warnings logged",
                "short",
                {
                    "sum by (job, level) (increase(portcullis_log_messages_total"
                    '{level=~"warning|error|critical"}[$__rate_interval]))': "{{job}} {{level}}"
                },
            ),
            Panel(
                "CPU",
                "percentunit",
                {
                    "sum by (job, instance) "
                    '(rate(process_cpu_seconds_total{job=~"portcullis-.+"}[$__rate_interval]))': (
                        "{{job}} {{instance}}"
                    )
                },
            ),
            Panel(
                "Memory",
                "bytes",
                {'process_resident_memory_bytes{job=~"portcullis-.+"}': "{{job}} {{instance}}"},
            ),
            Panel(
                "Open files",
                "short",
                {'process_open_fds{job=~"portcullis-.+"}': "{{job}} {{instance}}"},
            ),
            Panel("Database servers", "short", {"mysql_up": "{{instance}}"}),
            Panel(
                "Replicas behind",
                "s",
                {"mysql_slave_status_seconds_behind_master": "{{instance}}"},
            ),
            Panel(
                "Replicas that acknowledge",
                "short",
                {
                    "mysql_global_status_rpl_semi_sync_master_clients and on (instance) "
                    "mysql_global_variables_rpl_semi_sync_master_enabled == 1": "{{instance}}"
                },
            ),
            Panel(
                "Commits",
                "ops",
                {
                    "rate(mysql_global_status_commands_total"
                    '{command="commit"}[$__rate_interval])': "{{instance}}"
                },
            ),
            Panel(
                "Disks: free",
                "percentunit",
                {
                    'node_filesystem_avail_bytes{fstype!~"tmpfs|ramfs|squashfs|overlay"} '
                    "/ node_filesystem_size_bytes": "{{instance}} {{mountpoint}}"
                },
            ),
            Panel(
                "Certificates end in",
                "s",
                {"probe_ssl_earliest_cert_expiry - time()": "{{instance}}"},
            ),
        ],
    ),
}


def _panel(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .title(panel.title)
        .unit(panel.unit)
        .datasource(_SOURCE)
        .min(0)
        .legend(common.VizLegendOptions().show_legend(show_legend=True))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .span(panel.span)
        .height(_HEIGHT)
    )
    for letter, (expression, legend) in zip(ascii_uppercase, panel.queries.items(), strict=False):
        made = made.with_target(
            prometheus.Dataquery().ref_id(letter).expr(expression).legend_format(legend)
        )
    return made


def document(uid: str, title: str, panels: list[Panel]) -> str:
    """A dashboard as Grafana reads it."""
    made = (
        dashboard.Dashboard(title)
        .uid(f"portcullis-{uid}")
        .tags(["portcullis"])
        .time("now-6h", "now")
        .refresh("30s")
        .readonly()
        .with_variable(
            dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus")
        )
        .with_variable(
            dashboard.QueryVariable("stream")
            .label("Stream")
            .hide(VariableHide.DONT_HIDE if uid == "air" else VariableHide.HIDE_VARIABLE)
            .datasource(_SOURCE)
            .query("label_values(portcullis_cycler_link, stream)")
            .include_all(include_all=True)
            .multi(multi=True)
        )
    )
    for panel in panels:
        made = made.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=1).encode(made.build()) + "\n"


def main() -> None:
    """Write every dashboard."""
    for uid, (title, panels) in DASHBOARDS.items():
        (HERE / "dashboards" / f"{uid}.json").write_text(document(uid, title, panels))


if __name__ == "__main__":
    main()
