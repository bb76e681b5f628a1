"""Print the CycloneDX 1.6 bill of materials of the image: `make sbom`.

    python tools/sbom.py [--root DIRECTORY]

The Python packages are those that requirements/runtime.txt pins for the image's interpreter, with
their hashes, by cyclonedx-py; with the image's root file system also its Debian packages, by dpkg.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = Path("requirements/runtime.txt")
PROJECT = Path("pyproject.toml")
IMAGE = {
    "implementation_name": "cpython",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "python_full_version": "3.11.2",
    "python_version": "3.11",
    "sys_platform": "linux",
}
"""What the lock's markers are held against: Debian 12."""


def pinned(lock: str) -> str:
    """The entries of a lock file that are installed into the image, hashes and all."""
    kept = []
    for entry in re.split(r"(?<!\\)\n", lock):
        requirement = entry.partition(" \\\n")[0]
        if not requirement.strip():
            continue
        marker = Requirement(requirement).marker
        if marker is None or marker.evaluate(IMAGE):
            kept.append(entry)
    return "\n".join(kept) + "\n"


def of_python() -> Bom:
    """The pinned packages, below Portcullis, which depends on those that pyproject.toml names."""
    # It warns that its own list names no dependencies of ours: they follow below.
    quiet = [sys.executable, "-W", "ignore::UserWarning:cyclonedx.model.bom"]
    command = [*quiet, "-m", "cyclonedx_py", "requirements", "-"]
    options = ["--pyproject", PROJECT, "--spec-version", "1.6", "--output-reproducible"]
    made = subprocess.run(  # noqa: S603 (a tool of the lock on the lock)
        [*command, *options],
        input=pinned(LOCK.read_text()),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    bom: Bom = Bom.from_json(json.loads(made.stdout))
    named = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    direct = {canonicalize_name(Requirement(one).name) for one in named}
    if (ours := bom.metadata.component) is None:
        raise SystemExit("sbom: cyclonedx-py left out the project itself")
    bom.register_dependency(ours, [one for one in bom.components if one.name in direct])
    return bom


def of_debian(root: Path) -> list[Component]:
    """The packages of a root file system."""
    command = ["dpkg-query", f"--admindir={root / 'var/lib/dpkg'}", "--show"]
    fields = r"--showformat=${Package} ${Version} ${Architecture}\n"
    listed = subprocess.run(  # noqa: S603 (dpkg on a directory that we built)
        [*command, fields], stdout=subprocess.PIPE, text=True, check=True
    )
    packages = []
    for line in listed.stdout.splitlines():
        name, version, architecture = line.split()
        qualifiers = {"arch": architecture, "distro": "debian-12"}
        purl = PackageURL("deb", "debian", name, version, qualifiers)
        packages.append(
            Component(
                name=name,
                version=version,
                type=ComponentType.LIBRARY,
                purl=purl,
                bom_ref=str(purl),
            )
        )
    return packages


def main() -> None:
    """Put it together, hold it against the schema, print it."""
    parser = argparse.ArgumentParser(description="The bill of materials of the image.")
    parser.add_argument("--root", type=Path, help="the root file system of the image")
    root: Path | None = parser.parse_args().root
    bom = of_python()
    if root is not None:
        bom.components.update(of_debian(root))
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    if wrong := JsonStrictValidator(JsonV1Dot6(bom).schema_version).validate_str(text):
        sys.exit(f"sbom: not as the schema of CycloneDX says: {wrong}")
    print(text)  # noqa: T201


if __name__ == "__main__":
    main()
