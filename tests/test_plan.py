import json

import pytest
from filelock import FileLock

from studylib import errors, plan, runs
from tests.fixtures import project


@pytest.fixture
def root(tmp_path):
    return project.make(tmp_path / "study")


@pytest.fixture
def study(root):
    return plan.load(root / "study.yml")


def pretend_done(job):
    """Write the record that a run of this job would leave."""
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "outcomes.parquet").write_bytes(b"rows")
    record = {
        "schema": 1,
        "parameters": plan.effective(job),
        "notebook_sha256": plan.notebook_sha256(job.notebook),
        "code": runs.code_hashes(),
        "inputs": plan.input_hashes(job),
        "outcomes_sha256": runs.file_sha256(job.folder / "outcomes.parquet"),
        "started": "2020-01-01T00:00:00+00:00",
    }
    runs.write_record(job.folder, record)


def test_jobs_of_a_profile(study, root):
    plain, slow, report = study.jobs("smoke")
    assert [plain.id, slow.id, report.id] == [
        "tiny/smoke-plain",
        "tiny/smoke-slow",
        "tiny_report/smoke",
    ]
    assert plain.parameters == {"n": 4, "seed": 3}
    assert slow.parameters == {"n": 4, "seed": 3, "seconds": 2}
    assert plain.folder == root / "runs" / "tiny" / "smoke-plain"
    assert plain.notebook == root / "notebooks" / "tiny.ipynb"
    assert report.inputs == (plain.folder, slow.folder)
    assert report.parameters == {"runs_dir": "runs", "profile": "smoke"}


def test_profile_overrides_and_runs_default_to_all(study):
    jobs = study.jobs("full", ["tiny"])
    assert [job.name for job in jobs] == ["full-plain", "full-slow", "full-bad", "full-dead"]
    assert jobs[2].parameters == {"n": 6, "seed": 3, "mode": "bad"}


def test_a_report_brings_its_runs_and_an_experiment_comes_alone(study):
    assert len(study.jobs("smoke", ["tiny_report"])) == 3
    assert [job.experiment for job in study.jobs("smoke", ["tiny"])] == ["tiny", "tiny"]


def test_a_report_shows_no_other_experiment_than_it_is_made_after(root):
    """As a copy of a report would that keeps its notebook's default."""
    notebook = root / "notebooks" / "tiny_report.ipynb"
    asked = '"runs_dir: str = \\"runs\\"\\n",\n    "experiment: str = \\"tinny\\"\\n"'
    project.edit(notebook, '"runs_dir: str = \\"runs\\"\\n"', asked)
    with pytest.raises(errors.ParameterError) as caught:
        plan.load(root / "study.yml").jobs("smoke")
    problem = (
        "report tiny_report would show runs of tinny, which its `of` does not list: give it "
        "parameters: {experiment: ...}"
    )
    assert str(caught.value) == errors.BAD_PLAN.format(file=root / "study.yml", problem=problem)
    project.edit(root / "study.yml", "of: [tiny]", "of: [tiny]\n    parameters: {experiment: tiny}")
    assert plan.load(root / "study.yml").jobs("smoke")[-1].parameters["experiment"] == "tiny"


def test_profile_is_told_to_a_notebook_that_asks(study, root):
    project.edit(root / "notebooks" / "tiny.ipynb", "mode: str", "profile: str")
    assert study.jobs("smoke")[0].parameters == {"n": 4, "seed": 3, "profile": "smoke"}


def test_one_job(study):
    assert study.job("smoke", "tiny_report", "smoke").id == "tiny_report/smoke"
    with pytest.raises(errors.ParameterError, match="Unknown run 'smoke-bad'"):
        study.job("smoke", "tiny", "smoke-bad")


