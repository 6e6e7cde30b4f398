"""The `study` command: look around, get data, make runs, build the book.

Heavy modules are imported by the commands that need them, so that `study --help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Column, Table

from studylib import attempts, errors, plan, runs

DONE, FAILED, INTERRUPTED = 0, 2, 130
_ASKED = {  # the words that ask a cluster for something, and Snakemake's names of it
    "--partition": "slurm_partition",
    "--account": "slurm_account",
    "--gpus": "gpu",
    "--mem": "mem",
    "--time": "runtime",
}
_CANCEL = 90  # seconds for an interrupted Snakemake to take back jobs: SLURM's scancel gets 60
_NOT_REMOTE = ("local", "dryrun", "touch", "slurm-jobstep")  # executors that Snakemake keeps
_ROWS = 20  # of the moving table; a longer sweep shows what is not waiting or done
_SHARED = ": it shared a job with, or waited for, a run that failed"
_MARKS = {
    "done": "[green]done[/]",
    "stale": "[yellow]stale[/]",
    "missing": "[dim]missing[/]",
    "failed": "[red]failed[/]",
    "running": "[cyan]running[/]",
    "waiting": "[dim]waiting[/]",
    "not run": "[red]not run[/]",
}


def main(argv: list[str] | None = None) -> int:
    """Run the `study` command.

    Parameters
    ----------
    argv : list of str, optional
        The words after `study`; those of the process by default.

    Returns
    -------
    int
        0 if all went well, 2 after a mistake that the user can mend (one line on stderr), 130
        after Ctrl-C.
    """
    args, unknown = _parser().parse_known_args(argv)
    if unknown:  # the command's own usage helps, the list of all commands does not
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        return args.command(args)
    except errors.StudyError as problem:
        print(f"study: {problem}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("study: stopped. Finished runs are kept; start again to go on.", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="study",
        description="Make and publish the study: run its notebooks, see what is done, build the "
        "book. What there is to run stands in study.yml.",
    )
    parser.add_argument(
        "--project",
        type=Path,
        metavar="DIR",
        help="the study's folder (default: the nearest one at or above this with a study.yml)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    doctor = _command(
        commands,
        "doctor",
        _doctor,
        "say what this machine has: Python, torch, device, cores, memory, cache, data sets, and "
        "what to do about what is not there",
    )
    _json_flag(doctor)

    data = commands.add_parser("data", help="list, fetch or check the data sets and networks")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    listing = _command(
        actions, "list", _data_list, "show all: tier, licence, citation, size, and if it is here"
    )
    _json_flag(listing)
    get = _command(actions, "get", _data_get, "download an embedded one into the cache")
    get.add_argument("name", metavar="NAME", help="as `study data list` shows it")
    check = _command(actions, "check", _data_check, "read your copy of a data set and check it")
    check.add_argument("name", metavar="NAME", help="as `study data list` shows it")
    check.add_argument("--root", metavar="DIR", help="the folder of your copy")
    _json_flag(check)

    run = _command(
        commands,
        "run",
        _run,
        "make the runs that are missing, failed, or no longer fit the plan, the notebooks or the "
        "library; finished ones are kept",
    )
    run.add_argument(
        "experiments",
        nargs="*",
        metavar="EXPERIMENT",
        help="experiments or reports of study.yml (default: all); a report brings what it reads",
    )
    _profile_flag(run, "quick")
    run.add_argument(
        "--jobs", type=_count, default=1, metavar="N", help="notebooks at a time (default: 1)"
    )
    run.add_argument("--force", action="store_true", help="make finished runs again")
    run.add_argument(
        "--dry-run",
        action="store_true",
        help="only say what would be run and why, and about how long and how much disk it takes",
    )
    _cluster_flags(run)

    book = _command(commands, "book", _book, "build the book from the finished runs")
    _profile_flag(book, "quick")

    status = _command(
        commands, "status", _status, "show each run: its state and why, time, machine"
    )
    _profile_flag(status, None)
    _json_flag(status)

    export = _command(
        commands,
        "export",
        _export,
        "write a finished run's network as an ONNX file, in fp32 or as real int8",
    )
    export.add_argument("run", metavar="RUN", help="as `study status` shows it, or a run's folder")
    export.add_argument(
        "--to",
        choices=("onnx", "onnx-int8"),
        default="onnx-int8",
        help="fp32, or int8 calibrated on faces as in the run, generated ones if it had none "
        "(default: onnx-int8)",
    )
    export.add_argument(
        "--reduce-range",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="7-bit weights, which no processor's int8 sums overflow (default: where this "
        "machine's do)",
    )
    export.add_argument(
        "--out", type=Path, metavar="FILE", help="default: EXPERIMENT-RUN-int8.onnx or -fp32.onnx"
    )

    _audit_flags(
        _command(
            commands,
            "audit",
            _audit,
            "report on the accuracy and fairness in anyone's table of outcomes, CSV or Parquet: "
            "pairs with genuine and score, or pictures with label and predicted, and a group each",
        )
    )
    return parser


def _cluster_flags(run: argparse.ArgumentParser) -> None:
    """Add what a cluster is asked for; these words stand above study.yml's and the profile's."""
    cluster = run.add_argument_group(
        "on a cluster",
        "By Snakemake's executors, whose options stand in profiles/NAME/config.yaml. The study's "
        "folder must be on a file system that every node has, and whose file locks hold between "
        "nodes. Memory and time are a whole job's: with --group they must do for all its runs.",
    )
    cluster.add_argument("--executor", metavar="NAME", help="slurm, cluster-generic, ...")
    cluster.add_argument("--partition", dest="slurm_partition", metavar="NAME", help="SLURM's")
    cluster.add_argument("--account", dest="slurm_account", metavar="NAME", help="SLURM's")
    cluster.add_argument("--gpus", dest="gpu", type=_count, metavar="N", help="of each job")
    cluster.add_argument("--mem", metavar="SIZE", help="of each job, e.g. 8GB")
    cluster.add_argument("--time", dest="runtime", metavar="TIME", help="of each job, e.g. 2h")
    cluster.add_argument(
        "--group", type=_count, default=1, metavar="N",
        help="runs of one experiment that share a job, one after another (default: 1)",
    )  # fmt: skip


def _audit_flags(audit: argparse.ArgumentParser) -> None:
    """Add the flags of `study audit`; column flags may be left out where columns are so named."""
    audit.add_argument("table", type=Path, metavar="TABLE", help="a CSV or Parquet file")
    several = {"action": "extend", "nargs": "+", "default": [], "metavar": "COL"}
    one = {"metavar": "COL"}
    pairs = audit.add_argument_group("pairs")
    pairs.add_argument("--genuine", **one, help="true where both pictures show one person")
    pairs.add_argument(
        "--score", **several, help="similarity, higher is more alike; the first is the reference"
    )
    pairs.add_argument(
        "--lower-is-alike", action="store_true",
        help="all scores are distances: they are negated, and so are thresholds in the report",
    )  # fmt: skip
    pictures = audit.add_argument_group("pictures")
    pictures.add_argument("--label", **one, help="the true class")
    pictures.add_argument(
        "--predicted", **several, help="the predicted class; the first is the reference"
    )
    pictures.add_argument("--confidence", **several, help="from 0 to 1, one for each --predicted")
    both = audit.add_argument_group("both")
    both.add_argument(
        "--group", **one, help="the group, or X where the table has X_a and X_b for a pair's people"
    )
    both.add_argument("--subject-a", **one, help="who the first (or only) picture shows")
    both.add_argument("--subject-b", **one, help="who the second picture of a pair shows")
    audit.add_argument(
        "--fmr", type=float, default=1e-3, metavar="RATE",
        help="false match rate of the global threshold, 0 to 1 (default: 0.001)",
    )  # fmt: skip
    audit.add_argument(
        "--resamples", type=int, default=1000, metavar="N",
        help="resamples behind the intervals, at least 100 (default: 1000)",
    )  # fmt: skip
    audit.add_argument("--seed", type=int, default=0, metavar="N", help="seed (default: 0)")
    audit.add_argument(
        "--out", type=Path, metavar="DIR",
        help="where audit.html and audit.json go (default: NAME-audit in the working folder)",
    )  # fmt: skip


def _command(commands, name: str, function, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(command=function, parser=parser)
    return parser


def _json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for a script")


def _profile_flag(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--profile",
        default=default,
        metavar="PROFILE",
        help=f"smoke, quick or full: how much to compute (default: {default or 'all'})",
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _audit(args) -> int:
    """Audit a table, print the report, and write it as a page and as JSON."""
    from studylib import audit

    named = ("genuine", "score", "label", "predicted", "confidence", "group")
    named += ("subject_a", "subject_b", "lower_is_alike", "fmr", "resamples", "seed")
    folder = args.out or Path(f"{args.table.stem}-audit")
    audit.check_folder(folder, args.table)
    report = audit.audit(args.table, **{name: getattr(args, name) for name in named})
    files = audit.write(report, folder)
    audit.show(report, files)
    return DONE


def _export(args) -> int:
    """Write the network of a finished run as an ONNX file, and say how far it is the same."""
    import torch.nn.functional as F

    from studylib import embed
    from studylib.compress import export

    given = Path(args.run)
    folder = given if given.is_dir() else _load(args).runs_dir / args.run
    made = runs.read(folder)
    network = _network(made)
    faces = _calibration_faces(made, network)
    kind = "fp32" if args.to == "onnx" else "int8"
    out = args.out or Path(f"{made.record['experiment']}-{folder.resolve().name}-{kind}.onnx")
    if kind == "fp32":
        export.write(network, out, faces.images)
    else:
        reduced = export.saturates() if args.reduce_range is None else args.reduce_range
        export.write_int8(network, out, faces.images, reduce_range=reduced)
        print(
            f"Calibrated on {len(faces)} faces ({faces.origin}), {7 if reduced else 8}-bit weights."
        )
        if not reduced:
            print("For processors without VNNI or dot products, write it with --reduce-range.")
    found, wanted = export.run(out, faces.images), embed.embed(network, faces)
    cosine = F.cosine_similarity(found, wanted).mean().item()
    print(
        f"{out}: {out.stat().st_size / 1e6:.2f} MB, mean cosine with the network {cosine:.4f} "
        "on these faces"
    )
    return DONE


def _network(made: runs.Finished):
    """Return the network that a run trained, or else the one that it was about."""
    from studylib import models

    file = made.folder / "network.safetensors"
    if file.is_file():
        return models.load(file)
    if "network" not in made.parameters:
        raise errors.RunError(errors.NO_RUN_NETWORK.format(folder=made.folder, file=file.name))
    return models.load(made.parameters["network"])


def _calibration_faces(made: runs.Finished, network):
    """Return the faces that a run calibrated on, drawn again; synthetic ones if it did not."""
    from studylib import calibration, datasets

    known, real = made.parameters, None
    seed, source = known.get("seed", 0), known.get("calibration", "synthetic")
    if "eval_set" in known:
        source = calibration.chosen(source, known["eval_set"])
    if source == "real":
        faces, _ = datasets.load(known["eval_set"], known["data_root"])
        real, _ = faces.split_by_subject(known["spare"] or 0.5, seed)
    size = {"size": network.pixels.size} if hasattr(network, "pixels") else {}
    given = size | {"real": real, "seed": seed, "root": known.get("calibration_root")}
    return calibration.faces(source, known.get("n_calibration", 128), **given)


def _load(args) -> plan.Plan:
    """Read the study.yml of --project or of the nearest folder at or above this one."""
    start = args.project or Path.cwd()
    root = args.project or runs.project_root(start)
    if root is None or not (root / plan.FILE).is_file():
        raise errors.ParameterError(errors.NO_PROJECT.format(start=Path(start).absolute()))
    return plan.load(root / plan.FILE)


def _name(title: str) -> Column:
    """Make a column for names, which are never broken: they are there to be copied."""
    return Column(title, no_wrap=True)


def _print_json(value) -> int:
    print(json.dumps(value, indent=1, ensure_ascii=False))
    return DONE


def _doctor(args) -> int:
    """Describe the machine and the data."""
    import platform

    import psutil
    import torch

    from studylib import assets

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cache = assets.cache_dir()
    facts = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": gpus or ["cpu"],
        "cpu": runs.cpu_name(),
        "cores": _cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "cache": str(cache),
        "cache_mb": round(_size(cache) / 1e6, 1),
        "data": [_where(entry) for entry in _entries().values()],
    }
    if args.json:
        return _print_json(facts)
    console = Console()
    shown = Table("", "found", show_header=False, box=None)
    shown.add_row("Python", facts["python"])
    shown.add_row("torch", facts["torch"])
    shown.add_row("device", ", ".join(facts["device"]))
    shown.add_row("processor", f"{facts['cpu']}, {facts['cores']} cores")
    shown.add_row("memory", f"{facts['memory_gb']} GB")
    shown.add_row("cache", f"{cache} ({facts['cache_mb']} MB)")
    console.print(shown)
    if not gpus:
        console.print("No GPU: the profiles smoke and quick are made for this; full is not.")
    data = Table(_name("data"), "tier", "state", "what to do")
    for row in facts["data"]:
        data.add_row(row["name"], row["tier"], row["state"], row["advice"])
    console.print(data)
    return DONE


def _entries() -> dict:
    from studylib import catalog

    return catalog.ENTRIES


def _where(entry) -> dict:
    """Say whether an entry of the catalog is on this machine, and what to do if it is not."""
    from studylib import assets

    row = {"name": entry.name, "tier": entry.tier}
    if entry.asset is None and entry.tier == "embedded":
        return row | {"state": "computed when needed", "advice": "nothing"}
    if entry.asset is None:
        return row | {"state": "bring your copy", "advice": entry.get}
    if assets.is_present(entry.asset):
        return row | {"state": "in the cache", "advice": "nothing"}
    text = f"nothing: fetched when first used, or now with study data get {entry.name}"
    return row | {"state": "not fetched yet", "advice": text}


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def _cores() -> int:
    """Return the cores this process may use, which a container or a queue can limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _data_list(args) -> int:
    """Show the catalog with the state of each entry."""
    rows = [asdict(e) | {"state": _where(e)["state"]} for e in _entries().values()]
    if args.json:
        return _print_json(rows)
    console = Console(highlight=False)
    for row in rows:
        size = f"{row['size_mb']:g} MB, " if row["size_mb"] else ""
        facts = f"{row['kind']}, {row['tier']}, {size}{row['state']}"
        lines = [facts, f"Licence: {row['licence']}", f"Cite: {row['citation']}"]
        console.print(f"[bold]{row['name']}[/]: {row['title']}")
        console.print(Padding("\n".join(lines), (0, 0, 1, 4)))
    return DONE


