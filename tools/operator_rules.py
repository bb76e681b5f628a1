"""Write the Prometheus operator's objects from what a bare Prometheus reads: `make docs`."""

import shutil
from pathlib import Path

import yaml

DEPLOY = Path("deploy")
COMPONENT = DEPLOY / "kubernetes" / "components" / "prometheus-operator"


def main() -> None:
    """Write rules.yaml and copy the dashboards (kustomize reads no file outside its folder)."""
    groups = [
        group
        for path in ("recording", "alerts")
        for group in yaml.safe_load((DEPLOY / f"prometheus/rules/{path}.yml").read_text())["groups"]
    ]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "portcullis", "namespace": "portcullis"},
        "spec": {"groups": groups},
    }
    text = "# Made from deploy/prometheus/rules by `make docs`.\n" + yaml.safe_dump(
        rule, sort_keys=False, width=110
    )
    (COMPONENT / "rules.yaml").write_text(text)
    (COMPONENT / "dashboards").mkdir(exist_ok=True)
    for dashboard in (DEPLOY / "grafana" / "dashboards").glob("*.json"):
        shutil.copy(dashboard, COMPONENT / "dashboards")


if __name__ == "__main__":
    main()
