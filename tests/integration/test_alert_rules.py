"""The rules, the routes and the runbooks, by the tools that an operator uses."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from portcullis.cli.services import ROOMS
from portcullis.cli.up import MONITORS
from portcullis.runtime.metrics import DECLARED
from tests.typed import check_portcullis, stages

PROMETHEUS = Path("deploy/prometheus")
ALERTMANAGER = Path("deploy/alertmanager/alertmanager.yml")
RUNBOOKS = Path("docs/operations/runbooks")
PAGES = sorted(RUNBOOKS.glob("*.md"))


def run(*command: str | Path) -> str:
    """Run a checker; its output where it is content."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> Iterator[dict[str, Any]]:
    """Every rule of every group."""
    for path in sorted((PROMETHEUS / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def declared() -> dict[str, set[str]]:
    """Each series that a service exposes, with its labels."""
    for room in ROOMS:
        import_module(f"portcullis.{room}.main")
    series = {}
    for one in DECLARED:
        series[one.name] = set(one.labels)
        if one.kind == "histogram":
            for end in ("bucket", "sum", "count"):
                series[f"{one.name}_{end}"] = {*one.labels, "le"}
    return series


def test_promtool_accepts_configuration_and_rules() -> None:
    """As an operator copies them."""
    run("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
    run("promtool", "check", "rules", *(PROMETHEUS / "rules").glob("*.yml"))


def test_each_alert_fires_when_it_should() -> None:
    """Promtool plays series to the rules; every alert is awaited at least once."""
    suites = sorted((PROMETHEUS / "tests").glob("*.yml"))
    run("promtool", "test", "rules", *suites)
    awaited = "".join(path.read_text() for path in suites)
    for alert in ALERTS:
        assert f'ALERTS{{alertname="{alert}", alertstate="firing", severity=' in awaited or (
            f"alertname: {alert}\n        exp_alerts:\n          - " in awaited
        ), alert


def test_rules_ask_only_for_what_services_expose() -> None:
    """A metric or label that was renamed would leave an alert silent for ever."""
    series = declared()
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        expression = rule["expr"]
        for name in re.findall(r"\w*:[\w:]+", expression):
            assert name in recorded
        for name, selector in re.findall(r"(?<![\w:])(portcullis_\w+)(?:\{([^}]*)\})?", expression):
            assert name in series, f"{name} in {rule}"
            asked = set(re.findall(r"(\w+)\s*(?:=|!)", selector or ""))
            assert asked <= series[name] | {"job", "instance"}


def test_amtool_accepts_the_routes_and_they_lead_where_the_docs_say() -> None:
    run("amtool", "check-config", ALERTMANAGER)
    for labels, receivers in (
        (["severity=critical"], "page"),
        (["severity=warning"], "ticket"),
        (["severity=critical", "team=security"], "security,page"),
        (["severity=heartbeat"], "heartbeat"),
    ):
        option = f"--config.file={ALERTMANAGER}"
        assert run("amtool", "config", "routes", "test", option, *labels).strip() == receivers


def test_inhibitions_name_alerts_that_exist() -> None:
    config = yaml.safe_load(ALERTMANAGER.read_text())
    named = re.findall(r"Portcullis\w+", str(config["inhibit_rules"]))
    assert named
    assert set(named) <= set(ALERTS)


def test_each_alert_has_its_runbook_and_each_runbook_its_alert() -> None:
    """And says how bad it is, in one line that a person can read."""
    assert {page.stem for page in PAGES} == set(ALERTS)
    for name, alert in ALERTS.items():
        link = alert["annotations"]["runbook_url"]
        assert link == "{{ $externalLabels.runbooks }}/" + f"{name}.md"
        assert alert["labels"]["severity"] in ("critical", "warning", "heartbeat")
        assert alert["annotations"]["summary"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_runbook_exist(page: Path) -> None:
    """Programs, options, ports, metrics: what is typed at night must not be a riddle."""
    text = page.read_text()
    assert [title for title in ("# ", "## Look", "## Do") if title not in text] == []
    block = text.split("```sh\n")[1].split("```")[0]
    subprocess.run(["bash", "-n"], input=block, text=True, check=True)
    lines = block.splitlines() + re.findall(r"`((?:portcullis|systemctl|curl) [^`…]+)`", text)
    for line in lines:
        pipeline = list(stages(line))
        for words in pipeline:
            assert shutil.which(words[0]) or words[0] == "portcullis", line
            if words[0] == "portcullis" and words[1:]:
                check_portcullis(words[1:])
        url = re.search(r"http://127.0.0.1:(91\d\d)/(\w+)", line)
        if url is None:
            continue
        (room,) = (name for name, port in MONITORS.items() if port == int(url[1]))
        assert url[2] in ("metrics", "livez", "readyz")
        if url[2] == "metrics":
            pattern = re.compile(pipeline[1][-1])
            own = [
                name
                for name in declared()
                if name.startswith(f"portcullis_{room}_") or name.split("_")[1] not in ROOMS
            ]
            assert any(pattern.search(name) for name in own), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_links_of_a_runbook_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