def _data_get(args) -> int:
    """Fetch an embedded entry into the cache, or say how to get another one."""
    from studylib import assets

    entries = _entries()
    if args.name not in entries:
        raise errors.DataError(
            errors.UNKNOWN_DATASET.format(name=args.name, known=", ".join(sorted(entries)))
        )
    entry = entries[args.name]
    if entry.asset is None and entry.tier == "embedded":
        print(f"{entry.title}: nothing to fetch, it is computed when needed")
        return DONE
    if entry.asset is None:
        raise errors.DataError(errors.NOT_EMBEDDED.format(name=entry.name, get=entry.get))
    print(f"{entry.title}: {assets.fetch(entry.asset)}")
    print(f"Licence: {entry.licence}")
    print(f"Cite: {entry.citation}")
    return DONE


def _data_check(args) -> int:
    """Read a whole data set once and print what was found."""
    from studylib import datasets

    findings = datasets.check(args.name, args.root)
    if args.json:
        return _print_json({"name": args.name, "root": args.root, "findings": findings})
    print("\n".join(findings))
    return DONE


def _status(args) -> int:
    """Show the state of every run."""
    study = _load(args)
    profiles = [args.profile] if args.profile else list(study.profiles)
    code = runs.code_hashes()
    rows = [_status_row(job, code) for profile in profiles for job in study.jobs(profile)]
    if args.json:
        return _print_json(rows)
    table = Table(_name("run"), "state", "made", "time", "machine", Column("why", overflow="fold"))
    for row in rows:
        made = row["started"][:16].replace("T", " ") if row["started"] else ""
        took = _clock(row["wall_seconds"]) if row["started"] else ""
        why = "\n".join(row["reasons"])
        table.add_row(row["run"], _MARKS[row["state"]], made, took, row["machine"] or "", why)
    Console().print(table)
    return DONE