def test_unknown_profile_and_experiment(study):
    with pytest.raises(errors.ParameterError) as caught:
        study.jobs("quick")
    assert str(caught.value) == errors.UNKNOWN_NAME.format(
        what="profile", value="quick", choices="smoke, full"
    )
    with pytest.raises(errors.ParameterError) as caught:
        study.jobs("smoke", ["tinny"])
    assert str(caught.value) == errors.UNKNOWN_NAME.format(
        what="experiment", value="tinny", choices="tiny, tiny_report"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("reports:", "report:", "unknown key 'report' in study.yml"),
        ("title: A tiny", "titel: A tiny", "unknown key 'titel' in tiny"),
        ("smoke: {runs:", "smoke: {run:", "unknown key 'run' in experiment tiny, profile smoke"),
        ("smoke: {runs:", "quick: {runs:", "Unknown profile 'quick'"),
        ("runs: [plain, slow]", "runs: [plane]", "Unknown run 'plane'. Choose one of: plain, slow"),
        ("runs: [plain, slow]", "runs: plain", "runs of experiment tiny, profile smoke must be a"),
        ("of: [tiny]", "of: [tinny]", "Unknown experiment 'tinny'"),
        ("plain: {}", "'a/b': {}", "'a/b' cannot be the name of a folder"),
        ("plain: {}", "plain: 3", "plain of experiment tiny must be a mapping"),
        ("notebooks/tiny.ipynb", "notebooks/no.ipynb", "no.ipynb, is not there"),
        ("    title: A tiny experiment\n", "", "tiny needs a title"),
        ("of: [tiny]", "runs: {}", "unknown key 'runs' in tiny_report"),
        ("of: [tiny]", "profiles: {quick: {}}", "Unknown profile 'quick'"),
        ("of: [tiny]", "profiles: {smoke: {runs: []}}", "unknown key 'runs' in report tiny_report"),
        ("of: [tiny]", "of: [tiny", "no valid YAML"),
    ],
)
def test_bad_plan(root, old, new, message):
    project.edit(root / "study.yml", old, new)
    with pytest.raises(errors.ParameterError) as caught:
        plan.load(root / "study.yml")
    assert message in str(caught.value)


def test_experiment_without_runs(root):
    text = project.STUDY[: project.STUDY.index("    runs:")]
    (root / "study.yml").write_text(text)
    with pytest.raises(errors.ParameterError, match="experiment tiny names no runs"):
        plan.load(root / "study.yml")


def test_no_study_yml(tmp_path):
    with pytest.raises(errors.ParameterError) as caught:
        plan.load(tmp_path / "study.yml")
    assert str(caught.value) == errors.NO_PROJECT.format(start=tmp_path)


def test_unreadable_notebook(study, root):
    (root / "notebooks" / "tiny.ipynb").write_text("not a notebook")
    with pytest.raises(errors.ParameterError, match=r"tiny\.ipynb: it cannot be read as"):
        study.jobs("smoke")


def test_declared_parameters(study):
    known = plan.declared(study.jobs("smoke")[0].notebook)
    assert known == {
        "n": 8,
        "seconds": 0.0,
        "mode": "good",
        "seed": 0,
        "device": "cpu",
        "out_dir": None,
    }


def test_parameter_the_notebook_does_not_know(root):
    project.edit(root / "study.yml", "seconds: 2", "second: 2")
    slow = plan.load(root / "study.yml").jobs("smoke")[1]
    with pytest.raises(
        errors.ParameterError, match=r"tiny.ipynb knows no parameter 'second' \(did"
    ):
        plan.check(slow)


def test_notebook_without_out_dir(study, root):
    project.edit(root / "notebooks" / "tiny.ipynb", "out_dir: str", "outdir: str")
    job = study.jobs("smoke")[0]
    with pytest.raises(errors.ParameterError) as caught:
        plan.check(job)
    assert str(caught.value) == errors.NO_OUT_DIR.format(notebook=job.notebook)


def test_missing_then_done(study):
    job = study.jobs("smoke")[0]
    assert plan.state(job) == plan.State("missing")
    pretend_done(job)
    assert plan.state(job) == plan.State("done")


def test_stale_parameter(study, root):
    pretend_done(study.jobs("smoke")[0])
    project.edit(root / "study.yml", "n: 4", "n: 128")
    job = plan.load(root / "study.yml").jobs("smoke")[0]
    assert plan.state(job) == plan.State("stale", ("parameter n was 4, is now 128",))


def test_stale_parameter_back_to_the_default(study, root):
    pretend_done(study.jobs("smoke")[1])
    project.edit(root / "study.yml", "slow: {seconds: 2}", "slow: {}")
    job = plan.load(root / "study.yml").jobs("smoke")[1]
    assert plan.state(job).reasons == ("parameter seconds was 2, is now 0.0",)


