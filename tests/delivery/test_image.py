"""The image that `make image` built, held against the project and run: `make test-image`.

buildah cannot make a root read-only where there is no container runtime. So the services run in the
image's own files under a read-only bind mount, in mount and process namespaces of their own, as the
image's user, without capabilities and without a way to new privileges.
"""

import json
import os
import shlex
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest

from portcullis.cli.services import ROOMS
from portcullis.cli.up import MONITORS
from tests.delivery.containerfile import last, listed
from tests.ports import free_ports

pytestmark = [pytest.mark.image, pytest.mark.timeout(600)]

WORK = Path("var/image").resolve()
IMAGE = f"localhost/portcullis:{version('portcullis-cas')}"
BUILDAH = ["buildah", f"--root={WORK}/storage", f"--runroot={WORK}/run", "--storage-driver=vfs"]
USER = 10001


def buildah(*arguments: str) -> str:
    done = subprocess.run([*BUILDAH, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """The root file system of a container of the image."""
    container = buildah("from", "--pull-never", IMAGE)
    yield Path(buildah("mount", container))
    buildah("rm", container)


@pytest.fixture(scope="module")
def config() -> Any:  # noqa: ANN401 (JSON)
    """What the image says of itself."""
    return json.loads(buildah("inspect", "--type=image", IMAGE))["Docker"]["config"]


def inside(root: Path, state: Path, *arguments: str, **environ: str) -> list[str]:
    """The command that runs the image's entry point as a container would, read-only."""
    state.mkdir(exist_ok=True)
    os.chown(state, USER, USER)
    variables = [f"{name}={value}" for name, value in environ.items()]
    path = "PATH=/opt/portcullis/bin:/usr/local/bin:/usr/bin:/bin"
    command = ["env", "-i", path, *variables, *listed("ENTRYPOINT"), *arguments]
    script = f"""
        set -e
        mount --bind {root} {root}
        mount -o remount,bind,ro {root}
        mount -t proc proc {root}/proc
        mount --rbind /dev {root}/dev
        mount -t tmpfs -o mode=1777,size=16m tmpfs {root}/tmp
        mount --bind {state} {root}/var/lib/portcullis
        exec chroot {root} setpriv --reuid={USER} --regid={USER} --clear-groups --no-new-privs \
            --bounding-set=-all --inh-caps=-all {shlex.join(command)}
    """
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]


def run(root: Path, state: Path, *arguments: str, **environ: str) -> str:
    command = inside(root, state, *arguments, **environ)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_says_what_it_is(config: Any) -> None:  # noqa: ANN401 (JSON)
    """User, entry point, health check and labels, as the Containerfile has them."""
    assert config["User"] == last("USER") == f"{USER}:{USER}"
    assert config["Entrypoint"] == listed("ENTRYPOINT") == ["portcullis"]
    assert config["Healthcheck"]["Test"] == ["CMD", "portcullis", "health"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == version("portcullis-cas")
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    revision = labels["org.opencontainers.image.revision"]
    assert revision.removesuffix("-changed") == head.stdout.strip(), "built from another commit"
    assert [one.partition("=")[0] for one in config["Env"]] == ["PATH"]


def test_nothing_that_builds_is_left_in_it(root: Path) -> None:
    """No compiler, no pip, no cache, no source, no bit that makes a program another user's."""
    for name in ("cc", "gcc", "c++", "ld", "make", "pip", "pip3", "git", "curl", "wget"):
        for folder in ("usr/bin", "usr/local/bin", "opt/portcullis/bin"):
            assert not (root / folder / name).is_symlink(), name
            assert not (root / folder / name).exists(), name
    assert not list(root.glob("opt/portcullis/lib/python3*/site-packages/pip*"))
    assert not list(root.glob("usr/lib/python3*/ensurepip"))
    for folder in ("src", "build", "wheel", "root/.cache"):
        assert not (root / folder).exists()
    assert not list((root / "var/lib/apt/lists").iterdir())
    for folder, _, names in os.walk(root):
        for name in names:
            mode = (Path(folder) / name).lstat().st_mode
            assert not (stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID)), name


def test_no_secret_of_the_build_is_in_it(root: Path) -> None:
    """Neither in its files nor in what it says of its making."""
    for name in ("etc/pip.conf", "run/secrets", "root/.netrc", "root/.config", ".git"):
        assert not (root / name).exists(), name
    story = buildah("inspect", "--type=image", IMAGE)
    assert "PIP_" not in story
    assert "cert =" not in story
    keys = subprocess.run(
        ["grep", "-rIlE", "^-----BEGIN [A-Z ]*PRIVATE KEY-----", "opt", "etc", "root", "var/lib"],
        cwd=root,
        check=False,
        capture_output=True,
        text=True,
    )
    assert keys.stdout == ""


def test_its_bill_of_materials_lists_what_is_in_it(root: Path) -> None:
    """Every Python package and every Debian package, and no other."""
    bom = json.loads((WORK / "sbom.cdx.json").read_text())
    listed = {one["purl"].partition("?")[0] for one in bom["components"]}
    [packages] = root.glob("opt/portcullis/lib/python3*/site-packages")
    installed = {one.name.removesuffix(".dist-info") for one in packages.glob("*.dist-info")}
    installed.remove(f"portcullis_cas-{version('portcullis-cas')}")
    python = {one.removeprefix("pkg:pypi/") for one in listed if one.startswith("pkg:pypi/")}
    assert {one.replace("-", "_").replace("@", "-") for one in python} == {
        one.rpartition("-")[0].lower().replace(".", "_") + "-" + one.rpartition("-")[2]
        for one in installed
    }
    status = (root / "var/lib/dpkg/status").read_text()
    assert len(listed) - len(python) == status.count("\nStatus: install ok installed")
    assert any(one.startswith("pkg:deb/debian/python3.11-minimal@") for one in listed)


def test_every_command_of_a_service_answers(root: Path, tmp_path: Path) -> None:
    assert version("portcullis-cas") in run(root, tmp_path / "state", "--version")
    for room in (*ROOMS, "migrate", "health"):
        assert "--config FILE" in run(root, tmp_path / "state", room, "--help")


def test_its_root_cannot_be_written(root: Path, tmp_path: Path) -> None:
    """What the next test runs under: only its state directory and /tmp take anything."""
    command = inside(root, tmp_path / "state")
    words = shlex.join(listed("ENTRYPOINT"))
    probe = "sh -c 'touch /tmp/a /var/lib/portcullis/a && id -u; touch /opt/portcullis/a /etc/a'"
    assert command[-1].rstrip().endswith(words)
    command[-1] = command[-1].rstrip().removesuffix(words) + probe
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout == f"{USER}\n"
    assert done.stderr.count("Read-only file system") == 2


def test_an_order_goes_on_air_with_a_read_only_root(root: Path, tmp_path: Path) -> None:
    """All services of `up` are alive and ready, the health check agrees, SIGTERM ends them."""
    state = tmp_path / "state"
    api, mux, out, *free = free_ports(3 + len(MONITORS))
    monitors = dict(zip(MONITORS, free, strict=True))
    stream = {"client_id": 0xFFF00001, "data_id": 1, "mux": f"127.0.0.1:{mux}"}
    environ = {
        f"PORTCULLIS_{k.upper()}__MONITOR": f"127.0.0.1:{v}" for k, v in monitors.items()
    } | {
        "PORTCULLIS_GATEWAY__LISTEN": f"127.0.0.1:{api}",
        "PORTCULLIS_MUX__LISTEN": f"127.0.0.1:{mux}",
        "PORTCULLIS_MUX__OUTPUTS": json.dumps([f"udp://127.0.0.1:{out}"]),
        "PORTCULLIS_CYCLER__STREAM": json.dumps([stream | {"bandwidth_kbit_s": 1000}]),
    }
    log = tmp_path / "up.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            inside(root, state, "up", "--state-dir", "/var/lib/portcullis", **environ),
            stdout=file,
            stderr=file,
        )
    try:
        _until(lambda: "The head-end is up" in log.read_text(), process, log)
        for port in monitors.values():
            assert httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200
        said = run(root, state, "health", "--json", **environ)
        assert set(json.loads(said)) == set(MONITORS)
        with _signed_in(state) as sms:
            sms.put("/products/101", json={"name": "Basic"}).raise_for_status()
            order = {"transaction_id": "t1", "device_id": "1001"}
            answer = sms.post("/adddevice", json=order)
            assert answer.status_code == 202
            request = f"/requests/{answer.json()['request_id']}"
            _until(lambda: sms.get(request).json()["status"] == "on_air", process, log)
        [service] = _children(process.pid)
        os.kill(service, signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def _until(there: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while not there():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)


def _signed_in(state: Path) -> httpx.Client:
    client = json.loads((state / "client.json").read_text())
    answer = httpx.post(
        client["token_url"],
        data={"grant_type": "client_credentials"},
        auth=(client["client_id"], client["client_secret"]),
    )
    token = answer.raise_for_status().json()["access_token"]
    return httpx.Client(base_url=client["api_url"], headers={"Authorization": f"Bearer {token}"})


def _children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(one) for task in tasks for one in task.read_text().split()]
