"""What stops a run in the middle of a sweep is told once, the rest goes on, and it is made good.

With real processes: `study run`, Snakemake, papermill, kernels and signals.
"""

import errno
import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from PIL import Image

from studylib import attempts, errors, execute, plan, runs
from tests.fixtures import project

# What stops a run, done in its notebook; the process that runs papermill is the kernel's parent.
TROUBLE = """
import signal
from pathlib import Path

if mode == "picture":
    from studylib import datasets

    datasets.load("folder", "pictures")
if mode == "kernel":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "parent":
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
if mode == "full":
    Path(run.folder, "large").write_bytes(bytes(40_000_000))
"""
SWEEP = """
profiles: {smoke: {about: all there is}}
experiments:
  tiny:
    title: A sweep
    notebook: notebooks/tiny.ipynb
    grid:
      - mode: {%s}
reports:
  tiny_report:
    title: A report on it
    notebook: notebooks/tiny_report.ipynb
    of: [tiny]
"""


def make(folder, *modes):
    """A project with one run for each way to be stopped; "good" ends well."""
    root = project.make(folder, SWEEP % ", ".join(f"{m}: {{mode: {m}}}" for m in modes))
    path = root / "notebooks" / "tiny.ipynb"
    notebook = nbformat.read(path, as_version=4)
    cell = nbformat.v4.new_code_cell(TROUBLE, id="trouble")
    notebook.cells.insert(5, cell)
    nbformat.write(notebook, path)
    return root


def study(root, *words):
    """Run `study` to its end; return the exit code and what it said on both streams."""
    command = [sys.executable, "-m", "studylib.cli", *words]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=200)
    return done.returncode, done.stdout, done.stderr


def broken_picture(root):
    picture = root / "pictures" / "ann" / "1.jpg"
    picture.parent.mkdir(parents=True)
    Image.effect_noise((112, 112), 50).convert("RGB").save(picture)
    picture.write_bytes(picture.read_bytes()[:600])


def test_each_failure_is_told_once_and_the_rest_goes_on(tmp_path):
    """A failing cell, an unreadable picture, a killed kernel, and a killed worker, in one sweep."""
    root = make(tmp_path / "study", "bad", "picture", "kernel", "parent", "good")
    broken_picture(root)
    code, _, err = study(root, "run", "--profile", "smoke", "--jobs", "2")
    assert code == 2
    told = re.findall(r"^tiny/smoke-(\w+) failed\. (.*)$", err, re.MULTILINE)
    assert [name for name, _ in told] == ["bad", "picture", "kernel", "parent"]
    said = dict(told)
    assert "In [5], 'if mode == \"bad\":': the picture cat.png cannot be read." in said["bad"]
    assert re.search(r"In \[6\], 'import signal': .*ann/1\.jpg", said["picture"])
    assert "In [6], 'import signal', without an answer from its kernel" in said["kernel"]
    assert "was cut off at cell In [6], 'import signal', as by a kill" in said["parent"]
    assert "tiny_report/smoke was not run: it reads tiny/smoke-bad and 3 more.\n" in err
    assert err.endswith("study: " + errors.RUNS_FAILED.format(failed=4, total=6) + "\n")
    assert err.count("\n") == 6

    jobs = plan.load(root / "study.yml").jobs("smoke")
    for name, text in told:  # the notebook up to there, and its log, are where the message says
        notebook, log = re.search(r"up to there: (\S+), its log: (\S+)$", text).groups()
        assert attempts.stopped_at(root / notebook)[0] == (5 if name == "bad" else 6)
        assert (root / log).is_file()
    _, out, _ = study(root, "status", "--profile", "smoke", "--json")
    rows = {row["run"].removeprefix("tiny/smoke-"): row for row in json.loads(out)}
    assert [rows[name]["reasons"] for name, _ in told] == [[text] for _, text in told]
    assert rows["good"]["state"] == "done"

    good = next(job for job in jobs if job.name == "smoke-good")
    before = (good.folder / runs.RECORD).stat().st_mtime_ns
    text = (root / "study.yml").read_text()
    (root / "study.yml").write_text(re.sub(r"\{mode: \w+\}", "{mode: good}", text))
    code, out, err = study(root, "run", "--profile", "smoke", "--jobs", "2")
    assert (code, err) == (0, "")
    assert out.startswith("1 of 6 runs are done, 5 to make:\n")
    assert out.endswith("All 5 runs finished.\n")
    assert (good.folder / runs.RECORD).stat().st_mtime_ns == before
    outcomes = {runs.read_record(job.folder)["outcomes_sha256"] for job in jobs[:-1]}
    assert len(outcomes) == 1
    assert not list((root / "runs").glob("*/.*.[fp]a*"))  # neither .partial nor .failed


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 20 MB below a project's runs folder."""
    folder = tmp_path / "study" / "runs"
    folder.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("no file system of a test's own can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_told_once_and_the_rest_goes_on(tmp_path, small_disk):
    root = make(tmp_path / "study", "full", "good")
    code, _, err = study(root, "run", "tiny", "--profile", "smoke")
    assert code == 2
    assert err.count("tiny/smoke-full failed.") == 1
    assert errors.DISK_FULL.format(run="tiny/smoke-full", folder="runs/tiny") in err
    assert err.endswith("study: 1 of 2 runs failed.\n")
    full, good = plan.load(root / "study.yml").jobs("smoke", ["tiny"])
    assert (plan.state(full).kind, plan.state(good).kind) == ("failed", "done")
    left = {path.name for path in full.beside("failed").iterdir()}
    assert left <= {attempts.NOTEBOOK, attempts.LOG, attempts.REASON}
    project.edit(root / "study.yml", "{mode: full}", "{mode: good}")
    assert study(root, "run", "tiny", "--profile", "smoke")[0] == 0


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, errors.DISK_FULL.format(run="tiny/smoke-plain", folder="runs/tiny")),
        (
            errno.EIO,
            errors.NOT_WRITTEN.format(
                run="tiny/smoke-plain", folder="runs/tiny", reason="OSError: [Errno 5] no luck"
            ),
        ),
    ],
)
def test_what_cannot_be_written_is_one_sentence(tmp_path, monkeypatch, number, message):
    job = plan.load(project.make(tmp_path / "study") / "study.yml").jobs("smoke")[0]

    def no_luck(*_):
        raise OSError(number, "no luck")

    monkeypatch.setattr(execute, "_papermill", no_luck)
    with pytest.raises(errors.RunError) as caught:
        execute.execute(job)
    assert str(caught.value) == message
    assert plan.state(job) == plan.State("failed", (message,))
    monkeypatch.setattr(execute, "_execute", no_luck)
    with pytest.raises(errors.RunError, match=re.escape(message)):
        execute.execute(job)


