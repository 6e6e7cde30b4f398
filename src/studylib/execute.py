"""Run one job: a notebook through papermill, into a folder that is whole or not there.

The notebook works in a hidden folder beside the final one, under a name of its own for every
attempt, and is moved in place by renaming when it is finished. So a killed attempt leaves nothing
but a hidden folder, and a kernel that outlives its parent writes where nobody looks. A lock per
job keeps two runners from making the same run twice.

`python -m studylib.execute --profile quick EXPERIMENT RUN` does the same from a shell; it is what
the Snakefile calls.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from studylib import errors, light, plan, runs

NOTEBOOK = "notebook.ipynb"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def execute(job: plan.Job, threads: int = 1, force: bool = False) -> bool:
    """Make a job's run unless it is done, and tell whether there was anything to do.

    Waits where another process is making the same run. An older run in the folder stays until the
    new one is finished.

    Parameters
    ----------
    job : plan.Job
    threads : int
        How many threads the notebook's libraries may use.
    force : bool
        Make it again though it is done.

    Raises
    ------
    ParameterError
        study.yml sets a parameter that the notebook does not declare.
    RunError
        The notebook failed; its executed part is kept beside the run's folder, as .RUN.failed.
    """
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(job.beside("lock")):
        _recover(job)
        if not force and plan.standing(job).kind == "done":
            return False
        partial = job.beside("partial") / uuid.uuid4().hex[:8]
        partial.mkdir(parents=True)
        try:
            plan.check(job)
            _make(job, partial, threads)
        except errors.StudyError as problem:
            _keep_failure(job, partial, str(problem))
            raise
        _swap(job, partial)
        return True


def progress(job: plan.Job) -> tuple[int, int] | None:
    """Return how many code cells of a running job are done, and of how many; None if unknown."""
    for path in job.beside("partial").glob(f"*/{NOTEBOOK}"):
        if cells := _timings(path):
            return sum(cell.get("status") == "completed" for cell in cells), len(cells)
    return None


def _timings(path: Path) -> list[dict]:
    """Return papermill's notes on each code cell; none while it is writing the file."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError):
        return []
    return [c["metadata"].get("papermill", {}) for c in cells if c["cell_type"] == "code"]


def _last_started(path: Path) -> int:
    """Return the number of the code cell that ran last; 0 if none did."""
    started = [n for n, cell in enumerate(_timings(path), start=1) if cell.get("start_time")]
    return max(started, default=0)


def _recover(job: plan.Job) -> None:
    """Clear what a killed attempt left; put the older run back if it died between two renames."""
    shutil.rmtree(job.beside("partial"), ignore_errors=True)
    old = job.beside("old")
    if old.exists() and not (job.folder / runs.RECORD).exists():
        shutil.rmtree(job.folder, ignore_errors=True)
        old.rename(job.folder)
    shutil.rmtree(old, ignore_errors=True)


def _make(job: plan.Job, partial: Path, threads: int) -> None:
    """Execute the notebook into `partial` and complete its record."""
    made_from = {
        "profile": job.profile,
        "notebook_sha256": plan.notebook_sha256(job.notebook),
        "inputs": plan.input_hashes(job),
    }
    # Relative paths, so that the executed notebook names no folder of this machine.
    source = job.notebook.relative_to(job.root).as_posix()
    target = partial.relative_to(job.root).as_posix()
    with contextlib.chdir(job.root), _environment(threads), _stderr_to(partial / "kernel.log"):
        _papermill(job, source, target)
    record = runs.read_record(partial)
    if record is None:
        failed = _shown(job, job.beside("failed") / NOTEBOOK)
        raise errors.RunError(errors.NO_RECORD.format(notebook=source, run=job.id, partial=failed))
    executed = partial / NOTEBOOK
    final = job.folder.relative_to(job.root).as_posix()
    executed.write_text(
        executed.read_text(encoding="utf-8").replace(target, final), encoding="utf-8"
    )
    (partial / "kernel.log").unlink()
    runs.write_record(partial, record | made_from)


def _papermill(job: plan.Job, source: str, target: str) -> None:
    """Call papermill, and turn whatever stops the notebook into one sentence."""
    papermill = light.load("papermill")  # here, since it is slow to load

    failed = _shown(job, job.beside("failed") / NOTEBOOK)
    try:
        papermill.execute_notebook(
            source,
            f"{target}/{NOTEBOOK}",
            parameters={**job.parameters, "out_dir": target},
            kernel_name="python3",
            language="python",
            progress_bar=False,
        )
    except papermill.PapermillExecutionError as problem:
        own = {kind.__name__ for kind in errors.StudyError.__subclasses__()}
        reason = problem.evalue if problem.ename in own else f"{problem.ename}: {problem.evalue}"
        raise errors.RunError(
            errors.FAILED_CELL.format(
                notebook=source,
                run=job.id,
                cell=problem.exec_count,
                reason=reason.rstrip("."),
                partial=failed,
            )
        ) from problem
    except Exception as problem:  # the kernel died or would not start: many types say so
        raise errors.RunError(
            errors.FAILED_KERNEL.format(
                notebook=source,
                run=job.id,
                cell=_last_started(Path(target) / NOTEBOOK),
                reason=f"{type(problem).__name__}: {problem}".rstrip("."),
                partial=failed,
            )
        ) from problem


@contextlib.contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Give the kernel its number of threads, the environment's own kernel, and stable hashes."""
    wanted = dict.fromkeys(THREAD_VARIABLES, str(threads))
    wanted |= {"PYTHONHASHSEED": "0", "JUPYTER_PREFER_ENV_PATH": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _stderr_to(path: Path) -> Iterator[None]:
    """Send what the kernel says outside its cells to a file: it inherits this process's stderr."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(path, "wb") as log:
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def _keep_failure(job: plan.Job, partial: Path, reason: str) -> None:
    """Keep what a failed attempt wrote, with its reason, until the next attempt."""
    (partial / "reason.txt").write_text(reason + "\n", encoding="utf-8")
    shutil.rmtree(job.beside("failed"), ignore_errors=True)
    partial.rename(job.beside("failed"))
    shutil.rmtree(job.beside("partial"), ignore_errors=True)


def _swap(job: plan.Job, partial: Path) -> None:
    """Put the finished run in its place."""
    if job.folder.exists():
        job.folder.rename(job.beside("old"))
    partial.rename(job.folder)
    for leftover in ("old", "partial", "failed"):
        shutil.rmtree(job.beside(leftover), ignore_errors=True)


def _shown(job: plan.Job, path: Path) -> str:
    return path.relative_to(job.root).as_posix()


def main(argv: list[str] | None = None) -> int:
    """Execute one job from the command line; the exit code is 2 if it failed."""
    parser = argparse.ArgumentParser(prog="python -m studylib.execute", description=execute.__doc__)
    parser.add_argument("experiment", help="experiment or report in study.yml")
    parser.add_argument("run", help="name of the run's folder, e.g. quick-ptq-real")
    parser.add_argument("--profile", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--force", action="store_true", help="make it again though it is done")
    parser.add_argument("--project", type=Path, default=Path.cwd(), help="folder of study.yml")
    args = parser.parse_args(argv)
    try:
        job = plan.load(args.project / plan.FILE).job(args.profile, args.experiment, args.run)
        ran = execute(job, threads=args.threads, force=args.force)
    except errors.StudyError as problem:
        print(problem, file=sys.stderr)
        return 2
    print(f"{job.id}: {'finished' if ran else 'was done already'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
