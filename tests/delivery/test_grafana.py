"""The dashboards are as their code makes them; the system test asks their queries."""

import json
import runpy
from pathlib import Path

GRAFANA = Path("deploy/grafana")


def test_the_dashboards_are_as_the_code_makes_them() -> None:
    """`make docs` was run after the last change."""
    code = runpy.run_path(str(GRAFANA / "make.py"))
    made = {uid: code["document"](uid, *rest) for uid, rest in code["DASHBOARDS"].items()}
    kept = {path.stem: path.read_text() for path in (GRAFANA / "dashboards").glob("*.json")}
    assert made == kept


def test_every_panel_has_a_title_a_unit_and_a_query() -> None:
    """And every query a legend; panels do not overlap."""
    for path in (GRAFANA / "dashboards").glob("*.json"):
        places = set()
        for panel in json.loads(path.read_text())["panels"]:
            assert panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert all(one["legendFormat"] and one["refId"] for one in panel["targets"])
            places.add((panel["gridPos"]["x"], panel["gridPos"]["y"]))
        assert len(places) == len(json.loads(path.read_text())["panels"])
