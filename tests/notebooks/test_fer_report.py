"""The report on expression runs, from made-up runs: stock papermill, then the saved tables."""

import nbformat
import pytest

from studylib import runs, verdicts
from tests.fixtures import expression_runs
from tests.notebooks.test_chapters import charts, execute


def texts(folder) -> str:
    notebook = nbformat.read(folder / "out.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("data", {}).get("text/markdown", "") for output in outputs)


@pytest.mark.filterwarnings("ignore")  # papermill's and Jupyter's own
def test_two_studies_one_of_them_of_two_protocols(tmp_path):
    expression_runs.write_runs(tmp_path / "runs", gap=0.06, widening=0.3)
    found = execute(tmp_path, "fer_report", runs_dir=str(tmp_path / "runs"), resamples=100)
    assert charts(tmp_path) == 7
    judged = found.table("verdicts").set_index("key")["verdict"]
    assert judged["widens_group"] == verdicts.SUPPORTED
    assert judged["robust"] == verdicts.OPEN
    changes = found.table("gap_changes_group").set_index("variant")
    assert changes.index[changes["p_holm"] < 0.05].tolist() == ["s90"]
    assert len(found.table("protocols")) == 7
    text = texts(tmp_path)
    assert "Simulated faces of simulated groups" in text and "nan" not in text
    assert "The paper has no figures on these data" in text
    assert "Study: simfaces with 924 training faces. fp32: " in text
    assert "the studies also differ in epochs (8 against 3), test faces (280 against 560)" in text
    assert "the scale of the pixels" in text and "can have bought" not in text
    assert "simfaces with 924 training faces, sound, profile quick" in text
    gains = found.table("protocols").set_index("variant").loc["fp32"]
    assert gains["as_published gain low"] < gains["as_published gain"] == pytest.approx(0.04)


@pytest.mark.filterwarnings("ignore")
def test_one_run_without_groups_confidences_and_controls(tmp_path):
    table = expression_runs.outcomes(people=20)
    bare = table.drop(columns=["group", "gender", *(c for c in table if "confidence" in c)])
    bare = bare.drop(columns="predicted_ft2")
    folder = tmp_path / "runs" / "fer_compression" / "quick-one"
    expression_runs.write_run(folder, bare)
    found = execute(tmp_path, "fer_report", runs_dir=str(tmp_path / "runs"), resamples=50)
    assert found.table("verdicts")["key"].tolist() == ["small", "own_small", "robust"]
    text = texts(tmp_path)
    for said in (
        "**One run.**",
        "nothing can be said by group",
        "There are no groups to compare.",
        "The runs kept no confidences",
        "This profile holds no study with runs of both protocols.",
    ):
        assert said in text
    assert runs.read(tmp_path / "run").record["experiment"] == "fer_report"
