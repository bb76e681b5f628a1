"""`portcullis audit …` as an auditor types it: on the state directory, offline, against the SMS."""

import csv
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from evidence_log import auditor
from sqlalchemy import Engine, select

from portcullis.cli.main import cli
from portcullis.store.chains import note_key_event
from portcullis.store.database import engine_for, writing
from portcullis.store.migrate import migrate
from portcullis.store.orders import NewRequest, apply_requests
from portcullis.store.schema import key_events, keys

CONFIG = """\
[database]
url = "sqlite:///{home}/p.db"
[auditor]
dir = "{home}/audit"
anchors = ["dir:{home}/anchors", "syslog:/dev/log"]
[[gateway.client]]
client_id = "north"
devices = ["1-2"]
products = [101]
"""
ORDERS = [
    ("putproduct", None, 101),
    ("putproduct", None, 102),
    ("adddevice", 1, None),
    ("adddevice", 2, None),
    ("adddevice", 3, None),
    ("addentitlement", 1, 101),
    ("addentitlement", 1, 102),
    ("addentitlement", 2, 102),
    ("addentitlement", 9, 101),
    ("adddevice", 4, None),
    ("removedevice", 4, None),
]


def order(engine: Engine, kind: str, device_id: int | None, product_id: int | None) -> None:
    """Commit one order."""
    body = {"name": '=1+1, "x"\n'} if kind == "putproduct" else {}
    request = NewRequest(
        "sms", f"{kind}-{device_id}-{product_id}", kind, body, bytes(32), device_id, product_id
    )
    apply_requests(engine, [request])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of orders with their record, signed."""
    home = tmp_path_factory.mktemp("original")
    engine = engine_for(f"sqlite:///{home}/p.db")
    migrate(engine)
    with writing(engine) as connection:
        key = {"purpose": "device", "first_epoch": 0, "last_epoch": 65535, "master_id": "m"}
        rows = [
            key | {"owner": n, "sealed_key": b"x", "created_at": datetime.now(UTC)}
            for n in (1, 2, 3, 4)
        ]
        connection.execute(keys.insert(), rows)
    for line in ORDERS:
        order(engine, *line)
    note_key_event(engine, "chain_made", product_id=101)
    one = auditor(engine, home)
    one.follow()
    one.sign()
    one.close()
    engine.dispose()
    return home


@pytest.fixture
def home(original: Path, tmp_path: Path) -> Path:
    """A state directory with a copy of it."""
    copy = tmp_path / "state"
    shutil.copytree(original, copy)
    (copy / "portcullis.toml").write_text(CONFIG.format(home=copy))
    return copy


def audit(home: Path, *words: str, status: int = 0) -> Result:
    """Run an audit command on the state directory."""
    result = CliRunner().invoke(cli, ["audit", *words, "--state-dir", str(home)])
    assert result.exit_code == status, result.output
    return result


def test_verify_says_where_and_exits_with_1(home: Path) -> None:
    """0 when all is as it was written."""
    said = json.loads(audit(home, "verify", "--json").stdout)
    assert (said["verdict"], said["records"], said["heads"]) == ("as it was written", 12, 1)
    [log] = (home / "audit" / "gateway.0").iterdir()
    log.write_bytes(log.read_bytes().replace(b'"device_id":"2"', b'"device_id":"3"', 1))
    output = audit(home, "verify", "--json", status=1).stdout.splitlines()
    assert "number 4" in json.loads(output[0])["where"]
    assert "2 findings" in audit(home, "verify", "--no-database", status=1).stdout


def test_verify_needs_a_record(tmp_path: Path) -> None:
    """One line that says what is missing."""
    (tmp_path / "portcullis.toml").write_text(CONFIG.format(home=tmp_path))
    result = CliRunner().invoke(cli, ["audit", "verify", "--state-dir", str(tmp_path)])
    assert "no auditor has kept a record there" in str(result.exception)


def test_the_public_key_is_for_others(home: Path) -> None:
    """As PEM, to be kept elsewhere."""
    said = json.loads(audit(home, "key", "--json").stdout)
    assert said["public_key"].startswith("-----BEGIN PUBLIC KEY-----")
    assert len(said["key_id"]) == 16


Row = dict[str, Any]


def exported(home: Path, form: str, *words: str) -> list[Row]:
    """The records of an export, which verifies offline."""
    file = home / f"export.{form}"
    audit(home, "export", "--format", form, "--output", str(file), *words)
    rows = read(file)
    done = offline(home, file)
    assert json.loads(done.stdout) == {"records": len(rows), "wrong": 0}
    return rows


def read(file: Path) -> list[Row]:
    """An export of either kind."""
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened)) if file.suffix == ".csv" else json.load(opened)


def write(file: Path, rows: list[Row]) -> None:
    """The same way back."""
    with file.open("w", encoding="utf-8", newline="") as opened:
        if file.suffix == ".json":
            json.dump(rows, opened)
        else:
            writer = csv.DictWriter(opened, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def offline(home: Path, file: Path, status: int = 0) -> Result:
    """Verify an export with nothing but the public key."""
    key = home / "audit" / "public-key.pem"
    words = ["audit", "verify-export", str(file), "--public-key", str(key), "--json"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == status, result.output
    return result


@pytest.mark.parametrize("form", ["csv", "json"])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], [*(kind for kind, _, _ in ORDERS), "chain_made"]),
        (["--device", "1"], ["adddevice", "addentitlement", "addentitlement"]),
        (["--product", "101"], ["putproduct", "addentitlement", "addentitlement", "chain_made"]),
        (["--device", "1", "--product", "102"], ["addentitlement"]),
        (["--device", "77"], []),
        (["--until", "2020-01-01T00:00:00Z"], []),
        (["--since", "2099-01-01T00:00:00Z"], []),
        (
            ["--since", "2020-01-01T00:00:00Z", "--until", "2099-01-01T00:00:00Z", "--device", "4"],
            ["adddevice", "removedevice"],
        ),
    ],
)
def test_an_export_is_what_was_asked_for_with_proof(
    home: Path, form: str, words: list[str], expected: list[str]
) -> None:
    """By window, device, product; refused orders too."""
    rows = exported(home, form, *words)
    assert [row.get("call") or row["event"] for row in rows] == expected
    if "--product" in words and "--device" not in words:
        assert [row.get("outcome") for row in rows][2] == "unknown_device"


TAMPERING: list[tuple[Callable[[Row], Row], str]] = [
    (lambda row: row | {"client_id": "other"}, "client_id is not what was proven"),
    (lambda row: row | {"seq": "5"}, "seq is not what was proven"),
    (lambda row: row | {"chain": "keys/0"}, "not in the log"),
    (lambda row: row | {"chain": "none/0"}, "says nothing of this chain"),
    (lambda row: row | {"content": row["content"].replace("sms", "own")}, "not in the log"),
    (lambda row: row | {"path": row["path"][:64]}, "not in the log"),
    (lambda row: row | {"path": "zz"}, "has no proof"),
    (lambda row: row | {"content": "x"}, "not signed by this key"),
    (lambda row: row | {"head": row["head"].replace('"from":1', '"from":0')}, "not signed"),
    (lambda row: row | {"head": ""}, "not signed by this key"),
]


@pytest.mark.parametrize("form", ["csv", "json"])
@pytest.mark.parametrize(("tamper", "what"), TAMPERING)
def test_an_export_that_was_changed_does_not_verify(
    home: Path, form: str, tamper: Callable[[Row], Row], what: str
) -> None:
    """Whichever column it is."""
    rows = exported(home, form)
    file = home / f"export.{form}"
    write(file, [*rows[:3], tamper(rows[3]), *rows[4:]])
    found = json.loads(offline(home, file, status=1).stdout.splitlines()[0])
    assert "record 4" in found["where"]
    assert what in found["what"]


def test_an_export_of_a_broken_log_is_refused(home: Path) -> None:
    """Rather than one without proof."""
    [log] = (home / "audit" / "gateway.0").iterdir()
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:3] + lines[4:]))
    result = CliRunner().invoke(cli, ["audit", "export", "--state-dir", str(home)])
    assert "portcullis audit verify" in str(result.exception)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sms.csv", "device_id,product_id\n1,101\n1,102\n2,101\n8,101\n8,\n"),
        (
            "sms.json",
            json.dumps(
                [
                    {"device_id": "1", "products": [102, 101]},
                    {"device_id": 2, "products": ["101"]},
                    {"device_id": "8", "products": [101]},
                ]
            ),
        ),
    ],
)
def test_the_list_of_the_sms_is_compared_both_ways(home: Path, name: str, text: str) -> None:
    """Device 1 is equal; 2 differs in two products; 3 is only here, 8 only there."""
    (home / name).write_text(text)
    output = audit(home, "reconcile", "--sms", str(home / name), "--json", status=1).stdout
    *rows, last = [json.loads(line) for line in output.splitlines()]
    assert [(row["device_id"], row["product_id"], row["only_in"]) for row in rows] == [
        (2, 102, "cas"),
        (2, 101, "sms"),
        (3, None, "cas"),
        (8, None, "sms"),
        (8, 101, "sms"),
    ]
    assert last == {"devices": 4, "mismatched": 3, "mismatch_rate": 0.75}


def test_one_sms_of_several_is_compared_with_its_own_part(home: Path) -> None:
    """The devices and products of its permit; equal lists end with 0."""
    file = home / "sms.csv"
    file.write_text("1,101\n2,\n")
    words = ["reconcile", "--sms", str(file), "--client", "north", "--json"]
    said = json.loads(audit(home, *words).stdout)
    assert said == {"devices": 2, "mismatched": 0, "mismatch_rate": 0.0}


def test_what_is_not_in_its_window_is_not_compared(home: Path) -> None:
    """An entitlement that is over, or has not begun, is not active."""
    engine = engine_for(f"sqlite:///{home}/p.db")
    hour = timedelta(hours=1)
    now = datetime.now(UTC).replace(microsecond=0)
    for number, (starts_at, ends_at) in enumerate(
        [(now - 2 * hour, now - hour), (now + hour, None), (now - hour, now + hour)]
    ):
        body = {"starts_at": starts_at.isoformat()}
        request = NewRequest(
            *("sms", f"w{number}", "addentitlement", body, bytes([number] * 32)),
            device_id=3,
            product_id=101 + number % 2,
            starts_at=starts_at,
            ends_at=ends_at,
        )
        apply_requests(engine, [request])
    engine.dispose()
    (home / "sms.csv").write_text("1,101\n1,102\n2,102\n3,101\n")
    said = json.loads(audit(home, "reconcile", "--sms", str(home / "sms.csv"), "--json").stdout)
    assert said["mismatched"] == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,101\n2;5\n", "line 2: expected device_id,product_id"),
        ("x,1\n", "line 1: device_id: expected a whole number"),
        ("1,-5\n", "line 1: product_id"),
        ('[{"device_id": "1"}]', "entry 1: expected device_id and products"),
        ('[{"device_id": true, "products": []}]', "entry 1: device_id"),
        ("[1", "cannot be read"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused(home: Path, text: str, expected: str) -> None:
    """With the entry that is wrong."""
    (home / "sms.txt").write_text(text)
    words = ["audit", "reconcile", "--sms", str(home / "sms.txt"), "--state-dir", str(home)]
    assert expected in str(CliRunner().invoke(cli, words).exception)


def test_clients_that_come_and_go_are_key_events(tmp_path: Path) -> None:
    """Who was let in, with what, and who was struck off; never the secret."""
    config = tmp_path / "p.toml"
    config.write_text(
        f'[database]\nurl = "sqlite:///{tmp_path}/p.db"\n'
        f'[gateway]\noauth_dir = "{tmp_path}/oauth"\n'
    )
    engine = engine_for(f"sqlite:///{tmp_path}/p.db")
    migrate(engine)

    def run(*words: str) -> Any:  # noqa: ANN401 (JSON)
        result = CliRunner().invoke(cli, ["clients", *words, "--config", str(config), "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    made = run("add", "crm", "--scope", "read", "--scope", "device")
    run("remove", made["client_id"])
    with engine.connect() as connection:
        rows = connection.execute(select(key_events).order_by(key_events.c.chain_seq)).all()
    assert [row.event for row in rows] == ["client_registered", "client_removed"]
    detail = {"client_id": made["client_id"], "name": "crm", "scopes": "device read"}
    assert json.loads(rows[0].detail) == detail
    engine.dispose()


def test_long_work_shows_how_far_it_is(home: Path) -> None:
    """A bar on a terminal's standard error; none with --json, none among exported records."""
    terminal = CliRunner(env={"FORCE_COLOR": "1"})
    export, key, sms = home / "export.csv", home / "key.pem", home / "sms.csv"
    key.write_text(json.loads(audit(home, "key", "--json").stdout)["public_key"])
    sms.write_text("1,101\n")
    state = ["--state-dir", str(home)]
    for words, what in (
        (["migrate", "--config", f"{home}/portcullis.toml"], "migrations"),
        (["audit", "verify", *state], "lines"),
        (["audit", "export", "--output", str(export), *state], "records"),
        (["audit", "verify-export", str(export), "--public-key", str(key)], "records"),
        (["audit", "reconcile", "--sms", str(sms), *state], "devices"),
    ):
        assert f"{what} \x1b[" in terminal.invoke(cli, words).stderr, words
        assert "\x1b[" not in terminal.invoke(cli, [*words, "--json"]).stderr, words
    printed = terminal.invoke(cli, ["audit", "export", "--format", "csv", *state])
    assert "\x1b[" not in printed.output
