"""The smoke plan on a real SLURM of one node, which the tests start and stop themselves.

Debian's packages are installed where they are missing. SLURM is told its own folder for all it
writes, but its step daemon reads no other configuration than /etc/slurm/slurm.conf: where such a
file is somebody else's, the tests skip.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from filelock import FileLock, Timeout

from studylib import plan, runs
from tests.fixtures import project

CONFIG = Path("/etc/slurm/slurm.conf")
LOCK = Path(tempfile.gettempdir(), "studylib-tests-slurm.lock")
OURS = "# Written by the tests of this study; they take it away again.\n"
PACKAGES = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
PACKAGES |= {"munged": "munge"}
CLUSTER = """{ours}
ClusterName=study
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
ACCOUNTS = """
slurm-no-account: true
slurm-status-command: squeue
slurm-init-seconds-before-status-checks: 2
seconds-between-status-checks: 1
"""


def install() -> None:
    """Install what is missing, or skip with the reason."""
    if os.geteuid() != 0:
        pytest.skip("starting a SLURM of one's own takes root")
    if CONFIG.exists() and not CONFIG.read_text().startswith(OURS):
        pytest.skip(f"{CONFIG} is somebody else's: this machine belongs to a cluster")
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        pytest.skip(f"{', '.join(missing)} missing, and no apt-get to install them")
    quiet = {"capture_output": True, "text": True, "timeout": 300}
    quiet["env"] = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    words = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing]
    try:
        subprocess.run(["apt-get", "update", "-q"], **quiet)
        told = subprocess.run(words, **quiet).stderr[-200:]
        if shutil.which("systemctl"):  # Debian starts what it installs; the tests start their own
            services = ("munge", "slurmctld", "slurmd")
            mine = [name for name in services if name in missing]
            subprocess.run(["systemctl", "disable", "--now", *mine], **quiet)
    except subprocess.TimeoutExpired as problem:
        told = str(problem)
    if not all(map(shutil.which, PACKAGES)):
        pytest.skip(f"{', '.join(missing)} could not be installed: {told}")


def free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as open_ones:
        found = [open_ones.enter_context(socket.create_server(("", 0))) for _ in range(n)]
        return [one.getsockname()[1] for one in found]


def until(true, deadline: float, problem: str) -> None:
    end = time.monotonic() + deadline
    while not true():
        assert time.monotonic() < end, problem
        time.sleep(0.2)


def said(*words) -> str:
    """Return what a program of SLURM says; nothing where its daemon is too slow to answer."""
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=20).stdout
    except subprocess.TimeoutExpired:
        return ""