def test_stale_notebook(study):
    job = study.jobs("smoke")[0]
    pretend_done(job)
    project.edit(job.notebook, "time.sleep(seconds)", "time.sleep(seconds + 1)")
    assert plan.state(job) == plan.State("stale", ("notebook changed",))


def test_parameters_renamed_in_the_notebook(study):
    job = study.jobs("smoke")[0]
    pretend_done(job)
    project.edit(job.notebook, "mode: str", "kind: str")
    assert plan.state(job).reasons == (
        "parameter kind is new",
        "parameter mode is gone",
        "notebook changed",
    )


def test_outputs_stored_in_a_notebook_do_not_make_it_stale(study):
    job = study.jobs("smoke")[0]
    pretend_done(job)
    content = json.loads(job.notebook.read_text())
    content["cells"][2].update(execution_count=4, outputs=[{"output_type": "stream"}])
    job.notebook.write_text(json.dumps(content))
    assert plan.state(job).kind == "done"


def test_stale_library(study, monkeypatch):
    job = study.jobs("smoke")[0]
    pretend_done(job)
    now = runs.code_hashes() | {"studylib/metrics/verification.py": "0" * 64}
    monkeypatch.setattr(runs, "code_hashes", lambda: now)
    reason = "library changed: metrics/verification.py"
    assert plan.state(job) == plan.State("stale", (reason,))
    monkeypatch.setattr(runs, "code_hashes", lambda: {f"studylib/{i}.py": "" for i in range(9)})
    assert plan.state(job).reasons[0].startswith("library changed: 0.py, 1.py, 2.py, 3.py, 4.py")
    assert plan.state(job).reasons[0].endswith("more")


def test_stale_report(study):
    plain, slow, report = study.jobs("smoke")
    for job in (plain, slow, report):
        pretend_done(job)
    assert plan.state(report).kind == "done"
    runs.write_record(slow.folder, runs.read_record(slow.folder) | {"started": "later"})
    assert plan.state(report) == plan.State("stale", ("run tiny/smoke-slow is newer",))
    (slow.folder / "run.json").unlink()
    assert plan.state(report).reasons == ("run tiny/smoke-slow is gone",)


LONELY = """  lonely:
    title: A report on published figures
    notebook: notebooks/tiny.ipynb
    files: [figures.csv]
    parameters: {n: 5}
    profiles: {smoke: {parameters: {n: 2}}}
"""


def test_a_report_on_files_alone(root):
    (root / "study.yml").write_text(project.STUDY + LONELY)
    with pytest.raises(errors.ParameterError, match="a file of report lonely, figures"):
        plan.load(root / "study.yml")
    (root / "figures.csv").write_text("1")
    study = plan.load(root / "study.yml")
    assert [job.parameters for job in study.jobs("full", ["lonely"])] == [{"n": 5}]
    (job,) = study.jobs("smoke", ["lonely"])
    assert (job.id, job.parameters, job.inputs) == ("lonely/smoke", {"n": 2}, ())
    pretend_done(job)
    assert plan.state(job).kind == "done"
    (root / "figures.csv").write_text("2")
    assert plan.state(job) == plan.State("stale", ("file figures.csv changed",))


def test_stale_outcomes(study):
    job = study.jobs("smoke")[0]
    pretend_done(job)
    (job.folder / "outcomes.parquet").write_bytes(b"other rows")
    assert plan.state(job).reasons == ("outcomes.parquet is missing or was changed",)


def test_failed_and_running(study):
    job = study.jobs("smoke")[0]
    job.beside("failed").mkdir(parents=True)
    (job.beside("failed") / "reason.txt").write_text("It was dark.\n")
    assert plan.state(job) == plan.State("failed", ("It was dark.",))
    with FileLock(job.beside("lock")):
        assert plan.state(job) == plan.State("running")
    assert plan.state(job).kind == "failed"


def test_todo_takes_along_the_reports_that_read_a_run(study):
    jobs = plain, slow, report = study.jobs("smoke")
    for job in jobs:
        pretend_done(job)
    assert plan.todo(jobs) == []
    (slow.folder / "outcomes.parquet").unlink()
    chosen = plan.todo(jobs)
    assert [job for job, _ in chosen] == [slow, report]
    assert chosen[1][1].reasons == ("run tiny/smoke-slow will be made again",)
    assert [job for job, _ in plan.todo(jobs, force=True)] == [plain, slow, report]


