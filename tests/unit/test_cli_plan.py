"""`portcullis plan`: formulas with figures worked out by hand, and its answers."""

import json
from math import inf
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from portcullis.cli.main import cli
from portcullis.cli.planning import Measured, plan
from portcullis.cycler.config import StreamConfig
from portcullis.runtime.errors import PortcullisError
from portcullis.scheduler.config import SchedulerConfig

MEASURED = Measured(
    gateway_us_per_order=500,
    database_us_per_order=100,
    emmg_us_per_state=100,
    encryptor_us_per_state=50,
    database_us_per_state=20,
    cycler_us_per_packet=4,
    states_per_s=1000,
    bytes_per_order=1000,
    redo_bytes_per_order=2000,
    bytes_per_box=1200,
    cycler_bytes_per_box=220,
    asrun_bytes_per_record=5,
)


def _run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["plan", *words])


def test_a_million_boxes_on_one_mbit_s() -> None:
    """86,400 orders a day are one a second; steady has what 25 packets of it leave of 664.9."""
    found = plan(StreamConfig(), SchedulerConfig(), 1_000_000, 86_400, MEASURED)
    assert found.worst_wait_s == 1800
    assert [one.stretch for one in found.classes] == [1, 1, 1]
    assert found.load == pytest.approx((25 + 555.6) / 664.9, abs=0.001)
    assert found.rekey_s == pytest.approx(1_000_000 / 1000 + 3 * 1800, abs=1)
    assert found.database_bytes == pytest.approx(1e6 * 1200 + 731 * 86_400 * 1000)
    assert found.database_write_bytes_per_s == pytest.approx(2000)
    assert found.cycler_memory_bytes == pytest.approx(220e6)
    assert found.asrun_bytes_per_day == pytest.approx(580.6 * 86_400 * 5, rel=0.001)
    seals = 1 + 1e6 / 86_400 + 1e6 / (30 * 86_400)
    assert found.cores == pytest.approx(
        {
            "gateway": 500e-6,
            "emmg": seals * 100e-6,
            "encryptor": seals * 50e-6,
            "cycler": 580.6 * 4e-6,
            "database": 100e-6 + seals * 20e-6,
        },
        rel=0.001,
    )


def test_what_was_not_measured_is_not_made_up() -> None:
    """The air is arithmetic; the rest says that it is not known."""
    found = plan(StreamConfig(), SchedulerConfig(), 2_000_000, 0, Measured())
    assert found.worst_wait_s == pytest.approx(3008, abs=1)
    assert found.database_bytes is None
    assert set(found.cores.values()) == {None}


def test_more_orders_than_the_air_carries_have_no_cycle() -> None:
    """A hundred million orders a day are 1,157 a second, on 665 packets."""
    found = plan(StreamConfig(), SchedulerConfig(), 1000, 1e8, MEASURED)
    assert (found.worst_wait_s, found.rekey_s) == (inf, inf)


def test_the_command_answers_in_words_and_in_json(tmp_path: Path) -> None:
    """Classes from a file; the plot is an SVG with a line for each of three bandwidths."""
    classes = tmp_path / "classes.toml"
    classes.write_text('[[class]]\nname = "only"\nevery = "10min"\n')
    plot = tmp_path / "plan.svg"
    asked = ["--boxes", "100000", "--bandwidth", "100", "--orders-per-day", "1000"]
    asked += ["--classes", str(classes), "--plot", str(plot)]
    said = _run(*asked)
    assert said.exit_code == 0, said.output
    assert "worst wait of a box: 25.1 min" in said.output
    [one] = json.loads(_run(*asked, "--json").output)["classes"]
    assert (one["name"], one["falls_behind"]) == ("only", False)
    assert one["period_s"] == pytest.approx(100_000 / 66.49, rel=0.001)
    lines = ET.parse(plot).getroot().findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 3


def test_what_falls_behind_is_null_in_json() -> None:
    """JSON has no infinity."""
    said = json.loads(
        _run("--boxes", "1", "--bandwidth", "1", "--orders-per-day", "1e9", "--json").output
    )
    assert said["worst_wait_s"] is None
    assert said["classes"][0]["falls_behind"] is True


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('[[class]]\nname = "a"\nevery = "1s"\nairings = 2\n', "the last class airs for ever"),
        ("[cycler]\n", r"expected \[\[class\]\] tables"),
        ('[[class]]\nname = "a"\nevery = 1\n', "every"),
    ],
)
def test_bad_classes_are_refused_as_in_the_configuration(
    tmp_path: Path, text: str, error: str
) -> None:
    """The same checks as for [[cycler.stream.class]]."""
    classes = tmp_path / "classes.toml"
    classes.write_text(text)
    said = _run(
        "--boxes", "1", "--bandwidth", "1", "--orders-per-day", "1", "--classes", str(classes)
    )
    assert isinstance(said.exception, PortcullisError)
    with pytest.raises(PortcullisError, match=error):
        raise said.exception