def test_a_shell_gets_all_runs_that_can_be_made(tmp_path, monkeypatch, capsys):
    """One call for several runs, as for those that share a cluster's job: a bad one stops none."""
    root = make(tmp_path / "study", "bad", "good")

    def made(job, threads, force):
        if job.name == "smoke-bad":
            raise errors.RunError("it stopped at cell 5")
        return True

    monkeypatch.setattr(execute, "execute", made)
    words = ["--project", str(root), "--profile", "smoke", "tiny", "smoke-bad", "smoke-good"]
    assert execute.main(words) == 2
    out, err = capsys.readouterr()
    assert out == "tiny/smoke-good: finished\n"
    assert err == "it stopped at cell 5\n"


def test_where_an_attempt_stopped(tmp_path):
    partial = tmp_path / "runs" / "tiny" / ".x.partial"
    path = partial / "one" / attempts.NOTEBOOK
    assert attempts.cut_off(partial, tmp_path) == ""
    path.parent.mkdir(parents=True)
    nothing = errors.CUT_OFF.format(where="before its first cell", left="")
    assert attempts.cut_off(partial, tmp_path) == nothing
    assert attempts.cut_off(partial, tmp_path, frozenset({"one"})) == ""
    notebook = nbformat.v4.new_notebook()
    sources = ("a = 1", "# why\n\nfor i in range(9):\n    pass", "c = 3")
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell("text"))
    for cell, status in ((notebook.cells[0], "completed"), (notebook.cells[2], "running")):
        cell.metadata["papermill"] = {"status": status, "start_time": "2020"}
    nbformat.write(notebook, path)
    assert attempts.stopped_at(path) == (2, "for i in range(9):")
    assert attempts.progress(path) == (1, 3)
    (path.parent / attempts.LOG).touch()
    said = tmp_path / "runs" / "logs" / "slurm" / "rule_tiny"
    said.mkdir(parents=True)
    (said / "41.log").touch()  # of another run
    where = "at cell In [2], 'for i in range(9):'"
    left = errors.CUT_OFF_LEFT.format(
        partial="runs/tiny/.x.partial/one/notebook.ipynb",
        log="runs/tiny/.x.partial/one/kernel.log",
    )
    told = errors.CUT_OFF.format(where=where, left=left)
    assert attempts.cut_off(partial, tmp_path) == told
    path.parent.rename(partial / "one-41")
    left = left.replace("/one/", "/one-41/")
    left += errors.CUT_OFF_CLUSTER.format(log="runs/logs/slurm/rule_tiny/41.log")
    told = errors.CUT_OFF.format(where=where, left=left)
    assert attempts.cut_off(partial, tmp_path) == told
    assert attempts.first_line("x = " + "1" * 100) == "x = " + "1" * 53 + "..."


@pytest.mark.parametrize(("number", "ending"), [("", ""), ("41", "-41"), ("../x", "")])
def test_an_attempts_name_ends_in_the_number_of_slurms_job(monkeypatch, number, ending):
    monkeypatch.setenv("SLURM_JOB_ID", number)
    assert re.fullmatch(f"[0-9a-f]{{8}}{ending}", attempts.new_name())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    job = plan.load(project.make(tmp_path / "study") / "study.yml").jobs("smoke")[0]
    job.folder.parent.mkdir(parents=True)
    job.folder.parent.chmod(0o500)
    with pytest.raises(errors.RunError, match="PermissionError"):
        execute.execute(job)