def test_fingerprint_follows_what_a_job_is_made_from(study):
    plain, slow, _ = study.jobs("smoke")
    first = plan.fingerprint(plain)
    assert first == plan.fingerprint(plain)
    assert first != plan.fingerprint(slow)
    project.edit(plain.notebook, "time.sleep(seconds)", "time.sleep(seconds + 1)")
    assert plan.fingerprint(plain) != first


def test_the_study_of_this_project():
    study = plan.load(project.HERE.parent.parent / "study.yml")
    assert list(study.profiles) == ["smoke", "quick", "full"]
    for job in study.jobs("quick"):
        plan.check(job)
    names = {job.name for job in study.jobs("quick", ["fr_quantization"])}
    assert {"quick-ptq-synthetic", "quick-qat-synthetic"} <= names


SECOND = """
  second:
    title: What is done with a file of the first
    notebook: notebooks/tiny.ipynb
    parameters: {mode: {run: tiny/slow, file: weights.safetensors}}
    runs:
      only: {seed: 4}
reports:
  second_report:
    title: A report on the second
    notebook: notebooks/tiny_report.ipynb
    of: [second]
    parameters: {experiment: {run: tiny/plain, file: outcomes.parquet}}
"""


def with_second(tmp_path, second=SECOND):
    return project.make(tmp_path / "two", project.STUDY.partition("reports:")[0].rstrip() + second)


def test_a_run_may_take_a_file_of_an_earlier_run(tmp_path):
    root = with_second(tmp_path)
    study = plan.load(root / "study.yml")
    *first, only, report = study.jobs("smoke", ["second_report"])
    assert [job.id for job in first] == ["tiny/smoke-plain", "tiny/smoke-slow"]
    taken = "runs/tiny/smoke-slow/weights.safetensors"
    assert only.parameters == {"mode": taken, "seed": 4}
    assert only.inputs == (root / "runs" / "tiny" / "smoke-slow",)
    assert report.inputs == (only.folder, root / "runs" / "tiny" / "smoke-plain")
    assert report.parameters["experiment"] == "runs/tiny/smoke-plain/outcomes.parquet"

    for job in (*first, only):
        pretend_done(job)
    assert plan.standing(only) == plan.State("done")
    (first[1].folder / runs.RECORD).write_text("{}")
    assert plan.standing(only).reasons == ("run tiny/smoke-slow is newer",)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("tiny/slow", "tiny/dead", "takes a file of tiny/dead, which profile smoke does not make"),
        ("tiny/slow", "second/only", "second takes a file of second, which must stand above"),
        ("tiny/plain", "tiny/bad", "takes a file of tiny/bad, which profile smoke does not make"),
        ("tiny/slow", "other/run", "second takes a file of other, which must stand above"),
    ],
)
def test_a_file_of_a_run_that_nobody_makes_is_refused(tmp_path, old, new, problem):
    root = with_second(tmp_path, SECOND.replace(old, new))
    with pytest.raises(errors.ParameterError, match=problem):
        plan.load(root / "study.yml")


def test_a_report_may_ask_to_run_alone(study, root):
    assert not any(job.alone for job in study.jobs("smoke"))
    text = (root / "study.yml").read_text()
    (root / "study.yml").write_text(text.rstrip() + "\n    alone: true\n")
    assert [job.alone for job in plan.load(root / "study.yml").jobs("smoke")] == [
        False,
        False,
        True,
    ]
    (root / "study.yml").write_text(text.rstrip() + "\n    alone: much\n")
    with pytest.raises(errors.ParameterError) as caught:
        plan.load(root / "study.yml")
    problem = "alone of report tiny_report must be true or false"
    assert str(caught.value) == errors.BAD_PLAN.format(file=root / "study.yml", problem=problem)


GRID = """
  students:
    title: A grid of runs
    notebook: notebooks/tiny.ipynb
    grid:
      - student: {small: {n: 2}, large: {n: 6}}
        taught: {alone: {}, kd: {mode: {run: tiny/plain, file: weights.safetensors}}}
        seed: {0: {seed: 0}, 1: {seed: 1}}
      - sweep: {p30: {seconds: 0.3}, p70: {seconds: 0.7}}
    runs:
      by-name: {n: 3}
    profiles:
      smoke: {runs: ["small-*-1", "p?0", by-name]}
"""