def _status_row(job: plan.Job, code: dict[str, str]) -> dict:
    now = plan.state(job, code)
    record = runs.read_record(job.folder) or {}
    on_cpu = record.get("device") == "cpu"
    return {
        "run": job.id,
        "experiment": job.experiment,
        "profile": job.profile,
        "state": now.kind,
        "reasons": list(now.reasons),
        "started": record.get("started"),
        "wall_seconds": record.get("wall_seconds"),
        "machine": record.get("cpu") if on_cpu else record.get("device"),
        "commit": (record.get("git") or {}).get("commit"),
    }


def _book(args) -> int:
    """Build the book."""
    study = _load(args)
    if args.profile not in study.profiles:
        study.jobs(args.profile)  # says which profiles there are
    from studylib import book

    print(book.build(study.root, args.profile))
    return DONE


def _run(args) -> int:
    """Find what is to be run, hand it to Snakemake, and show how it goes."""
    study = _load(args)
    _check_executor(args)
    jobs = study.jobs(args.profile, args.experiments)
    for job in jobs:
        plan.check(job)
    chosen = plan.todo(jobs, force=args.force)
    ready = len(jobs) - len(chosen)
    print(f"{ready} of {len(jobs)} runs are done{f', {len(chosen)} to make:' if chosen else '.'}")
    for job, now in chosen:
        why = f": {'; '.join(now.reasons)}" if now.reasons else ""
        print(f"  {job.id} ({'forced' if now.kind == 'done' else now.kind}{why})")
    wanted = [job for job, _ in chosen]
    if args.dry_run and wanted:
        print(_budget(wanted, args.jobs))
    return DONE if args.dry_run or not wanted else _make(study, wanted, args)


