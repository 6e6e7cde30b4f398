"""Run one job: a notebook through papermill, into a folder that is whole or not there.

The notebook works in a hidden folder beside the final one, under a name of its own for every
attempt, and is moved in place by renaming when it is finished. So a killed attempt leaves nothing
but a hidden folder, and a kernel that outlives its parent writes where nobody looks. A lock per
job keeps two runners from making the same run twice.

`python -m studylib.execute --profile quick EXPERIMENT RUN...` does the same from a shell; it is
what the Snakefile calls.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from studylib import attempts, errors, light, plan, runs
from studylib.attempts import LOG, NOTEBOOK, REASON

_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES}
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
        The notebook failed, or its results could not be written, as on a full disk; its executed
        part is kept beside the run's folder, as .RUN.failed.
    """
    try:
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(job.beside("lock")):
            return _execute(job, threads, force)
    except OSError as problem:  # before or after the attempt itself
        raise _unwritten(job, problem) from problem


def _execute(job: plan.Job, threads: int, force: bool) -> bool:
    """Do what `execute` says, while its lock is held."""
    _recover(job)
    if not force and plan.standing(job).kind == "done":
        return False
    partial = job.beside("partial") / attempts.new_name()
    partial.mkdir(parents=True)
    try:
        plan.check(job)
        _make(job, partial, threads)
    except errors.StudyError as problem:
        _keep_failure(job, partial, str(problem))
        raise
    except OSError as problem:
        _keep_failure(job, partial, str(_unwritten(job, problem)))
        raise
    _swap(job, partial)
    return True


def progress(job: plan.Job) -> tuple[int, int] | None:
    """Return how many code cells of a running job are done, and of how many; None if unknown."""
    found = map(attempts.progress, job.beside("partial").glob(f"*/{NOTEBOOK}"))
    return next(filter(None, found), None)


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
    with contextlib.chdir(job.root), _environment(threads), _stderr_to(partial / LOG):
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
    (partial / LOG).unlink()
    runs.write_record(partial, record | made_from)


def _papermill(job: plan.Job, source: str, target: str) -> None:
    """Call papermill, and turn whatever stops the notebook into one sentence."""
    papermill = light.load("papermill")  # here, since it is slow to load

    left = {name: _shown(job, job.beside("failed") / name) for name in (NOTEBOOK, LOG)}
    told = {"notebook": source, "run": job.id, "partial": left[NOTEBOOK], "log": left[LOG]}
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
                **told,
                cell=problem.exec_count,
                line=attempts.first_line(problem.source),
                reason=reason.rstrip("."),
            )
        ) from problem
    except Exception as problem:  # the kernel died or would not start: many types say so
        if isinstance(problem, OSError) and _is_unwritten(problem, target):
            raise  # papermill could not write the notebook, as on a full disk
        where = attempts.where(Path(target) / NOTEBOOK)
        reason = f"{type(problem).__name__}: {problem}".rstrip(".")
        raise errors.RunError(
            errors.FAILED_KERNEL.format(**told, where=where, reason=reason)
        ) from problem


def _is_unwritten(problem: OSError, target: str) -> bool:
    """Tell a file of the attempt that cannot be written from, say, a program that may not be run.

    What goes wrong while an open file is written, as on a full disk, names no file.
    """
    named = problem.filename
    ours = named is None or Path(str(named)).is_relative_to(target)
    return ours and problem.errno in _UNWRITABLE


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
    """Keep a failed attempt's notebook, log and reason until the next attempt.

    The rest goes: nobody reads results without a record, and they may be what filled the disk.
    """
    for path in partial.iterdir():
        if path.name not in (NOTEBOOK, LOG):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (partial / REASON).write_text(reason + "\n", encoding="utf-8")
    shutil.rmtree(job.beside("failed"), ignore_errors=True)
    partial.rename(job.beside("failed"))
    shutil.rmtree(job.beside("partial"), ignore_errors=True)


def _unwritten(job: plan.Job, problem: OSError) -> errors.RunError:
    """Say that a run's files could not be written, and what to do."""
    folder = _shown(job, job.folder.parent)
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return errors.RunError(errors.DISK_FULL.format(run=job.id, folder=folder))
    reason = f"{type(problem).__name__}: {problem}".rstrip(".")
    return errors.RunError(errors.NOT_WRITTEN.format(run=job.id, reason=reason, folder=folder))


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
    """Execute jobs one after another from the command line; the exit code is 2 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m studylib.execute", description=execute.__doc__)
    parser.add_argument("experiment", help="experiment or report in study.yml")
    parser.add_argument(
        "runs", nargs="+", metavar="run", help="name of a run's folder, e.g. quick-ptq-real"
    )
    parser.add_argument("--profile", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--force", action="store_true", help="make it again though it is done")
    parser.add_argument("--project", type=Path, default=Path.cwd(), help="folder of study.yml")
    args = parser.parse_args(argv)
    failed = False
    for run in args.runs:
        try:
            job = plan.load(args.project / plan.FILE).job(args.profile, args.experiment, run)
            ran = execute(job, threads=args.threads, force=args.force)
        except errors.StudyError as problem:  # the rest goes on
            print(problem, file=sys.stderr)
            failed = True
        else:
            print(f"{job.id}: {'finished' if ran else 'was done already'}")
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
