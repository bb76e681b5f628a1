"""What kustomize makes of deploy/kubernetes, as objects."""

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

KUBERNETES = Path("deploy/kubernetes")
BIN = Path(sys.executable).parent
TARGETS = {
    "single-node": KUBERNETES / "overlays/single-node",
    "production": KUBERNETES / "overlays/production",
    "before": KUBERNETES / "migrate/before",
    "after": KUBERNETES / "migrate/after",
}
OPERATOR_API = "monitoring.coreos.com/"

Object = dict[str, Any]


@cache
def text(target: str) -> str:
    """The output of `kubectl kustomize`."""
    done = subprocess.run(
        [BIN / "kubectl", "kustomize", TARGETS[target]], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "a warning"
    return done.stdout


def objects(target: str) -> list[Object]:
    """Each object."""
    return [one for one in yaml.safe_load_all(text(target)) if one]


def of_kind(target: str, *kinds: str) -> dict[str, Object]:
    """Objects of these kinds, by name."""
    return {one["metadata"]["name"]: one for one in objects(target) if one["kind"] in kinds}


def pods(target: str) -> dict[str, Object]:
    """The pod specification of everything that runs, by component."""
    return {
        one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"][
            "template"
        ]["spec"]
        for one in objects(target)
        if one["kind"] in ("Deployment", "StatefulSet", "Job")
    }