def with_grid(folder, old="", new=""):
    assert old in GRID
    above, below, reports = project.STUDY.partition("reports:")
    return project.make(folder, above.rstrip() + GRID.replace(old, new) + below + reports)


def test_a_grid_gives_a_run_for_each_combination(tmp_path):
    root = with_grid(tmp_path / "grid")
    study = plan.load(root / "study.yml")
    jobs = {job.name: job for job in study.jobs("full", ["students"])[4:]}
    assert list(jobs) == [
        *(f"full-{s}-{t}-{i}" for s in ("small", "large") for t in ("alone", "kd") for i in "01"),
        *("full-p30", "full-p70", "full-by-name"),
    ]
    assert jobs["full-large-alone-1"].parameters == {"n": 6, "seed": 1}
    weights = "runs/tiny/full-plain/weights.safetensors"
    assert jobs["full-small-kd-0"].parameters == {"n": 2, "mode": weights, "seed": 0}
    assert jobs["full-small-kd-0"].inputs == (root / "runs" / "tiny" / "full-plain",)
    assert jobs["full-p70"].parameters == {"seconds": 0.7}


def test_a_profile_chooses_runs_by_patterns(tmp_path):
    study = plan.load(with_grid(tmp_path / "grid") / "study.yml")
    jobs = [job for job in study.jobs("smoke", ["students"]) if job.experiment == "students"]
    names = ["small-alone-1", "small-kd-1", "p30", "p70", "by-name"]
    assert [job.name for job in jobs] == [f"smoke-{name}" for name in names]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("small-*-1", "tiny-*", "Unknown run 'tiny-*'. Choose one of: small-alone-0"),
        ("by-name: {n: 3}", "p30: {}", "experiment students has two runs named p30"),
        ("p30: {seconds: 0.3}", "a b: {}", "'a b' cannot be the name of a folder"),
        ("p30: {seconds: 0.3}", "p30: 3", "p30 of the axis sweep of experiment students"),
        ("{alone: {}, kd: ", "{alone: {n: 1}, kd: ", "small-alone-0: two axes of the grid set n"),
        ("- sweep: ", "- sweep: {}\n        none: ", "axis sweep in the grid of experiment stud"),
        ("- sweep: ", "- ", "seconds of the axis p30 of experiment students must be a mapping"),
        ("- student: ", "- none\n      - student: ", "each entry of the grid of experiment"),
    ],
)  # fmt: skip
def test_bad_grid(tmp_path, old, new, message):
    root = with_grid(tmp_path / "grid", old, new)
    with pytest.raises(errors.ParameterError) as caught:
        plan.load(root / "study.yml")
    assert message in str(caught.value)


def test_resources_of_an_experiment_a_profile_and_a_report(root):
    (root / "study.yml").write_text(
        project.STUDY.replace(
            "    runs:\n", "    resources: {gpu: 1, mem: 8GB}\n    runs:\n", 1
        ).replace("smoke: {runs:", "smoke: {resources: {mem: 2GB}, runs:")
        + "    resources: {runtime: 30}\n"
    )
    study = plan.load(root / "study.yml")
    assert study.jobs("full")[0].resources == {"gpu": 1, "mem": "8GB"}
    assert study.jobs("smoke")[0].resources == {"gpu": 1, "mem": "2GB"}
    assert study.jobs("smoke")[-1].resources == {"runtime": 30}
    for bad in ("{gpu: [1]}", "{gpu: true}", "{a b: 1}"):
        (root / "study.yml").write_text(f"{project.STUDY}    resources: {bad}\n")
        with pytest.raises(errors.ParameterError, match="must be a whole number or a text"):
            plan.load(root / "study.yml")


def test_a_message_about_many_runs_is_short(tmp_path):
    seeds = ", ".join(f"{i}: {{seed: {i}}}" for i in range(100))
    root = with_grid(tmp_path / "grid", "0: {seed: 0}, 1: {seed: 1}", seeds)
    study = plan.load(root / "study.yml")
    with pytest.raises(errors.ParameterError, match=r"\.\.\. \(403 in all\)\.$"):
        study.job("full", "students", "full-none")
