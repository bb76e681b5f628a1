"""Keep this release's code for the test that upgrades from it: `make snapshot`.

The test of the next release runs it beside its own, from a clean checkout, without the history.
The same tree makes the same file.
"""

from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

SOURCE = Path(__file__).parents[1] / "src"
TARGET = Path(__file__).parents[1] / "tests" / "faults" / "previous.zip"
SUFFIXES = {".py", ".mako", ".proto"}


def main() -> None:
    """Write the file."""
    with ZipFile(TARGET, "w") as archive:
        for path in sorted(SOURCE.rglob("*")):
            if path.suffix in SUFFIXES:
                entry = ZipInfo(str(path.relative_to(SOURCE)))
                archive.writestr(entry, path.read_bytes(), ZIP_DEFLATED, 9)


if __name__ == "__main__":
    main()