def _budget(jobs: list[plan.Job], n: int) -> str:
    """Say what jobs take, each and in all: one after the other, and `n` at a time."""
    from studylib import cost

    costs = cost.estimates(jobs)
    total = cost.budget(jobs, costs, n)
    table = Table(_name("run"), "time", "disk", Column("known from", overflow="fold"), box=None)
    for job, one in zip(jobs, costs, strict=True):
        known = f"{one.basis}: {one.source}"
        table.add_row(job.id, cost.span(one.seconds), _megabytes(one.bytes), known)
    Console().print(table)
    left = (
        ("unknown", "of which nothing is known"),
        ("other", "timed with other parameters alone"),
    )
    without = " and ".join(f"the {total[name]} {why}" for name, why in left if total[name])
    aside = f" without {without}" if without else ""
    return (
        f"In all about {cost.span(total['work_seconds'])} of work, {cost.span(total['seconds'])} "
        f"with {n} at a time, and {_megabytes(total['bytes'])} of disk{aside}."
    )


def _megabytes(size: float) -> str:
    return "unknown" if math.isnan(size) else f"{size / 1e6:,.1f} MB"


def _make(study: plan.Plan, jobs: list[plan.Job], args) -> int:
    """Run Snakemake over the jobs, one `study run` at a time, and report at the end."""
    logs = study.runs_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{datetime.now():%Y%m%d-%H%M%S}.log"
    watched, stop = [Watched(job) for job in jobs], threading.Event()
    with _only_one(study.runs_dir) as lock:
        command = _snakemake(study, jobs, args, log.with_suffix(".json"))
        with _noted(stop), _child(command, log, lock, remote=bool(args.executor)) as child:
            _watch(child, watched, stop)
    return _report(watched, child.returncode, log, shared=args.group > 1)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[TextIO]:
    """Lock a folder of runs for one `study run`: an open file, locked until nobody holds it.

    Snakemake gets it as well, so that one whose `study run` was killed is not met by a second one.
    The file says which process that is.
    """
    from filelock import lock_descriptor

    with open(folder / ".lock", "a+", encoding="utf-8") as lock:
        try:
            free = lock_descriptor(lock.fileno(), blocking=False)
        except OSError as problem:
            told = errors.NO_LOCKS.format(folder=folder, reason=problem.strerror)
            raise errors.RunError(told) from problem
        if not free:
            lock.seek(0)
            process, _, host = lock.read().partition(" ")
            stop = errors.LOCKED_STOP.format(process=process, host=host) if host else ""
            raise errors.RunError(errors.LOCKED.format(folder=folder, stop=stop))
        lock.truncate(0)
        yield lock


