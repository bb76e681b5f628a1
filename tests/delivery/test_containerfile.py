"""The Containerfile against the project; `make test-image` builds it (test_image.py)."""

import fnmatch
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

from portcullis.cli.main import cli
from portcullis.cli.services import ROOMS
from tests.delivery.containerfile import last, listed, stages
from tests.delivery.manifests import TARGETS, pods

LOCK = Path("requirements/runtime.txt")


def _ignored(path: Path) -> bool:
    """By .containerignore: the last pattern that fits a path or a folder above it decides."""
    verdict = False
    for line in Path(".containerignore").read_text().split():
        pattern = line.removeprefix("!")
        if any(fnmatch.fnmatch(str(one), pattern) for one in (path, *path.parents)):
            verdict = not line.startswith("!")
    return verdict


def test_what_it_copies_is_there_and_reaches_the_builder() -> None:
    copies = [one.words for stage in stages() for one in stage if one.name == "COPY"]
    for words in copies:
        *sources, _ = words.split()
        if not sources[0].startswith("--from="):
            for source in sources:
                assert Path(source).exists(), source
                assert not _ignored(Path(source)), source
    for secret in (".git/config", "var/client.json", "tests/conftest.py", "requirements/dev.txt"):
        assert _ignored(Path(secret)), secret


def test_every_package_is_held_against_its_hash() -> None:
    """From the index by a lock file with hashes; from the disk without an index."""
    commands = [one.words for stage in stages() for one in stage if one.name == "RUN"]
    installs = [part for one in commands for part in one.split("&&") if re.search(r"/pip\b", part)]
    installs = [one for one in installs if " install " in one or " wheel " in one]
    assert len(installs) == 4
    for install in installs:
        words = shlex.split(install)
        if "--no-index" not in words:
            assert "--require-hashes" in words
            lock = Path(words[words.index("-r") + 1])
            assert lock.read_text().count("==") <= lock.read_text().count("--hash=sha256:")


def test_the_image_itself_takes_only_what_was_built() -> None:
    """One copy out of the build; neither pip nor an index in its own stage."""
    own = stages()[-1]
    assert [one.words for one in own if one.name == "COPY"] == [
        "--from=build /opt/portcullis /opt/portcullis"
    ]
    for stage in (stages()[0], own):
        assert not any("pip" in one.words.split() for one in stage if one.name == "RUN")


def test_the_build_backend_is_the_one_that_developers_have() -> None:
    built, developed = (
        {one for one in Path(f"requirements/{name}.txt").read_text().splitlines() if "==" in one}
        for name in ("build", "dev")
    )
    assert any(one.startswith("hatchling==") for one in built)
    assert built <= developed


@pytest.mark.parametrize("target", TARGETS)
def test_the_manifests_run_this_image(target: str) -> None:
    """Its user, its command, one reference for all, and no state where its root is read-only."""
    user, _, group = last("USER").partition(":")
    references = set()
    for pod in pods(target).values():
        assert pod["securityContext"]["runAsUser"] == int(user) != 0
        assert pod["securityContext"]["runAsGroup"] == int(group) != 0
        for container in pod["containers"]:
            references.add(container["image"])
            assert "command" not in container, "the entry point is the image's"
            told = CliRunner().invoke(cli, [container["args"][0], "--help"])
            assert told.exit_code == 0, told.output
        references |= {one["image"] for one in pod.get("initContainers", [])}
    [reference] = references
    name, _, tag = reference.rpartition(":")
    assert name.rpartition("/")[2] == "portcullis"
    assert tag not in ("", "latest")


def test_entry_point_and_health_check_are_commands_of_ours() -> None:
    assert listed("ENTRYPOINT") == ["portcullis"]
    for room in ROOMS:
        assert CliRunner().invoke(cli, [room, "--help"]).exit_code == 0
    check = last("HEALTHCHECK").partition(" CMD ")[2]
    program, *arguments = json.loads(check)
    assert program == "portcullis"
    assert CliRunner().invoke(cli, [*arguments, "--help"]).exit_code == 0


def test_the_bill_of_materials_lists_every_package_of_the_lock() -> None:
    """With its version and hashes, by the schema of CycloneDX 1.6."""
    made = subprocess.run(
        [sys.executable, "tools/sbom.py"], check=True, capture_output=True, text=True
    )
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(made.stdout) is None
    bom = json.loads(made.stdout)
    listed = {one["purl"]: json.dumps(one) for one in bom["components"]}
    expected = 0
    for entry in re.split(r"(?<!\\)\n", LOCK.read_text().strip()):
        requirement = Requirement(entry.partition(" \\\n")[0])
        if requirement.marker is None or requirement.marker.evaluate(
            {"python_full_version": "3.11.2"}
        ):
            expected += 1
            [version] = [one.version for one in requirement.specifier]
            component = listed[f"pkg:pypi/{requirement.name}@{version}"]
            for digest in re.findall(r"--hash=sha256:(\w+)", entry):
                assert digest in component
    assert len(listed) == expected > 30
    own = bom["metadata"]["component"]
    assert (own["name"], own["type"]) == ("portcullis-cas", "application")
    [ours] = [one for one in bom["dependencies"] if one["ref"] == own["bom-ref"]]
    named = tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]
    assert len(ours["dependsOn"]) == len(named)
