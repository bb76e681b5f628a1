"""`portcullis health`: what a container's health check asks."""

import click
import httpx

from portcullis.cli.context import Context, common_options
from portcullis.cli.up import MONITORS
from portcullis.runtime.config import ConfigSource
from portcullis.runtime.errors import PortcullisError
from portcullis.runtime.service import split_address

_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (what is listened on)  # nosec B104


class UnhealthyError(PortcullisError):
    """A service that answers is not ready, or none answers."""


@click.command()
@common_options
@click.pass_obj
def health(context: Context) -> None:
    """Ask each service that runs here whether it is ready; status 1 if one is not, or none runs.

    Services are found at their monitoring ports as configured.
    """
    answers = {}
    for name, monitor in monitors(context.source()).items():
        if (answer := ask(monitor, f"{name}.monitor")) is not None:
            answers[name] = answer
    if not answers:
        raise UnhealthyError("no service answers at its monitoring port")
    context.show({name: answer["status"] for name, answer in answers.items()})
    if bad := {name: answer["failed"] for name, answer in answers.items() if answer["failed"]}:
        raise UnhealthyError(f"not ready: {bad}")


def monitors(source: ConfigSource) -> dict[str, str]:
    """Each service's monitoring address as configured, by its name."""
    return {
        name: source.data.get(name, {}).get("monitor", f"127.0.0.1:{port}")
        for name, port in MONITORS.items()
    }


def ask(monitor: str, key: str) -> dict[str, object] | None:
    """What /readyz says; None where nothing listens; raises UnhealthyError for no answer."""
    host, port = split_address(monitor, key)
    host = _EVERY_ADDRESS.get(host, host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/readyz"
    try:
        said: dict[str, object] = httpx.get(url, timeout=3.0).json()
    except httpx.ConnectError:
        return None
    except httpx.TransportError as error:
        raise UnhealthyError(f"{key}: {monitor} does not answer: {type(error).__name__}") from error
    return said
