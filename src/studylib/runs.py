"""One run of one notebook: checked parameters, seeds, its folder of results, and its record.

A notebook calls `start` once, right after its parameters cell, saves its tables through the `Run`
it gets, and ends with `Run.finish`, which writes run.json. Report notebooks read such folders back
with `read` and `finished`.

What is repeatable: on a CPU, the same parameters, library, versions, machine and number of threads
give the same outcomes, byte for byte. On a GPU, PyTorch is asked for deterministic algorithms, and
it warns in the notebook where an operation has none; another GPU model, driver or CUDA version may
still round differently, so there only the statistics can be expected to agree, not the bytes.
"""

from __future__ import annotations

import ctypes
import difflib
import hashlib
import html
import importlib.metadata
import json
import os
import platform
import random
import re
import subprocess
import time
import types
import typing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from studylib import __version__, errors

SCHEMA = 1
RECORD = "run.json"
OUTCOMES = "outcomes.parquet"
# These decide how runs are started and shown; of a run they compute nothing.
OUTSIDE = {
    *("plan.py", "execute.py", "attempts.py", "book.py", "cli.py", "light.py", "audit/page.py"),
}
VERSIONED = (
    *("torch", "torchvision", "numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "pillow"),
    *("onnx", "onnxruntime", "safetensors", "h5py", "altair", "papermill", "ipykernel"),
)
_PLAIN = (str, int, float, bool, list, dict, type(None))


class Record(dict):
    """The content of run.json; a notebook shows it as a small table."""

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in self.summary().items()
        )
        return f"<table>{rows}</table>"

    def summary(self) -> dict[str, str]:
        """Return the lines a reader wants first: what ran, from which code, where, how long."""
        commit = self["git"]["commit"][:10] if self["git"] else "not under version control"
        changed = " with uncommitted changes" if self["git"] and self["git"]["dirty"] else ""
        return {
            "experiment": self["experiment"],
            "commit": commit + changed,
            "seed": str(self["seed"]),
            "device": f"{self['device']} ({self['threads']} threads)",
            "started": self["started"],
            "time": f"{self['wall_seconds']:.0f} s",
            "peak memory": f"{self['peak_memory_mb']:.0f} MB",
            "torch": self["versions"].get("torch", "none"),
        }


@dataclass
class Run:
    """A run at work: where it computes, what it was asked, and where its results go.

    Attributes
    ----------
    experiment : str
        The name in study.yml.
    parameters : dict
        The declared parameters with their values, without `out_dir`.
    folder : pathlib.Path
        Where the run's files go.
    device : torch.device
        Where to compute.
    seed : int
        Python, NumPy and PyTorch have been seeded with it.
    """

    experiment: str
    parameters: dict
    folder: Path
    device: object
    seed: int
    _started: datetime
    _clock: float
    _code: dict[str, str]
    _assets: set[str] = field(default_factory=set)

    def save_outcomes(self, table) -> None:
        """Write the table of outcomes, one row per item or pair, to outcomes.parquet."""
        _write_table(self.folder / OUTCOMES, table)

    def save_table(self, name: str, table) -> None:
        """Write a small side table to NAME.parquet, e.g. the sizes of the variants."""
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == "outcomes":
            raise errors.ParameterError(errors.BAD_TABLE_NAME.format(name=name))
        _write_table(self.folder / f"{name}.parquet", table)

    def use_asset(self, *names: str) -> None:
        """Note that the run uses these wheels of `studylib.assets`; their hashes are recorded."""
        from studylib import assets

        assets.hashes(names)
        self._assets.update(names)

    def finish(self) -> Record:
        """Write run.json, which makes the run a finished one, and return its content."""
        import torch

        from studylib import assets

        outcomes = self.folder / OUTCOMES
        record = Record(
            schema=SCHEMA,
            experiment=self.experiment,
            parameters=_plain(self.parameters),
            seed=self.seed,
            profile=None,
            git=git_state(Path.cwd()),
            versions=versions(),
            device=device_name(self.device),
            cpu=cpu_name(),
            threads=torch.get_num_threads(),
            platform=platform.platform(),
            started=self._started.isoformat(timespec="seconds"),
            wall_seconds=round(time.perf_counter() - self._clock, 2),
            peak_memory_mb=peak_memory_mb(),
            assets=assets.hashes(self._assets),
            notebook_sha256=None,
            inputs={},
            code=self._code,
            outcomes_sha256=file_sha256(outcomes) if outcomes.exists() else None,
        )
        write_record(self.folder, record)
        return record


