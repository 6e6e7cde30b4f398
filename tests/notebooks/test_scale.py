"""The page on costs: every table is there, adds up, and says where its numbers come from."""

import json
import shutil

import pandas as pd
import pytest

from studylib import cost, plan, speed
from tests.notebooks import test_chapters
from tests.notebooks.test_chapters import PROJECT, charts, execute

AGES = 9e8  # seconds

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
def study(tmp_path_factory):
    """The study with a single time: of a chapter that took ages with other parameters."""
    root = tmp_path_factory.mktemp("study")
    for name in (plan.FILE, "notebooks"):
        (root / name).symlink_to(PROJECT / name)
    shutil.copytree(PROJECT / "book", root / "book", ignore=shutil.ignore_patterns("costs"))
    words = ("noise_and_power", "notebooks/noise_and_power.ipynb", "quick", "quick", "other", "it")
    row = (*words, "cpu", 1, AGES, AGES, 1, 1, "", 0.0, 0.0)
    (root / cost.TABLE).parent.mkdir()
    pd.DataFrame([row], columns=cost.COLUMNS).to_csv(root / cost.TABLE, index=False)
    return root


@pytest.fixture(scope="module")
def page(study, tmp_path_factory):
    """The page, as it is made alone: with several threads."""
    folder = tmp_path_factory.mktemp("scale")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "2")
        patched.setattr(test_chapters, "PROJECT", study)
        return folder, execute(folder, "scale", **TINY)


@pytest.fixture(scope="module")
def said(page):
    """What the page says in words that code made."""
    cells = json.loads((page[0] / "out.ipynb").read_text())["cells"]
    shown = [out["data"] for cell in cells for out in cell.get("outputs", ()) if "data" in out]
    return "\n".join("".join(one.get("text/markdown", "")) for one in shown)


@pytest.mark.filterwarnings("ignore")  # papermill's and Jupyter's own
def test_the_plan_is_added_up_for_each_machine(page):
    found = page[1].table("budgets")
    jobs = plan.load(PROJECT / plan.FILE).jobs("smoke")
    machines = ["this machine, 2 at a time", "one A100", "4 A100"]
    assert found["machine"].tolist() == machines
    assert set(found["runs"]) == {len(jobs)}
    bases = ["here", "elsewhere", "computed", "other", "unknown"]
    assert (found[bases].sum(axis=1) == len(jobs)).all()
    one, several = found["seconds"][1:]
    assert one == pytest.approx(found["work_seconds"][1])
    assert several <= one
    each = page[1].table("jobs")
    assert each["run"].tolist() == [job.id for job in jobs]
    assert each["counted"].sum() == pytest.approx(found["work_seconds"][0])
    named = [cost.HERE, cost.ELSEWHERE, cost.COMPUTED, cost.OTHER, cost.UNKNOWN]
    counted = each["basis"].value_counts().reindex(named, fill_value=0)
    assert found.loc[0, bases].tolist() == counted.tolist()


def test_a_time_of_other_parameters_is_in_no_sum(page, said):
    each = page[1].table("jobs").set_index("run")
    other = each.loc["noise_and_power/smoke"]
    assert (other["seconds"], other["basis"]) == (AGES, cost.OTHER)
    budgets = page[1].table("budgets")
    assert (budgets["other"] == 1).all()
    assert (budgets["seconds"] < AGES).all()
    assert (page[1].table("makespans")["hours"] < AGES / 3600).all()
    counted = each["counted"]
    assert f"{counted.count()} of {len(each)} runs are in the sum" in said
    assert f"The longest of them is {counted.idxmax()} with {cost.span(counted.max())}" in said
    assert counted.max() < AGES


def test_a_processor_is_timed_with_one_thread(page):
    assert page[1].record["threads"] == 1


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


def test_words_and_charts(page, said):
    assert "depthwise networks" in said and "4% (depthwise networks)" in said
    assert "take 47.0 GB" in said and "take 2.6 GB" in said  # 1.25 M of 112 x 112 x 3; 2 x 512 x 2
    assert "computed and not measured" in said
    assert charts(page[0]) >= 4
    assert "The study carries the times of 1 runs, measured on it" in said
    assert (
        f"{cost.TABLE.as_posix()}`). `python -c 'from studylib import cost; cost.store()'`" in said
    )


def test_no_command_of_the_page_takes_away_what_the_plan_asks_for():
    cells = json.loads((PROJECT / "notebooks/scale.ipynb").read_text())["cells"]
    text = "".join("".join(cell["source"]) for cell in cells)
    commands = [line for line in text.splitlines() if line.startswith("study run")]
    assert len(commands) >= 6
    assert not any(f"--{word}" in line for line in commands for word in ("gpus", "mem", "time"))