@contextlib.contextmanager
def _child(command: list[str], log: Path, lock: TextIO, remote: bool) -> Iterator[subprocess.Popen]:
    """Start Snakemake, and leave nothing of it running whichever way the block ends.

    With a cluster's jobs to take back it is out of the terminal's reach: a second signal, that of
    Ctrl-C itself, would stop it in the middle of that.
    """
    apart = {"stderr": subprocess.STDOUT, "start_new_session": remote}
    with open(log, "wb") as output:
        child = subprocess.Popen(command, stdout=output, pass_fds=[lock.fileno()], **apart)
    try:
        print(child.pid, socket.gethostname(), end="", file=lock, flush=True)
        yield child
    finally:
        if remote and child.poll() is None:  # only Snakemake can take jobs back from a cluster
            child.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=_CANCEL)
        _kill_tree(child)


@contextlib.contextmanager
def _noted(stop: threading.Event) -> Iterator[None]:
    """Note an interrupt instead of raising it anywhere: in a `__del__` it would go unheard.

    A terminal that hangs up is one, too, but not for who was told to ignore it, as by `nohup`.
    """
    heard = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        heard.append(signal.SIGHUP)
    before = [signal.signal(one, lambda *_: stop.set()) for one in heard]
    try:
        yield
    finally:
        for one, handler in zip(heard, before, strict=True):
            signal.signal(one, handler)


