"""The repository's own promises: one set of pins, clean notebooks, a floor plan that holds."""

import ast
import re
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Lowest first; a module imports from its own line or from lines above it.
FLOORS = (
    "errors faces layers light vision attempts",
    "assets catalog align",
    "datasets synthetic models compress metrics",
    "train train_recognition distill teacher_cache qat embed sheets",
    "expressions recognition mixtures students shrink calibration",
    "charts charts_fairness charts_tradeoff charts_expressions runs compare findings published "
    "verdicts claims expression_compare expression_changes expression_changes_shown "
    "expression_details expression_findings results calibration_response charts_calibration speed "
    "charts_cost",
    "audit photographs kd_effects kd_findings plan execute cost book cli",
)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name)[0]).lower()


def pins(lines) -> dict[str, str]:
    found = (line.strip().split("==") for line in lines if "==" in line and line[0] != "#")
    return {normal(name): version for name, version in found}


def direct_dependencies() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    return {normal(name) for name in wanted}


def test_conda_users_get_the_same_pins():
    constraints = pins((ROOT / "constraints.txt").read_text().splitlines())
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    listed = pins(next(d["pip"] for d in conda if isinstance(d, dict)))
    assert listed == {name: constraints[name] for name in direct_dependencies()}


def test_the_pins_satisfy_what_the_study_promises():
    constraints = pins((ROOT / "constraints.txt").read_text().splitlines())
    assert tuple(map(int, constraints["torch"].split(".")[:2])) >= (2, 11)
    assert constraints["jupyter-book"].startswith("1.")
    assert not [name for name in constraints if name.startswith("nvidia")]
    assert not [version for version in constraints.values() if "+" in version or "/" in version]


def test_every_message_has_one_name():
    """A constant defined twice would silently take the other text."""
    body = ast.parse((ROOT / "src" / "studylib" / "errors.py").read_text()).body
    names = [node.targets[0].id for node in body if isinstance(node, ast.Assign)]
    assert len(names) > 50
    assert sorted(set(names)) == sorted(names)


def test_modules_import_only_from_their_floor_or_below():
    floor = {name: level for level, names in enumerate(FLOORS) for name in names.split()}
    home = ROOT / "src" / "studylib"
    for path in sorted(home.rglob("*.py")):
        own = path.relative_to(home).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("studylib"):
                parts = node.module.split(".")
                names = [parts[1]] if len(parts) > 1 else [a.name for a in node.names]
                for name in names:
                    assert floor.get(name, 0) <= floor[own], f"{path.name} imports {name}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_have_parameters_and_no_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert "parameters" in code[0].metadata.get("tags", [])
    assert code[-1].source.endswith("run.finish()")
    assert notebook.cells[0].source.startswith("# ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_papermill_itself_sees_every_parameter(path):
    """Its own reader knows only some annotations; a parameter it misses is called unknown."""
    import papermill

    notebook = nbformat.read(path, as_version=4)
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    declared = {n.target.id for n in ast.parse(cell.source).body if isinstance(n, ast.AnnAssign)}
    assert set(papermill.inspect_notebook(str(path))) == declared


def test_a_report_has_the_name_of_its_chapter():
    """Pages and prose call a chapter by its heading, `study status` by its title."""
    reports = yaml.safe_load((ROOT / "study.yml").read_text())["reports"]
    headings = {
        name: nbformat.read(ROOT / about["notebook"], as_version=4).cells[0].source.split("\n")[0]
        for name, about in reports.items()
    }
    assert headings == {name: f"# {about['title']}" for name, about in reports.items()}
