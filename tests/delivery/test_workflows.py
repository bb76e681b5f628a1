"""The pipeline: sound by GitHub's schema and by zizmor, and made of what a hand can run.

Parsed only, for want of GitHub, a registry and a cluster: pushing, signing, signing in, and the
deployment itself, whose script test_deploy.py runs beside a recording kubectl.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.delivery.manifests import BIN

WORKFLOWS = sorted(Path(".github/workflows").glob("*.yml"))
OUTSIDE = re.compile(
    r"apt-get |git config |cosign |printf |umask |mkdir |rm -f |echo \"image=|"
    r"tools/image\.sh push |--certificate-identity-regexp "
)
"""First words of what needs GitHub's runner, a registry or a secret."""

Job = dict[str, Any]


def jobs() -> Iterator[tuple[Path, str, Job]]:
    for file in WORKFLOWS:
        for name, job in yaml.safe_load(file.read_text())["jobs"].items():
            yield file, name, job


def steps() -> Iterator[tuple[Job, Job]]:
    for _, _, job in jobs():
        for step in job.get("steps", []):
            yield job, step


def targets() -> set[str]:
    """The targets of the Makefile."""
    return set(re.findall(r"^([a-z][a-z-]*):", Path("Makefile").read_text(), re.MULTILINE))


def test_there_are_three() -> None:
    assert [one.name for one in WORKFLOWS] == ["ci.yml", "deploy.yml", "release.yml"]


def test_they_are_as_githubs_schema_has_it() -> None:
    schema = ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run(
        [BIN / schema[0], *schema[1:], *WORKFLOWS], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_zizmor_finds_nothing() -> None:
    """Injected expressions, kept credentials, actions and images not pinned, rights too wide."""
    done = subprocess.run(
        [BIN / "zizmor", "--offline", "--no-progress", "--quiet", ".github/workflows"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_action_is_pinned_and_says_its_version() -> None:
    """A full commit with the tag beside it, one commit of each action; images by digest."""
    commits: dict[str, set[str]] = {}
    for file in WORKFLOWS:
        for used in re.findall(r"uses: (.*)", file.read_text()):
            if used.startswith("./"):
                assert Path(used.split()[0]).is_file()
                continue
            pinned = re.fullmatch(r"([\w-]+/[\w-]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+", used)
            assert pinned, f"{file}: {used}"
            commits.setdefault(pinned[1], set()).add(pinned[2])
        for image in re.findall(r"image: (\S+:\S+)", file.read_text()):
            assert re.search(r"@sha256:[0-9a-f]{64}$", image), f"{file}: {image}"
    assert len(commits) == 4
    assert {len(one) for one in commits.values()} == {1}


def test_nothing_may_more_than_it_needs() -> None:
    """No rights for a workflow; a job reads; only the one that signs has an identity."""
    for file in WORKFLOWS:
        assert yaml.safe_load(file.read_text())["permissions"] == {}
    for file, name, job in jobs():
        signs = (file.name, name) == ("release.yml", "image")
        identity = {"id-token": "write"} if signs else {}
        assert job["permissions"] == {"contents": "read"} | identity, f"{file}: {name}"


def test_each_step_is_a_make_target_or_needs_the_outside() -> None:
    """What is run here and by hand is run there by the same name, and none of it is unknown."""
    named = set()
    for job, step in steps():
        script = step.get("run", "").replace("\\\n", " ")
        for line in filter(None, map(str.strip, script.splitlines())):
            if line.startswith("make "):
                assert len(line.split()) == 2
                target = line.split()[1].strip('"')
                named |= (
                    set(job["strategy"]["matrix"]["target"]) if target == "$TARGET" else {target}
                )
            else:
                assert OUTSIDE.match(line), line
    assert named <= targets()
    assert named >= {"lint", "audit", "test-fast", "test-integration", "test-services"}
    assert named >= {"test-system", "test-monitoring", "test-image"}
    assert {"checkov", "deploy", "smoke", "undeploy", "deploy-finish"} <= named


def test_a_deployments_secrets_are_for_its_user_and_leave_nothing(tmp_path: Path) -> None:
    """The two steps as they stand."""
    [deploy] = [job for file, _, job in jobs() if file.name == "deploy.yml"]
    named = {step["name"]: step for step in deploy["steps"] if "name" in step}
    fill, sweep = named["Secrets, for this user only"], named["Leave no secret behind"]
    secrets = {name: f"{{{name}: 50%}}" for name in fill["env"]}
    places = {name: deploy["env"][name] for name in ("KUBECONFIG", "CLIENT", "BOXES")}
    places["KUBECONFIG"] = places["KUBECONFIG"].replace("${{ github.workspace }}", str(tmp_path))
    environ = os.environ | secrets | places
    subprocess.run(["bash", "-e", "-c", fill["run"]], cwd=tmp_path, env=environ, check=True)
    files = {name: tmp_path / place for name, place in places.items()}
    for name, file in files.items():
        assert file.read_text() == secrets[f"SECRET_{name}"]
        assert file.stat().st_mode & 0o077 == 0
    subprocess.run(["bash", "-e", "-c", sweep["run"]], cwd=tmp_path, env=environ, check=True)
    assert [file for file in files.values() if file.exists()] == []


@pytest.mark.parametrize(
    "folder", sorted({one.parent for one in Path("tests").glob("*/test_*.py")})
)
def test_every_test_is_in_a_target_of_ci(folder: Path) -> None:
    """Each folder of tests is in a target that ci.yml names."""
    [ci] = [job for file, _, job in jobs() if file.name == "ci.yml"]
    makefile = Path("Makefile").read_text()
    recipes = [
        recipe
        for target in ci["strategy"]["matrix"]["target"]
        for recipe in re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    ]
    assert any(str(folder) in recipe.split() for recipe in recipes)


def test_production_comes_after_staging_and_nothing_after_a_failed_smoke_test() -> None:
    """The order of the release, and of one deployment: the way back before the last step."""
    release = yaml.safe_load(Path(".github/workflows/release.yml").read_text())["jobs"]
    assert release["staging"]["needs"] == "image"
    assert release["production"]["needs"] == ["image", "staging"]
    for name in ("staging", "production"):
        assert release[name]["with"]["environment"] == name
    [deploy] = [job for file, _, job in jobs() if file.name == "deploy.yml"]
    assert deploy["environment"] == "${{ inputs.environment }}"
    commands = [step.get("run", "").split("\n")[0] for step in deploy["steps"]]
    order = ["make deploy", "make smoke", "make undeploy", "make deploy-finish"]
    assert [one for one in commands if one.startswith("make")] == order
    back = deploy["steps"][commands.index("make undeploy")]["if"]
    for step in ("rollout", "smoke"):
        assert f"steps.{step}.conclusion == 'failure'" in back
    assert "if" not in deploy["steps"][commands.index("make deploy-finish")]
    assert commands.index("make deploy") > [
        one.startswith("cosign verify") for one in commands
    ].index(True)
