"""The scripts of a roll-out, with a kubectl that keeps kustomize and writes down the rest."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.delivery.manifests import BIN

pytestmark = pytest.mark.xdist_group("var/deploy")  # one folder, written by every roll-out

IMAGE = f"registry.example.net/cas/portcullis@sha256:{'ab' * 32}"
OVERLAY = "deploy/kubernetes/overlays/production"
RECORDER = """\
#!/bin/sh
[ "$1" != kustomize ] || exec {kubectl} "$@"
echo "$*" >>{calls}
case "$*" in
*" get "*) echo deployment.apps/emmg; echo statefulset.apps/gateway ;;
*"{fails}"*) echo 'error: timed out waiting for the condition' >&2; exit 1 ;;
esac
"""


class Cluster:
    """What was asked of it."""

    def __init__(self, folder: Path, fails: str = "nothing fails") -> None:
        self.calls = folder / "calls"
        self.calls.touch()
        kubectl = folder / "kubectl"
        kubectl.write_text(RECORDER.format(kubectl=BIN / "kubectl", calls=self.calls, fails=fails))
        kubectl.chmod(0o755)
        self.environ = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """A command that finds this kubectl."""
        return subprocess.run(
            command, env=self.environ, check=False, capture_output=True, text=True
        )

    def asked(self) -> list[str]:
        """Each call, without kubectl's own options in front."""
        return [one.removeprefix("-n portcullis ") for one in self.calls.read_text().splitlines()]


def test_the_steps_of_a_roll_out(tmp_path: Path) -> None:
    """The schema before the services, and its clean-up only in the step after the smoke test."""
    cluster = Cluster(tmp_path)
    done = cluster.run("tools/deploy.sh", "roll-out", OVERLAY, IMAGE)
    assert done.returncode == 0, done.stderr
    assert cluster.asked() == [
        "delete job migrate-before --ignore-not-found",
        "apply -k var/deploy/before",
        "wait --for=condition=complete --timeout=1h job/migrate-before",
        "apply -k var/deploy/production",
        "get deployments,statefulsets -o name -l app.kubernetes.io/part-of=portcullis",
        "rollout status --timeout=10m deployment.apps/emmg",
        "rollout status --timeout=10m statefulset.apps/gateway",
    ]
    cluster.calls.write_text("")
    assert cluster.run("tools/deploy.sh", "finish", OVERLAY, IMAGE).returncode == 0
    assert cluster.asked()[1] == "apply -k var/deploy/after"


@pytest.mark.parametrize("fails", ["wait --for", "rollout status"])
def test_a_step_that_fails_ends_the_roll_out(tmp_path: Path, fails: str) -> None:
    """No service is changed on a schema that is not ready; one that does not start is said."""
    cluster = Cluster(tmp_path, fails)
    done = cluster.run("tools/deploy.sh", "roll-out", OVERLAY, IMAGE)
    assert done.returncode == 1
    assert "timed out" in done.stderr
    assert fails in cluster.asked()[-1]
    assert ("apply -k var/deploy/production" in cluster.asked()) == (fails == "rollout status")


def test_the_way_back_undoes_every_workload_and_waits(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    assert cluster.run("tools/rollout.sh", "undo").returncode == 0
    assert cluster.asked()[1:] == [
        "rollout undo deployment.apps/emmg",
        "rollout undo statefulset.apps/gateway",
        "rollout status --timeout=10m deployment.apps/emmg",
        "rollout status --timeout=10m statefulset.apps/gateway",
    ]


@pytest.mark.parametrize("overlay", ["production", "single-node"])
def test_every_container_runs_the_image_by_its_digest(tmp_path: Path, overlay: str) -> None:
    """In services, init containers and both migrations."""
    cluster = Cluster(tmp_path)
    done = cluster.run("tools/deploy.sh", "render", f"deploy/kubernetes/overlays/{overlay}", IMAGE)
    assert done.returncode == 0, done.stderr
    made = [one for one in yaml.safe_load_all(done.stdout) if one]
    images = []
    for one in made:
        if one["kind"] in ("Deployment", "StatefulSet", "Job"):
            pod = one["spec"]["template"]["spec"]
            images += [
                each["image"] for each in [*pod["containers"], *pod.get("initContainers", [])]
            ]
    assert set(images) == {IMAGE}
    assert {"migrate-before", "migrate-after", "gateway"} <= {
        one["metadata"]["name"] for one in made
    }


def test_an_image_without_a_digest_is_refused(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    done = cluster.run("tools/deploy.sh", "roll-out", OVERLAY, "registry.example.net/portcullis:1")
    assert done.returncode == 2
    assert "@sha256:DIGEST" in done.stderr
    assert cluster.asked() == []