def start(experiment: str, namespace: dict) -> Run:
    """Check a notebook's parameters, seed everything, and open the run's folder.

    Parameters
    ----------
    experiment : str
        The experiment's name in study.yml.
    namespace : dict
        The notebook's `globals()`, right after the parameters cell. Annotated names are the
        parameters. `seed`, `device` and `out_dir` have a meaning here; without them the seed is 0,
        the device is "auto", and the folder is runs/EXPERIMENT/by-hand in the project.

    Returns
    -------
    Run

    Raises
    ------
    ParameterError
        A parameter that is not declared, has the wrong type, or asks for a GPU that is not there;
        a seed below 0.
    """
    parameters = _checked(experiment, namespace)
    out_dir = parameters.pop("out_dir", None)
    folder = Path(out_dir or _home() / "runs" / experiment / "by-hand").absolute()
    device = resolve_device(parameters.get("device", "auto"))
    keep_memory()
    seed = parameters.get("seed", 0)
    errors.at_least(0, seed=seed)
    _seed(seed, device)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    return Run(
        experiment=experiment,
        parameters=parameters,
        folder=folder,
        device=device,
        seed=seed,
        _started=datetime.now(UTC),
        _clock=time.perf_counter(),
        _code=code_hashes(),
    )


def resolve_device(name: str):
    """Return the torch device for "auto", "cpu", "cuda" or "cuda:N"; refuse one that is absent."""
    import torch

    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise errors.ParameterError(
            errors.UNKNOWN_NAME.format(
                what="device", value=name, choices="auto, cpu, cuda, cuda:0, cuda:1, ..."
            )
        )
    if name == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(name)
    if (device.index or 0) >= count:
        found = f"this machine has {count} GPUs" if count else "PyTorch finds no GPU here"
        raise errors.ParameterError(errors.NO_CUDA.format(value=name, found=found))
    return device


def unknown_parameter(where: str, name: str, known) -> errors.ParameterError:
    """Make the error for an undeclared parameter, with the nearest declared name."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    listed = ", ".join(sorted(known)) or "none"
    return errors.ParameterError(
        errors.UNKNOWN_PARAMETER.format(where=where, name=name, hint=hint, known=listed)
    )


def _checked(experiment: str, namespace: dict) -> dict:
    """Return the declared parameters' values after refusing unknown names and wrong types."""
    declared = namespace.get("__annotations__", {})
    # A cell run again by hand: the names that later cells made are no parameters.
    again = any(isinstance(value, Run) for value in namespace.values())
    for name, value in namespace.items():
        given = isinstance(value, _PLAIN) and not name.startswith("_")
        if given and name not in ("In", "Out") and name not in declared and not again:
            raise unknown_parameter(f"The experiment {experiment!r}", name, declared)
    for name, annotation in declared.items():
        if name not in namespace:
            raise errors.ParameterError(errors.MISSING_PARAMETER.format(name=name))
        if not fits(namespace[name], annotation):
            shown = annotation.__name__ if isinstance(annotation, type) else str(annotation)
            raise errors.ParameterError(
                errors.PARAMETER_TYPE.format(name=name, value=namespace[name], annotation=shown)
            )
    return {name: namespace[name] for name in declared}


def fits(value, annotation) -> bool:
    """Tell whether a parameter's value agrees with its annotation.

    Knows plain classes, unions, `Literal`, and lists and dicts with their item types; any other
    annotation is taken to agree. An int is a float too, but a bool is no int.

    Examples
    --------
    >>> fits(64, int), fits("abc", int), fits(None, str | None), fits([1, 2], list[str])
    (True, False, True, False)
    """
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is None or annotation is type(None):
        return value is None
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is typing.Literal:
        return value in inner
    if origin in (list, tuple):
        return isinstance(value, list | tuple) and all(fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, inner[1]) for item in value.values())
    if annotation in (int, float) and isinstance(value, bool):
        return False
    if annotation is float:
        return isinstance(value, int | float)
    return not isinstance(annotation, type) or isinstance(value, annotation)


def keep_memory() -> None:
    """Ask glibc to keep freed memory for the next tensor instead of giving it back each time.

    Without this every large activation is mapped and zeroed anew by the kernel, which takes about
    as long as the arithmetic: a small network runs twice as fast with it. Other C libraries have no
    such switch, and are left alone.
    """
    mmap_threshold, trim_threshold = -3, -1  # from glibc's malloc.h
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 2**30)
        libc.mallopt(trim_threshold, 2**31 - 1)