def stop(daemon: subprocess.Popen) -> None:
    daemon.terminate()
    try:
        daemon.wait(timeout=20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def kill(process: subprocess.Popen) -> None:
    """Kill `study run` and Snakemake, which is in a session of its own."""
    parent = psutil.Process(process.pid)
    for one in (parent, *parent.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.communicate()


@pytest.fixture(scope="module")
def cluster():
    """Start munged, slurmctld and slurmd in a folder of their own, and stop them afterwards."""
    if not find_spec("snakemake_executor_plugin_slurm"):
        pytest.skip("Snakemake's SLURM executor is missing: pip install 'studylib[cluster]'")
    with contextlib.ExitStack() as started:
        try:  # one file in /etc, so one SLURM at a time
            started.enter_context(FileLock(LOCK, timeout=300))
        except Timeout:
            pytest.skip(f"other tests have held {LOCK} for five minutes")
        install()
        folder = tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True)
        home = Path(started.enter_context(folder))
        host = socket.gethostname().partition(".")[0]
        config = CLUSTER.format(ours=OURS, host=host, home=home, ports=free_ports(2))
        started.enter_context(written(config))
        start(home, started)
        yield
        said("scancel", "--user", "root")
        until(lambda: not said("squeue", "-h"), 60, "jobs are left in the queue")


@contextlib.contextmanager
def written(config: str):
    """Put SLURM's configuration where it is read, and leave no trace of it."""
    folders = [folder for folder in (CONFIG.parent,) if not folder.exists()]
    CONFIG.parent.mkdir(exist_ok=True)
    try:
        CONFIG.write_text(config)
        yield
    finally:
        CONFIG.unlink(missing_ok=True)
        for folder in folders:
            folder.rmdir()


def start(home: Path, started: contextlib.ExitStack) -> None:
    """Start the daemons, each to be stopped at the end, and wait for the node."""
    (home / "key").write_bytes(os.urandom(128))
    (home / "key").chmod(0o600)
    home.chmod(0o755)  # munged wants its socket where everyone may come
    munged = ["munged", "--foreground", "--force", "--num-threads=2", f"--key-file={home}/key"]
    munged += [f"--{name}-file={home}/munged.{name}" for name in ("log", "pid", "seed")]
    munged += [f"--socket={home}/munge.socket"]
    for words in (munged, ["slurmctld", "-D"], ["slurmd", "-D"]):
        with open(home / f"{words[0]}.out", "wb") as out:
            daemon = subprocess.Popen(words, stdout=out, stderr=out, start_new_session=True)
        started.callback(stop, daemon)
        if words is munged:
            until((home / "munge.socket").exists, 20, (home / "munged.out").read_text())
    until(lambda: "idle" in said("sinfo", "-h", "-o", "%T"), 60, "the node did not come up")


@pytest.fixture
def root(tmp_path):
    folder = project.make(tmp_path / "study")
    with open(folder / "profiles" / "slurm" / "config.yaml", "a") as shipped:
        shipped.write(ACCOUNTS)  # what it says of a cluster that keeps none, and less patience
    with open(folder / "study.yml", "a") as text:
        text.write("    alone: true\n")  # the report, as some chapters of the study
    return folder


@pytest.fixture
def study():
    """Start `study run` in a process group of its own; what a test leaves running is killed."""
    started = []

    def start(root, *words):
        command = [sys.executable, "-m", "studylib.cli", "run", "--profile", "smoke", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=root, start_new_session=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            kill(process)


ON_SLURM = ("--executor", "slurm", "--jobs", "2", "--partition", "main", "--mem", "500MB")


def test_a_killed_controller_is_made_good_and_outcomes_are_those_of_a_local_run(
    cluster, root, study
):
    """Killed in the middle, `study` before Snakemake; run to the end; once more without SLURM."""
    plain, slow, report = plan.load(root / "study.yml").jobs("smoke")
    project.edit(root / "study.yml", "slow: {seconds: 2}", "slow: {seconds: 8}")
    first = study(root, *ON_SLURM)
    project.wait_halfway(slow, deadline=90)
    left = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.communicate()
    refused = study(root, *ON_SLURM)  # Snakemake, in a session of its own, goes on
    _, err = refused.communicate(timeout=60)
    assert refused.returncode == 2
    assert f"`kill -INT {left[0].pid}`" in err
    for one in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(left, timeout=20)
    assert said("squeue", "-h", "-o", "%P").split()[0] == "main"  # SLURM's jobs go on without it

    last = study(root, *ON_SLURM)
    out, err = last.communicate(timeout=150)
    assert (last.returncode, err) == (0, ""), out
    assert "tiny_report/smoke: done" in out
    made = {job.folder: runs.read_record(job.folder) for job in (plain, slow)}
    assert all(record["threads"] == 1 for record in made.values())

    local = project.make(root.parent / "local")
    project.edit(local / "study.yml", "slow: {seconds: 2}", "slow: {seconds: 0}")
    here = study(local, "tiny", "--jobs", "2")
    here.communicate(timeout=150)
    for folder, record in made.items():
        same = runs.read_record(local / folder.relative_to(root))
        assert record["outcomes_sha256"] == same["outcomes_sha256"] is not None
    assert plan.state(report).kind == "done"
    assert runs.read_record(report.folder)["threads"] == 1  # alone on its node, with one thread


def test_a_failure_in_a_shared_job_is_told_once_and_the_rest_goes_on(cluster, root, study):
    """Two runs in one job of the cluster, one after the other: the first fails."""
    project.edit(root / "study.yml", "runs: [plain, slow]", "runs: [bad, plain]")
    project.edit(root / "study.yml", "      plain: {}\n", "")
    project.edit(root / "study.yml", "dead}\n", "dead}\n      plain: {}\n")
    process = study(root, *ON_SLURM, "--group", "2", "tiny")
    _, err = process.communicate(timeout=150)
    assert process.returncode == 2
    assert err.count("tiny/smoke-bad failed.") == 1
    assert err.endswith("study: 1 of 2 runs failed.\n")
    jobs = plan.load(root / "study.yml").jobs("smoke", ["tiny"])
    assert {job.name: plan.state(job).kind for job in jobs} == {
        "smoke-bad": "failed",
        "smoke-plain": "done",
    }


def test_an_interrupt_takes_jobs_back_from_the_cluster(cluster, root, study):
    project.edit(root / "study.yml", "slow: {seconds: 2}", "slow: {seconds: 90}")
    process = study(root, *ON_SLURM, "tiny")
    until(lambda: "R" in said("squeue", "-h", "-o", "%t"), 60, "no job was started")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of the group
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == "study: stopped. Finished runs are kept; start again to go on.\n"
    until(lambda: not said("squeue", "-h"), 30, "SLURM still has jobs")
