"""Look for secrets in every file of the repository: `make audit`.

    python tools/secret_scan.py             status 1 for one that is not in the baseline
    python tools/secret_scan.py --accept    write the baseline anew, after looking at each

The baseline holds what looks like a secret and is none, such as test vectors; only its hash.
"""

import json
import subprocess
import sys
from pathlib import Path

from detect_secrets.core.secrets_collection import SecretsCollection
from detect_secrets.settings import default_settings

BASELINE = Path(".secrets.baseline")
HASHES = ("requirements/", "tests/authorization_server/package-lock.json", ".secrets.baseline")


def main() -> None:
    """Scan what git knows, and compare; lines may have moved."""
    command = ["git", "ls-files", "-z"]
    tracked = subprocess.run(command, check=True, capture_output=True).stdout.decode().split("\0")  # noqa: S603 (fixed)
    files = [name for name in tracked if name and not name.startswith(HASHES)]
    found = SecretsCollection()
    with default_settings():
        found.scan_files(*files)
    here = {(name, secret.type, secret.secret_hash): secret.line_number for name, secret in found}
    if sys.argv[1:] == ["--accept"]:
        known = [{"file": file, "type": kind, "sha1": sha1} for file, kind, sha1 in sorted(here)]
        BASELINE.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        return
    listed = json.loads(BASELINE.read_text(encoding="utf-8"))
    accepted = {(one["file"], one["type"], one["sha1"]) for one in listed}
    new = sorted(key for key in here if key not in accepted)
    for key in new:
        sys.stdout.write(f"{key[0]}:{here[key]}: {key[1]}\n")
    sys.stdout.write(f"secrets: {len(files)} files, {len(new)} new, {len(accepted)} known\n")
    sys.exit(1 if new else 0)


if __name__ == "__main__":
    main()
