import errno
import json
import os
import signal
import subprocess
import sys

import papermill
import pytest

from studylib import errors, execute, plan, runs
from tests.fixtures import project


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = project.make(tmp_path_factory.mktemp("execute") / "study")
    return plan.load(root / "study.yml")


@pytest.fixture
def quick(tmp_path):
    """A project whose notebook has no run to finish, and so needs no torch."""
    root = project.make(tmp_path / "study")
    project.without_start(root)
    return plan.load(root / "study.yml")


@pytest.fixture(scope="module")
def plain(study):
    """A run that nobody disturbed."""
    job = study.jobs("smoke")[0]
    assert call(job).wait() == 0
    return job


def call(job, **how):
    """Start `python -m studylib.execute` for a job."""
    words = ["--project", job.root, "--profile", job.profile, job.experiment, job.name]
    return subprocess.Popen([sys.executable, "-m", "studylib.execute", *map(str, words)], **how)


def hidden(job):
    """The kinds of hidden neighbours that a run has left."""
    found = job.folder.parent.glob(f".{job.name}.*")
    return {path.name.removeprefix(f".{job.name}.") for path in found}


def test_finished_run(plain):
    record = runs.read_record(plain.folder)
    assert {p.name for p in plain.folder.iterdir()} == {
        "notebook.ipynb",
        "outcomes.parquet",
        "run.json",
        "sizes.parquet",
    }
    assert record["profile"] == "smoke"
    assert record["parameters"] == {
        "n": 4,
        "seconds": 0.0,
        "mode": "good",
        "seed": 3,
        "device": "cpu",
    }
    assert record["notebook_sha256"] == plan.notebook_sha256(plain.notebook)
    assert record["threads"] == 1
    assert record["inputs"] == {}
    assert plan.state(plain).kind == "done"
    assert hidden(plain) == {"lock"}


def test_executed_notebook_names_no_folder_of_this_machine(plain):
    text = (plain.folder / "notebook.ipynb").read_text()
    assert str(plain.root) not in text
    assert "partial" not in text
    assert 'out_dir = \\"runs/tiny/smoke-plain\\"' in text


def test_finished_run_is_not_repeated(plain):
    before = (plain.folder / "run.json").stat().st_mtime_ns
    assert execute.execute(plain) is False
    assert (plain.folder / "run.json").stat().st_mtime_ns == before


def test_kernel_left_alone_by_a_killed_parent(study, plain):
    slow = study.jobs("smoke")[1]
    process = call(slow, start_new_session=True)
    project.wait_halfway(slow)
    assert plan.state(slow).kind == "running"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert plan.state(slow).kind == "missing"
    assert not slow.folder.exists()

    assert call(slow).wait() == 0
    assert plan.state(slow).kind == "done"
    assert hidden(slow) == {"lock"}
    first, second = ((j.folder / "outcomes.parquet").read_bytes() for j in (plain, slow))
    assert first == second


def test_failing_cell_is_named_with_its_reason(quick, capfd):
    bad = quick.job("full", "tiny", "full-bad")
    with pytest.raises(errors.RunError) as caught:
        execute.execute(bad)
    partial = "runs/tiny/.full-bad.failed/notebook.ipynb"
    assert str(caught.value) == errors.FAILED_CELL.format(
        notebook="notebooks/tiny.ipynb",
        run="tiny/full-bad",
        cell=5,
        line='if mode == "bad":',
        reason="the picture cat.png cannot be read",
        partial=partial,
        log="runs/tiny/.full-bad.failed/kernel.log",
    )
    assert "cat.png" in (bad.root / partial).read_text()
    assert plan.state(bad) == plan.State("failed", (str(caught.value),))
    assert not bad.folder.exists()
    assert capfd.readouterr() == ("", "")


def test_dead_kernel(quick):
    dead = quick.job("full", "tiny", "full-dead")
    with pytest.raises(errors.RunError, match=r"In \[5\], 'if mode == .bad.:', without an answer"):
        execute.execute(dead)
    assert hidden(dead) == {"lock", "failed"}


def test_a_kernel_that_cannot_be_started_is_not_a_full_disk(quick, monkeypatch):
    """Too little memory for a process is an OSError, too, but nothing that could not be written."""
    job = quick.jobs("smoke")[0]

    def no_memory(*_, **__):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(papermill, "execute_notebook", no_memory)
    with pytest.raises(
        errors.RunError, match=r"before its first cell, without an answer from .*: OSError: .*12"
    ):
        execute.execute(job)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("bin/python", r"before its first cell, without an answer from .*: PermissionError: .*13"),
        ("{target}/notebook.ipynb", r"could not be written: PermissionError: .*13"),
        (None, r"could not be written: PermissionError: .*13"),
    ],
)
def test_a_program_that_may_not_be_run_is_nothing_unwritten(quick, monkeypatch, named, message):
    def refused(source, output, **_):
        path = named and named.format(target=os.path.dirname(output))
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(papermill, "execute_notebook", refused)
    with pytest.raises(errors.RunError, match=message):
        execute.execute(quick.jobs("smoke")[0])


def test_failure_keeps_the_older_run(study, plain):
    before = (plain.folder / "run.json").read_bytes()
    broken = plan.Job(**{**vars(plain), "parameters": {"bogus": 1}})
    with pytest.raises(errors.ParameterError, match="knows no parameter 'bogus'"):
        execute.execute(broken)
    assert (plain.folder / "run.json").read_bytes() == before
    assert hidden(plain) == {"lock", "failed"}


def test_killed_between_the_two_renames(plain):
    plain.folder.rename(plain.beside("old"))
    assert execute.execute(plain) is False
    assert plan.standing(plain).kind == "done"
    assert "old" not in hidden(plain)


def test_notebook_that_never_finishes_its_record(quick):
    job = quick.jobs("smoke")[0]
    content = json.loads(job.notebook.read_text())
    content["cells"] = content["cells"][:2]
    job.notebook.write_text(json.dumps(content))
    with pytest.raises(errors.RunError, match=r"came to its end without a run\.json"):
        execute.execute(job)


def test_main_prints_one_line_and_exits_2(study, capsys):
    words = ["--project", str(study.root), "--profile", "smoke", "tiny", "smoke-none"]
    assert execute.main(words) == 2
    assert capsys.readouterr().err.startswith("Unknown run 'smoke-none'. Choose one of: ")


def test_progress_of_a_half_written_notebook(study):
    job = study.job("full", "tiny", "full-plain")
    folder = job.beside("partial") / "one"
    folder.mkdir(parents=True)
    assert execute.progress(job) is None
    (folder / "notebook.ipynb").write_text('{"cells": [')
    assert execute.progress(job) is None
    code = [
        {"cell_type": "code", "metadata": {"papermill": {"status": s}}} for s in ("completed", "")
    ]
    text = {"cell_type": "markdown", "metadata": {}}
    (folder / "notebook.ipynb").write_text(json.dumps({"cells": [*code, text]}))
    assert execute.progress(job) == (1, 2)
    execute._recover(job)
