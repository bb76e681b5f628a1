"""The manifests: valid, and arranged as docs/operations/kubernetes.md promises."""

import json
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from portcullis.cli.main import cli
from portcullis.cli.up import MONITORS
from tests.delivery.manifests import (
    BIN,
    KUBERNETES,
    OPERATOR_API,
    TARGETS,
    Object,
    objects,
    of_kind,
    pods,
)

HEAD_END = {"gateway", "emmg", "encryptor", "cycler"}
COMPONENT = "app.kubernetes.io/component"


@pytest.mark.parametrize("target", TARGETS)
def test_every_object_is_valid(target: str, tmp_path: Path) -> None:
    """By the schemas of Kubernetes, with no property that they do not know."""
    core = [one for one in objects(target) if not one["apiVersion"].startswith(OPERATOR_API)]
    file = tmp_path / "objects.yaml"
    file.write_text(yaml.safe_dump_all(core))
    done = subprocess.run(
        [BIN / "kubernetes-validate", "--strict", file], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_every_container_is_shut_in(target: str) -> None:
    """Non-root, read-only root, no capability, no token, bounded; probes where it serves."""
    for component, pod in pods(target).items():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} == set(container["resources"]["limits"])
            assert {"cpu", "memory"} == set(container["resources"]["requests"])
        if component != "migrate":
            [container] = pod["containers"]
            for probe in ("livenessProbe", "startupProbe"):
                assert container[probe]["httpGet"]["path"] == "/livez"
            assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


@pytest.mark.parametrize("target", TARGETS)
def test_the_services_start_on_their_configuration(target: str, tmp_path: Path) -> None:
    """`config check` takes every file, with the variables that the overlay sets."""
    maps = of_kind(target, "ConfigMap")
    for pod in pods(target).values():
        [container] = pod["containers"]
        [config] = [one for one in pod["volumes"] if one["name"] == "config"]
        data = maps[config["configMap"]["name"]]["data"]["portcullis.toml"]
        variables = {one["name"]: one.get("value", "0") for one in container.get("env", [])}
        variables |= {name: value.replace("$(POD_INDEX)", "0") for name, value in variables.items()}
        file = tmp_path / "portcullis.toml"
        file.write_text(data)
        checked = CliRunner().invoke(cli, ["config", "check", "--config", str(file)], env=variables)
        assert checked.exit_code == 0, checked.output or checked.exception
        room = container["args"][0]
        if room in MONITORS:
            port = tomllib.loads(data)[room]["monitor"].rpartition(":")[2]
            [monitor] = [one for one in container["ports"] if one["name"] == "monitor"]
            assert int(port) == monitor["containerPort"] == MONITORS[room]


@pytest.mark.parametrize("target", ["single-node", "production"])
def test_old_requests_are_archived_on_a_volume_that_stays(target: str) -> None:
    """Without a place they would stay in the database, with an alert."""
    data = of_kind(target, "ConfigMap")
    pod = pods(target)["scheduler"]
    [config] = [one for one in pod["volumes"] if one["name"] == "config"]
    text = data[config["configMap"]["name"]]["data"]["portcullis.toml"]
    directory = Path(tomllib.loads(text)["scheduler"]["archive_dir"])
    spec = of_kind(target, "StatefulSet")["scheduler"]["spec"]
    claims = {one["metadata"]["name"] for one in spec["volumeClaimTemplates"]}
    [container] = pod["containers"]
    mounts = {Path(one["mountPath"]) for one in container["volumeMounts"] if one["name"] in claims}
    assert mounts & set(directory.parents)


@pytest.mark.parametrize("target", TARGETS)
def test_secrets_are_only_named(target: str) -> None:
    assert of_kind(target, "Secret") == {}
    for pod in pods(target).values():
        for container in pod["containers"]:
            assert not [one for one in container.get("env", []) if "secretKeyRef" in str(one)]


def _selects(selector: Object, component: str) -> bool:
    labels = {COMPONENT: component, "app.kubernetes.io/part-of": "portcullis"}
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for one in selector.get("matchExpressions", []):
        is_in = labels.get(one["key"]) in one["values"]
        if is_in != (one["operator"] == "In"):
            return False
    return True


def _reaches(target: str, source: str, goal: str, port: str) -> bool:
    """Whether a pod may speak to another's port, by the policies that let it in."""
    for policy in of_kind(target, "NetworkPolicy").values():
        spec = policy["spec"]
        if not _selects(spec["podSelector"], goal):
            continue
        for rule in spec.get("ingress", []):
            ports = {str(one["port"]) for one in rule.get("ports", [])}
            if ports and port not in ports:
                continue
            for peer in rule.get("from", [{}]):
                if "namespaceSelector" not in peer and _selects(peer["podSelector"], source):
                    return True
    return False


@pytest.mark.parametrize("target", ["single-node", "production"])
def test_nothing_reaches_the_encryptor_but_emmg_and_scheduler(target: str) -> None:
    """And everything that is not allowed is denied, both ways."""
    policies = of_kind(target, "NetworkPolicy")
    deny = policies["default-deny"]["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    components = set(pods(target))
    allowed = {one for one in components if _reaches(target, one, "encryptor", "rpc")}
    assert allowed == {"emmg", "scheduler"}
    assert not any(_reaches(target, one, "encryptor", "9103") for one in components)
    assert not any(
        _selects(policy["spec"]["podSelector"], "encryptor") and policy["spec"].get("egress")
        for policy in policies.values()
    )


def test_in_production_the_head_end_stands_together_and_the_scheduler_apart() -> None:
    """One set a node of its role; never the scheduler beside it."""
    made = pods("production")
    for component in HEAD_END:
        assert made[component]["nodeSelector"] == {"portcullis.example/role": "headend"}
        [spread] = made[component]["topologySpreadConstraints"]
        assert spread["topologyKey"] == "kubernetes.io/hostname"
        assert spread["matchLabelKeys"] == [COMPONENT]
    scheduler = made["scheduler"]
    assert scheduler["nodeSelector"] == {"portcullis.example/role": "control"}
    [term] = scheduler["affinity"]["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    [expression] = term["labelSelector"]["matchExpressions"]
    assert set(expression["values"]) == HEAD_END
    budgets = of_kind("production", "PodDisruptionBudget")
    workloads = of_kind("production", "Deployment", "StatefulSet")
    for component in [*HEAD_END, "scheduler"]:
        assert workloads[component]["spec"]["replicas"] == 2
        assert budgets[component]["spec"]["maxUnavailable"] == 1


def test_what_the_operator_reads_is_what_a_bare_prometheus_reads() -> None:
    """`make docs` was run after the last change of a rule or a dashboard."""
    component = KUBERNETES / "components/prometheus-operator"
    groups = []
    for name in ("recording", "alerts"):
        groups += yaml.safe_load(Path(f"deploy/prometheus/rules/{name}.yml").read_text())["groups"]
    [rule] = of_kind("production", "PrometheusRule").values()
    assert rule["spec"]["groups"] == groups
    for dashboard in Path("deploy/grafana/dashboards").glob("*.json"):
        copied = component / "dashboards" / dashboard.name
        assert json.loads(copied.read_text()) == json.loads(dashboard.read_text())
    [monitor] = of_kind("production", "PodMonitor").values()
    assert [one["port"] for one in monitor["spec"]["podMetricsEndpoints"]] == ["monitor"]
