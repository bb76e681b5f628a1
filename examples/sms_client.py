"""An SMS in twenty lines: sms_client.py CLIENT.JSON CALL ORDER, both files and orders in JSON."""

import json
import sys
import time
from pathlib import Path

import httpx

RETRY = (429, 503)


def send(client: dict[str, str], call: str, order: dict[str, object]) -> httpx.Response:
    """Send an order until it is answered: with the same transaction_id it is done once."""
    login = (client["client_id"], client["client_secret"])
    while True:
        try:
            grant = {"grant_type": "client_credentials"}
            token = httpx.post(client["token_url"], data=grant, auth=login).raise_for_status()
            bearer = {"Authorization": f"Bearer {token.json()['access_token']}"}
            answer = httpx.post(f"{client['api_url']}/{call}", json=order, headers=bearer)
            if answer.status_code not in RETRY:
                return answer
            time.sleep(int(answer.headers.get("Retry-After", "1")))
        except httpx.TransportError:
            time.sleep(1)


if __name__ == "__main__":
    said = send(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2], json.loads(sys.argv[3]))
    print(said.text)
    sys.exit(said.is_error)