def _snakemake(study: plan.Plan, jobs: list[plan.Job], args, file: Path) -> list[str]:
    """Return the command that makes just these jobs, which a file names: they may be thousands.

    Here the cores are shared out as threads; on a cluster a run gets one. Snakemake's own lock is
    left aside because ours is held, and its bookkeeping goes below runs/.
    """
    threads = 1 if args.executor else max(1, _cores() // args.jobs)
    _write_json(
        file,
        {
            "profile": args.profile,
            "threads": threads,
            "jobs": [job.id for job in jobs],
            "force": args.force,
            "group": args.group,
            "resources": {k: getattr(args, k) for k in _ASKED.values() if getattr(args, k)},
        },
    )
    words = [sys.executable, "-m", "snakemake", "--snakefile", study.root / "Snakefile"]
    words += ["--directory", study.runs_dir, "--configfile", file]
    words += ["--nolock", "--rerun-incomplete", "--keep-going", "--forceall", "--nocolor"]
    words += _on_cluster(study, args) if args.executor else ["--cores", threads * args.jobs]
    return [str(word) for word in words]


def _on_cluster(study: plan.Plan, args) -> list:
    """Return the words that hand jobs to an executor, with the profile of its name if present."""
    words = ["--executor", args.executor, "--jobs", args.jobs]
    profile = study.root / "profiles" / args.executor
    return words + (["--profile", profile] if profile.is_dir() else [])


def _check_executor(args) -> None:
    """Refuse an executor that is not installed, or a cluster's words without one."""
    from importlib.util import find_spec

    name, asked = args.executor, [flag for flag, key in _ASKED.items() if getattr(args, key)]
    if name is None:
        if asked:
            raise errors.ParameterError(errors.ONLY_ON_CLUSTER.format(flags=", ".join(asked)))
        return
    if name in _NOT_REMOTE or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise errors.ParameterError(errors.NOT_AN_EXECUTOR.format(name=name))
    package = f"snakemake-executor-plugin-{name}"
    if not find_spec(package.replace("-", "_")):
        extra = "'studylib[cluster]'" if name == "slurm" else package
        raise errors.ParameterError(errors.NO_EXECUTOR.format(name=name, package=extra))


def _write_json(path: Path, value) -> None:
    """Write a file whole or not at all."""
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(json.dumps(value, indent=1), encoding="utf-8")
    os.replace(scratch, path)


def _kill_tree(process: subprocess.Popen) -> None:
    """End Snakemake and all below it; an attempt may be cut off anywhere, so none is asked."""
    import psutil

    if process.poll() is not None:
        return
    parent = psutil.Process(process.pid)
    for member in (parent, *parent.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


@dataclass
class Watched:
    """A job as seen from outside while it runs: what its folders say."""

    job: plan.Job
    kind: str = "waiting"
    cells: str = ""
    began: float = 0.0
    seconds: float = 0.0

    def __post_init__(self):
        self._before = self._marks()
        self._left = attempts.names(self.job.beside("partial"))

    def _marks(self) -> tuple:
        """Return what tells this attempt's record and failure from those of an earlier one."""
        paths = (self.job.folder / runs.RECORD, self.job.beside("failed") / attempts.REASON)
        return tuple(p.stat().st_mtime_ns if p.exists() else None for p in paths)

    def look(self) -> bool:
        """Look again; tell whether the kind has changed."""
        from studylib import execute

        before, marks = self.kind, self._marks()
        if marks[0] not in (None, self._before[0]):
            self.kind = "done"
        elif marks[1] not in (None, self._before[1]):
            self.kind = "failed"
        elif plan.is_running(self.job) and (cells := execute.progress(self.job)):
            self.kind, self.cells = "running", f"{cells[0]}/{cells[1]} cells"
            self.began = self.began or time.monotonic()
        if self.kind == "running":
            self.seconds = time.monotonic() - self.began
        return self.kind != before

    def trouble(self) -> str:
        """Return why the run failed, or where this sweep's attempt was cut off; else nothing."""
        if self.kind == "failed":
            reason = self.job.beside("failed") / attempts.REASON
            return reason.read_text(encoding="utf-8").strip()
        return attempts.cut_off(self.job.beside("partial"), self.job.root, self._left)


def _watch(process: subprocess.Popen, watched: list[Watched], stop: threading.Event) -> None:
    """Show each job's state until Snakemake ends: a table that moves, or plain lines.

    Raises
    ------
    KeyboardInterrupt
        Within half a second of an interrupt.
    """
    console = Console()
    if not console.is_terminal:
        for _ in _ticks(process, stop):
            for one in watched:
                if one.look():
                    took = f" after {_clock(one.seconds)}" if one.seconds >= 1 else ""
                    print(f"{one.job.id}: {one.kind}{took}", flush=True)
        return
    from rich.live import Live

    with Live(_progress_table(watched), console=console, refresh_per_second=4) as live:
        for _ in _ticks(process, stop):
            for one in watched:
                one.look()
            live.update(_progress_table(watched))


def _ticks(process: subprocess.Popen, stop: threading.Event) -> Iterator[None]:
    """Yield twice a second until the process ends, and once after that."""
    while process.poll() is None and not stop.is_set():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        yield
    if stop.is_set():  # though Snakemake may have ended by then: Ctrl-C reaches it, too
        raise KeyboardInterrupt
    yield


def _progress_table(watched: list[Watched]) -> Table:
    shown = watched
    if len(watched) > _ROWS:
        shown = [one for one in watched if one.kind not in ("waiting", "done")][-_ROWS:]
    count = Counter(one.kind for one in watched)
    counted = ", ".join(f"{n} {kind}" for kind, n in count.items())
    table = Table(_name("run"), "state", "progress", "time", box=None, caption=counted)
    for one in shown:
        took = _clock(one.seconds) if one.seconds else ""
        table.add_row(one.job.id, _MARKS[one.kind], one.cells, took)
    return table


def _report(watched: list[Watched], code: int, log: Path, shared: bool) -> int:
    """Say what failed, and why; without a failed run, what Snakemake itself had to say.

    A run that is still at work, as on a cluster that Snakemake has lost, has not failed.
    """
    known = runs.code_hashes()
    undone = {one.job.folder: one for one in watched if not _is_done(one, known)}
    running = {f for f, one in undone.items() if plan.is_running(one.job)}
    failed = {f: said for f, one in undone.items() if f not in running and (said := one.trouble())}
    for folder, one in undone.items():
        if folder in running:
            told = "is still running."
        elif folder in failed:
            told = f"failed. {failed[folder]}"
        else:
            reads = [undone[f].job.id for f in one.job.inputs if f in undone]
            more = f" and {len(reads) - 1} more" if len(reads) > 1 else ""
            why = f": it reads {reads[0]}{more}" if reads else _SHARED if shared and failed else ""
            told = f"was not run{why}."
        print(f"{one.job.id} {told}", file=sys.stderr)
    if failed:
        raise errors.RunError(errors.RUNS_FAILED.format(failed=len(failed), total=len(watched)))
    if undone or code:
        reason = _snakemake_said(log) or f"exit code {code}"
        raise errors.RunError(errors.SNAKEMAKE_FAILED.format(reason=reason, log=log))
    print(f"All {len(watched)} runs finished.")
    return DONE


def _snakemake_said(log: Path) -> str:
    """Return the first thing that Snakemake's log calls a job's trouble, or else its last line."""
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    told = re.search(r"^ +message: (.+(?:\n\S.*)*)", text, re.MULTILINE)
    return " ".join((told[1] if told else text.rpartition("\n")[2]).split())


def _is_done(one: Watched, code: dict[str, str]) -> bool:
    """Tell whether a run is made: seen so, or else (another process made it) by its record."""
    if one.kind in ("done", "failed"):
        return one.kind == "done"
    return plan.standing(one.job, code).kind == "done"


def _clock(seconds: float) -> str:
    """Format a duration as 0:07 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


if __name__ == "__main__":
    sys.exit(main())
