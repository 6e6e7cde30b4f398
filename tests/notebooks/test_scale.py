"""The page on costs: every table is there, adds up, and says where its numbers come from."""

import json

import pytest

from studylib import cost, plan, speed
from tests.notebooks.test_chapters import PROJECT, charts, execute

TINY = {
    "profiles": ["smoke"],
    "sizes": [32, 48],
    "widths": [0.25],
    "images": [64, 128],
    "identities": [100, 10_000],
    "architectures": ["mobilefacenet"],
    "gpu": "A100",
    "utilisation": {"depthwise": 0.04},
    "gpus": 4,
    "your_students": 33,
    "repeats": 1,
    "steps": 1,
}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    return folder, execute(folder, "scale", **TINY)


@pytest.mark.filterwarnings("ignore")  # papermill's and Jupyter's own
def test_the_plan_is_added_up_for_each_machine(page):
    found = page[1].table("budgets")
    jobs = plan.load(PROJECT / plan.FILE).jobs("smoke")
    machines = ["this machine, 2 at a time", "one A100", "4 A100"]
    assert found["machine"].tolist() == machines
    assert set(found["runs"]) == {len(jobs)}
    assert (found[["measured", "computed", "unknown"]].sum(axis=1) == len(jobs)).all()
    one, several = found["seconds"][1:]
    assert one == pytest.approx(found["work_seconds"][1])
    assert several <= one
    each = page[1].table("jobs")
    assert each["run"].tolist() == [job.id for job in jobs]
    assert each["seconds"].sum() == pytest.approx(found["work_seconds"][0])
    assert set(each["basis"]) <= {cost.HERE, cost.ELSEWHERE, cost.COMPUTED, cost.UNKNOWN}


def test_growth_is_measured_beside_the_computed_line(page):
    growth, epochs, heads = (page[1].table(name) for name in ("growth", "epochs", "heads"))
    assert growth["size"].tolist() == [32, 48]
    assert (growth[["faces_per_s", "computed_per_s"]] > 0).all(axis=None)
    ratio = growth["operations"][1] / growth["operations"][0]
    assert growth["computed_per_s"][0] / growth["computed_per_s"][1] == pytest.approx(ratio)
    assert epochs["computed"][1] == pytest.approx(2 * epochs["computed"][0])
    assert heads["computed"][1] == pytest.approx(100 * heads["computed"][0])
    assert (epochs["seconds"] > 0).all() and (heads["seconds"] > 0).all()


def test_more_places_never_take_longer(page):
    found = page[1].table("makespans")
    assert found["places"].tolist()[:3] == [1, 2, 4]
    assert found["hours"].is_monotonic_decreasing
    total = page[1].table("budgets")["work_seconds"][0] / 3600
    assert found["hours"][0] == pytest.approx(total)


def test_threads_are_measured_in_four_settings(page):
    found = page[1].table("threads")
    settings = found[["jobs", "threads"]].to_numpy().tolist()
    assert settings == [[1, 1], [2, 1], [1, 2], [2, 2]]
    assert (found["together"] > 0).all()


def test_a_set_of_ones_own_is_arithmetic(page):
    row = page[1].table("yours").iloc[0]
    operations, held = speed.count("mobilefacenet", {"embedding": 512})
    work = 3 * (operations + 2 * 28_000 * 512) * 1_250_000 * 26
    assert row["one A100"] == pytest.approx(work / (312e12 * 0.04))
    assert row["33 on 4 A100"] == pytest.approx(9 * row["one A100"])  # nine rounds of four
    assert row["checkpoint_bytes"] == 8 * (held + 28_000 * 512)


def test_words_and_charts(page):
    text = (page[0] / "out.ipynb").read_text()
    said = [
        "".join(out["data"].get("text/markdown", ""))
        for cell in json.loads(text)["cells"]
        for out in cell.get("outputs", ())
        if "data" in out
    ]
    said = "\n".join(said)
    assert "depthwise networks" in said and "4% (depthwise networks)" in said
    assert "take 47.0 GB" in said and "take 2.6 GB" in said  # 1.25 M of 112 x 112 x 3; 2 x 512 x 2
    assert "computed and not measured" in said
    assert charts(page[0]) >= 4
