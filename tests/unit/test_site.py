"""The documentation as a site: every page is in its contents, every link leads somewhere."""

import subprocess
import sys
from pathlib import Path


def test_the_site_is_whole(tmp_path: Path) -> None:
    """As `make site` makes it."""
    made = subprocess.run(
        [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
        + ["-d", str(tmp_path / "doctrees"), "docs", str(tmp_path / "site")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "site" / "tutorial.html").exists()