def _seed(seed: int, device) -> None:
    """Seed Python, NumPy and PyTorch, and ask for algorithms that repeat themselves."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)  # noqa: NPY002 - for libraries that draw from the global generator
    torch.manual_seed(seed)
    if device.type == "cuda":
        # cuBLAS reads this when it is first used; without it matrix products may differ.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # TensorFloat-32 rounds fp32 convolutions to 10 bits, which would blur the fp32 baseline.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)


@dataclass(frozen=True)
class Finished:
    """A finished run, read back: its record, its outcomes and its side tables."""

    folder: Path
    record: Record

    @property
    def name(self) -> str:
        """The run's name in study.yml, without the profile."""
        return self.folder.name.removeprefix(f"{self.record['profile']}-")

    @property
    def parameters(self) -> dict:
        """The parameters it was made with."""
        return self.record["parameters"]

    @cached_property
    def outcomes(self):
        """The table of outcomes, one row per item or pair."""
        return self.table("outcomes")

    def table(self, name: str):
        """Read a table that the run saved under this name."""
        import pandas

        path = self.folder / f"{name}.parquet"
        if not path.exists():
            known = ", ".join(sorted(p.stem for p in self.folder.glob("*.parquet"))) or "none"
            raise errors.RunError(
                errors.NO_OUTCOMES.format(folder=self.folder, file=path.name, known=known)
            )
        return pandas.read_parquet(path)


def read(folder: Path | str) -> Finished:
    """Read the finished run in a folder; refuse one without a run.json (`RunError`)."""
    folder = Path(folder)
    record = read_record(folder)
    if record is None:
        raise errors.RunError(errors.NOT_FINISHED.format(folder=folder))
    return Finished(folder, record)


def finished(
    runs_dir: Path | str, experiment: str, profile: str, names: list[str] | None = None
) -> list[Finished]:
    """Return the finished runs of an experiment in one profile, sorted by name.

    Parameters
    ----------
    runs_dir : path
        The folder of all runs; a relative one counts from the project's root.
    experiment, profile : str
        As in study.yml.
    names : list of str, optional
        Only the runs in folders of these names.

    Raises
    ------
    RunError
        There is none.
    """
    folder = _home() / runs_dir / experiment
    here = sorted(p.parent for p in folder.glob(f"[!.]*/{RECORD}"))
    wanted = [p for p in here if names is None or p.name in names]
    found = [Finished(p, r) for p in wanted if (r := read_record(p)) and r["profile"] == profile]
    if not found:
        raise errors.RunError(
            errors.NO_RUNS.format(experiment=experiment, profile=profile, folder=folder)
        )
    return found


def read_record(folder: Path) -> Record | None:
    """Return the run.json of a folder, or None where there is none that can be read."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Record(record) if record.get("schema") == SCHEMA else None


def write_record(folder: Path, record: dict) -> None:
    """Write run.json whole or not at all."""
    scratch = folder / f".{RECORD}.{os.getpid()}"
    scratch.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(scratch, folder / RECORD)


def _write_table(path: Path, table) -> None:
    """Write a data frame as Parquet, whole or not at all; equal tables give equal bytes."""
    import pyarrow
    import pyarrow.parquet

    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    columns = pyarrow.Table.from_pandas(table, preserve_index=False)
    try:
        pyarrow.parquet.write_table(columns, scratch, compression="zstd")
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _plain(value):
    """Turn tuples into lists, as reading JSON back would."""
    return json.loads(json.dumps(value))


def code_files() -> dict[str, Path]:
    """Map studylib/x.py to its path, for every library file that a result can depend on."""
    home = Path(__file__).parent
    files = {f"studylib/{p.relative_to(home).as_posix()}": p for p in sorted(home.rglob("*.py"))}
    return {name: p for name, p in files.items() if name.partition("/")[2] not in OUTSIDE}


def code_hashes() -> dict[str, str]:
    """Map studylib/x.py to its SHA-256, for every library file that a result can depend on."""
    return {name: file_sha256(path) for name, path in code_files().items()}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def project_root(start: Path) -> Path | None:
    """Return the nearest folder at or above `start` that holds a study.yml."""
    start = start.absolute()
    return next((p for p in (start, *start.parents) if (p / "study.yml").is_file()), None)


def _home() -> Path:
    """The project's root, or the working folder outside a project."""
    return project_root(Path.cwd()) or Path.cwd()


def git_state(folder: Path) -> dict | None:
    """Return the commit and whether the tree differs from it; None outside version control."""
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that results can depend on."""
    found = {"python": platform.python_version(), "studylib": __version__}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def device_name(device) -> str:
    """Return "cpu", or the model of the GPU."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def cpu_name() -> str:
    """Return the processor's model name, as far as the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return re.search(r"model name\s*:\s*(.+)", text)[1].strip()
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def peak_memory_mb() -> float:
    """Return the most main memory this process has held at once, in MB (10^6 bytes)."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scale = 1 if platform.system() == "Darwin" else 1024  # bytes there, KiB elsewhere
    return round(peak * scale / 1e6, 1)
