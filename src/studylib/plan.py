"""study.yml as a list of jobs, and what stands of them: done, stale and why, missing, failed.

A job is one notebook with one set of parameters and one folder for its results. Experiments give
a job per named run and one per combination of a grid's axes; a report gives one job per profile,
made after the runs it reads (or, where it reads none, from published files or simulation alone).
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from studylib import attempts, errors, runs

FILE = "study.yml"
_TOP = {"profiles", "experiments", "reports"}
_EXPERIMENT = {"title", "notebook", "parameters", "grid", "runs", "resources", "profiles"}
_PROFILE = {"parameters", "runs", "resources"}
_REPORT = {"title", "notebook", "of", "files", "alone", "parameters", "resources", "profiles"}
_RUN = "run"  # key of a parameter {run: EXPERIMENT/RUN, file: NAME}: a file that a run leaves
_SHOWN = 40  # names in a message
_GIVEN = {"out_dir"}  # set by the runner, and no part of what a result depends on


@dataclass(frozen=True)
class Job:
    """One notebook, one set of parameters, one folder.

    Attributes
    ----------
    root : pathlib.Path
        The project's folder; notebooks run with it as their working folder.
    experiment, name, profile : str
        The experiment or report, the name of the run's folder, and the profile.
    title : str
        The experiment's title.
    notebook, folder : pathlib.Path
        The notebook, and where its results go.
    parameters : dict
        What study.yml sets, and `profile` and `run_names` (what a report reads) for a notebook
        that declares them; the notebook's own
        defaults hold for the rest.
    inputs : tuple of pathlib.Path
        The folders of the runs that it reads: those of a report, or one whose file a run takes.
    files : tuple of pathlib.Path
        The files of the project that a report reads: a change in one makes it stale.
    alone : bool
        Whether nothing else may run beside it, as where it takes times.
    resources : dict
        What a cluster is asked for, in Snakemake's words: `gpu`, `mem` ("8GB"), `runtime` ("2h",
        or minutes), `slurm_partition`. A run on this machine takes no notice.
    """

    root: Path
    experiment: str
    name: str
    profile: str
    title: str
    notebook: Path
    folder: Path
    parameters: dict
    inputs: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    alone: bool = False
    resources: dict = field(default_factory=dict)

    @property
    def id(self) -> str:
        """EXPERIMENT/RUN, as in the path below runs/."""
        return f"{self.experiment}/{self.name}"

    def beside(self, kind: str) -> Path:
        """Return the hidden neighbour of the folder: its lock, partial, failed or old."""
        return self.folder.with_name(f".{self.name}.{kind}")


@dataclass(frozen=True)
class State:
    """What stands of a job: its kind and the reasons, readable by a person."""

    kind: str  # done, stale, missing, failed or running
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The content of study.yml, checked."""

    root: Path
    profiles: dict[str, str]
    experiments: dict[str, dict]
    reports: dict[str, dict]

    @property
    def runs_dir(self) -> Path:
        """The folder of all runs."""
        return self.root / "runs"

    def jobs(self, profile: str, names: Iterable[str] | None = None) -> list[Job]:
        """Return the jobs of a profile, each after the jobs it reads.

        Parameters
        ----------
        profile : str
            A profile of study.yml.
        names : iterable of str, optional
            Experiments and reports; a report brings the experiments it reads. All by default.

        Raises
        ------
        ParameterError
            The profile or a name is not in study.yml.
        """
        _choice("profile", profile, self.profiles)
        known = [*self.experiments, *self.reports]
        wanted = list(names or known)
        for name in wanted:
            _choice("experiment", name, known)
        reports = [r for r in self.reports if r in wanted]
        read = {e for r in reports for e in self.reports[r]["of"]}
        read |= {e for name in {*wanted, *read} for e in self._takes(name)}
        made = [
            job
            for name in self.experiments
            if name in wanted or name in read
            for job in self._experiment_jobs(name, profile)
        ]
        return made + [self._report_job(name, profile) for name in reports]

    def job(self, profile: str, experiment: str, name: str) -> Job:
        """Return one job by the names of its experiment and its run's folder."""
        made = self.jobs(profile, [experiment])
        jobs = {job.name: job for job in made if job.experiment == experiment}
        _choice("run", name, jobs)
        return jobs[name]

    def _experiment_jobs(self, name: str, profile: str) -> list[Job]:
        spec = self.experiments[name]
        special = spec["profiles"].get(profile, {})
        chosen = set(special.get("runs") or spec["runs"])
        common = {**spec["parameters"], **special.get("parameters", {})}
        made = []
        for run in (r for r in spec["runs"] if r in chosen):
            given, inputs = self._files_of_runs({**common, **spec["runs"][run]}, profile)
            made.append(self._job(name, f"{profile}-{run}", profile, given, taken=inputs))
        return made

    def _takes(self, name: str) -> set[str]:
        """The experiments of whose runs an experiment or report takes a file."""
        spec = self.experiments.get(name) or self.reports[name]
        profiles = (special.get("parameters", {}) for special in spec["profiles"].values())
        sets = (spec["parameters"], *profiles, *spec.get("runs", {}).values())
        return {
            value[_RUN].partition("/")[0]
            for given in sets
            for value in given.values()
            if _is_file_of_run(value)
        }

    def _files_of_runs(self, parameters: dict, profile: str) -> tuple[dict, tuple[Path, ...]]:
        """Put paths where parameters name a file of another run, and tell those runs' folders."""
        given, inputs = dict(parameters), []
        for name, value in parameters.items():
            if _is_file_of_run(value):
                experiment, _, run = value[_RUN].partition("/")
                folder = self.runs_dir / experiment / f"{profile}-{run}"
                inputs.append(folder)
                given[name] = (folder / value["file"]).relative_to(self.root).as_posix()
        return given, tuple(dict.fromkeys(inputs))

    def _report_job(self, name: str, profile: str) -> Job:
        spec = self.reports[name]
        read = [j for e in spec["of"] for j in self._experiment_jobs(e, profile)]
        given = {"runs_dir": self.runs_dir.name} if read else {}
        given |= spec["parameters"] | spec["profiles"].get(profile, {}).get("parameters", {})
        self._check_read(name, given)
        files = tuple(self.root / file for file in spec["files"])
        given, taken = self._files_of_runs(given, profile)
        folders = tuple(j.folder for j in read)
        return self._job(name, profile, profile, given, folders, files, taken)

    def _check_read(self, name: str, given: dict) -> None:
        """Refuse a report that would show an experiment which it is not made after.

        So would a copy that is `of` a copied experiment and keeps its notebook's default.
        """
        spec = self.reports[name]
        told = declared(self.root / spec["notebook"]) | given if spec["of"] else {}
        for key in ("experiment", "teacher_experiment"):
            if isinstance(told.get(key), str) and told[key] not in spec["of"]:
                raise _bad(
                    self.root / FILE,
                    f"report {name} would show runs of {told[key]}, which its `of` does not list: "
                    f"give it parameters: {{{key}: ...}}",
                )

    def _job(self, experiment, name, profile, parameters, inputs=(), files=(), taken=()) -> Job:
        spec = self.experiments.get(experiment) or self.reports[experiment]
        notebook = self.root / spec["notebook"]
        offered = {"profile": profile, "run_names": [folder.name for folder in inputs]}
        told = {name: offered[name] for name in offered.keys() & set(declared(notebook))}
        return Job(
            root=self.root,
            experiment=experiment,
            name=name,
            profile=profile,
            title=spec["title"],
            notebook=notebook,
            folder=self.runs_dir / experiment / name,
            parameters=parameters | told,
            inputs=tuple(dict.fromkeys((*inputs, *taken))),
            files=files,
            alone=spec.get("alone", False),
            resources=spec["resources"] | spec["profiles"].get(profile, {}).get("resources", {}),
        )


def load(path: Path | str) -> Plan:
    """Read and check study.yml.

    Raises
    ------
    ParameterError
        It is not there, is no valid YAML, or holds an unknown key, run, experiment or profile.
    """
    path = Path(path).absolute()
    try:
        text = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise errors.ParameterError(errors.NO_PROJECT.format(start=path.parent)) from None
    except yaml.YAMLError as problem:
        line = getattr(problem, "problem_mark", None)
        where = f"line {line.line + 1} is no valid YAML" if line else "it is no valid YAML"
        raise errors.ParameterError(errors.BAD_PLAN.format(file=path, problem=where)) from problem
    plan = Plan(
        root=path.parent,
        **{key: dict(_section(text, key, path, "study.yml", _TOP)) for key in sorted(_TOP)},
    )
    for name, spec in plan.experiments.items():
        _check_experiment(plan, name, spec, path)
    for name, spec in plan.reports.items():
        _check_report(plan, name, spec, path)
    for name in (*plan.experiments, *plan.reports):
        _check_files_of_runs(plan, name, path)
    return plan


def _check_experiment(plan: Plan, name: str, spec: dict, path: Path) -> None:
    """Fill in what may be left out of an experiment, and refuse what is not known."""
    where = f"experiment {name}"
    _check_entry(name, spec, path, _EXPERIMENT)
    for key in ("parameters", "runs"):
        spec[key] = dict(_section(spec, key, path, where, _EXPERIMENT))
    _add_grid(spec, path, where)
    if not spec["runs"]:
        raise _bad(path, f"{where} names no runs")
    for run in spec["runs"]:
        _check_name(run, path)
        spec["runs"][run] = dict(_section(spec["runs"], run, path, where, spec["runs"]))
    _check_profiles(plan, spec, path, where, _EXPERIMENT, _PROFILE)
    for profile, special in spec["profiles"].items():
        inside = f"{where}, profile {profile}"
        patterns = _list(special, "runs", path, inside)
        special["runs"] = [run for p in patterns for run in _matching(p, spec["runs"])]


def _add_grid(spec: dict, path: Path, where: str) -> None:
    """Put a run for each combination of a grid's axes before the runs given by name."""
    made = {}
    for axes in _list(spec, "grid", path, where):
        if not isinstance(axes, dict) or not axes:
            raise _bad(path, f"each entry of the grid of {where} must be a mapping of axes")
        _check_axes(axes, path, where)
        for chosen in itertools.product(*(choices.items() for choices in axes.values())):
            run = "-".join(str(name) for name, _ in chosen)
            if run in made or run in spec["runs"]:
                raise _bad(path, f"{where} has two runs named {run}")
            made[run] = _joined([given or {} for _, given in chosen], path, f"{where}, run {run}")
    spec["runs"] = made | spec["runs"]


def _check_axes(axes: dict, path: Path, where: str) -> None:
    for axis, choices in axes.items():
        if not isinstance(choices, dict) or not choices:
            raise _bad(path, f"the axis {axis} in the grid of {where} must be a mapping of choices")
        for name, given in choices.items():
            if not isinstance(given or {}, dict):
                raise _bad(path, f"{name} of the axis {axis} of {where} must be a mapping")


def _joined(parts: list[dict], path: Path, where: str) -> dict:
    """Join the parameters of one choice on each axis; two axes cannot set the same one."""
    names = [name for given in parts for name in given]
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
        raise _bad(path, f"{where}: two axes of the grid set {', '.join(twice)}")
    return {name: value for given in parts for name, value in given.items()}


def _matching(pattern, known: Iterable[str]) -> list[str]:
    """Return the names that a shell pattern (*, ?, [...]) fits; a plain name fits itself."""
    found = [name for name in known if fnmatchcase(name, str(pattern))]
    if not found:
        _choice("run", pattern, known)
    return found


def _is_file_of_run(value) -> bool:
    return isinstance(value, dict) and value.keys() == {_RUN, "file"}


def _check_files_of_runs(plan: Plan, name: str, path: Path) -> None:
    """Refuse a file of a run that is not made before: experiments are made in their order."""
    before = list(plan.experiments)
    if name in plan.experiments:
        before = before[: before.index(name)]
    if not plan._takes(name):
        return
    for profile in plan.profiles:
        if name in plan.experiments:
            jobs = plan._experiment_jobs(name, profile)
        else:
            jobs = [plan._report_job(name, profile)]
        made = {}  # the folders of each experiment's runs
        for job in jobs:
            for folder in job.inputs:
                experiment = folder.parent.name
                if experiment not in before:
                    raise _bad(path, f"{name} takes a file of {experiment}, which must stand above")
                if experiment not in made:
                    others = plan._experiment_jobs(experiment, profile)
                    made[experiment] = {other.folder for other in others}
                if folder not in made[experiment]:
                    run = folder.name.removeprefix(f"{profile}-")
                    raise _bad(
                        path,
                        f"{job.id} takes a file of {experiment}/{run}, which profile {profile} "
                        "does not make",
                    )


def _check_report(plan: Plan, name: str, spec: dict, path: Path) -> None:
    """Fill in what may be left out of a report, and refuse what is not known or not there."""
    where = f"report {name}"
    _check_entry(name, spec, path, _REPORT)
    spec["of"] = _names(spec, "of", path, where, plan.experiments, "experiment")
    spec["parameters"] = dict(_section(spec, "parameters", path, where, _REPORT))
    _check_profiles(plan, spec, path, where, _REPORT, {"parameters", "resources"})
    if not isinstance(spec.get("alone", False), bool):
        raise _bad(path, f"alone of {where} must be true or false")
    spec["files"] = spec.get("files") or []
    for file in spec["files"]:
        if not (path.parent / str(file)).is_file():
            raise _bad(path, f"a file of {where}, {file}, is not there")


def _check_profiles(plan: Plan, spec: dict, path: Path, where: str, known, inner) -> None:
    """Check the profiles of an experiment or report, each a mapping with parameters."""
    spec["resources"] = _resources(spec, path, where, known)
    spec["profiles"] = dict(_section(spec, "profiles", path, where, known))
    for profile in spec["profiles"]:
        _choice("profile", profile, plan.profiles)
        inside = f"{where}, profile {profile}"
        special = dict(_section(spec["profiles"], profile, path, inside, spec["profiles"]))
        special["parameters"] = dict(_section(special, "parameters", path, inside, inner))
        special["resources"] = _resources(special, path, inside, inner)
        spec["profiles"][profile] = special


def _resources(mapping: dict, path: Path, where: str, known) -> dict:
    """Return what a cluster is asked for: names that Snakemake takes, with a number or a text."""
    wanted = dict(_section(mapping, "resources", path, where, known))
    for name, value in wanted.items():
        if not str(name).isidentifier() or type(value) not in (int, str):
            raise _bad(path, f"resources of {where}: {name} must be a whole number or a text")
    return wanted


def _check_entry(name: str, spec: dict, path: Path, known: set[str]) -> None:
    """Check what experiments and reports share: a name, a title, a notebook that is there."""
    _check_name(name, path)
    if not isinstance(spec, dict):
        raise _bad(path, f"{name} must be a mapping with the keys {', '.join(sorted(known))}")
    _section(spec, "", path, name, known)
    for key in ("title", "notebook"):
        if not isinstance(spec.get(key), str):
            raise _bad(path, f"{name} needs a {key}")
    if not (path.parent / spec["notebook"]).is_file():
        raise _bad(path, f"the notebook of {name}, {spec['notebook']}, is not there")


def _section(mapping, key: str, path: Path, where: str, known) -> dict:
    """Return the mapping under a key, empty if left out, after refusing unknown neighbours."""
    if not isinstance(mapping, dict):
        raise _bad(path, f"{where} must be a mapping")
    for other in mapping:
        if other not in known:
            choices = ", ".join(sorted(known))
            raise errors.ParameterError(
                errors.UNKNOWN_KEY.format(file=path, key=other, where=where, choices=choices)
            )
    value = mapping.get(key) or {}
    if not isinstance(value, dict):
        raise _bad(path, f"{key} of {where} must be a mapping")
    return value


def _names(mapping: dict, key: str, path: Path, where: str, known, what: str) -> list[str]:
    """Return the list of names under a key, each of them known."""
    names = _list(mapping, key, path, where)
    for name in names:
        _choice(what, name, known)
    return names


def _list(mapping: dict, key: str, path: Path, where: str) -> list:
    """Return the list under a key, empty if left out."""
    value = mapping.get(key) or []
    if not isinstance(value, list):
        raise _bad(path, f"{key} of {where} must be a list")
    return value


def _check_name(name: str, path: Path) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", str(name)):
        raise _bad(path, f"{name!r} cannot be the name of a folder: use letters, digits, - and _")


def _bad(path: Path, problem: str) -> errors.ParameterError:
    return errors.ParameterError(errors.BAD_PLAN.format(file=path, problem=problem))


def _choice(what: str, value: str, known: Iterable[str]) -> None:
    known = list(known)
    if value not in known:
        shown = known if len(known) <= _SHOWN else [*known[:_SHOWN], f"... ({len(known)} in all)"]
        raise errors.ParameterError(
            errors.UNKNOWN_NAME.format(what=what, value=value, choices=", ".join(shown) or "none")
        )


def declared(notebook: Path) -> dict:
    """Return a notebook's parameters with their defaults, from the cell tagged `parameters`.

    A default that is not a literal is given as `Ellipsis`.
    """
    return dict(_read(notebook)[0])


def _literal(node):
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return ...


def notebook_sha256(notebook: Path) -> str:
    """Hash what a notebook says, its cells' sources and tags, whatever outputs are stored in it."""
    return _read(notebook)[1]


def _read(notebook: Path) -> tuple[dict, str]:
    """Return a notebook's declared parameters and its hash."""
    try:
        return _understood(notebook.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError) as problem:
        raise _bad(notebook, "it cannot be read as a notebook") from problem


@cache  # by content: a thousand runs of one notebook parse it once, and a changed one anew
def _understood(text: str) -> tuple[dict, str]:
    cells = json.loads(text)["cells"]
    said = [[c["cell_type"], "".join(c["source"]), c["metadata"].get("tags", [])] for c in cells]
    found = (source for _, source, tags in said if "parameters" in tags)
    lines = ast.parse(next(found, "")).body
    annotated = [node for node in lines if isinstance(node, ast.AnnAssign)]
    parameters = {node.target.id: _literal(node.value) for node in annotated}
    return parameters, hashlib.sha256(json.dumps(said).encode()).hexdigest()


def check(job: Job) -> None:
    """Refuse a job whose parameters its notebook does not declare (`ParameterError`)."""
    known = declared(job.notebook)
    if not known.keys() >= _GIVEN:
        raise errors.ParameterError(errors.NO_OUT_DIR.format(notebook=job.notebook))
    for name in job.parameters:
        if name not in known:
            raise runs.unknown_parameter(job.notebook.name, name, known)


def effective(job: Job) -> dict:
    """Return all parameters of a job: the notebook's defaults under what study.yml sets."""
    return {
        name: value
        for name, value in {**declared(job.notebook), **job.parameters}.items()
        if name not in _GIVEN and value is not ...
    }


def fingerprint(job: Job, code: dict[str, str] | None = None) -> str:
    """Hash what a job is made from: parameters, notebook, library. 12 hexadecimal digits.

    The library's hashes may be given, `runs.code_hashes()`, where many jobs are asked about.
    """
    made_from = [effective(job), notebook_sha256(job.notebook), code or runs.code_hashes()]
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:12]


def input_hashes(job: Job) -> dict[str, str]:
    """Map what a report reads, runs as far as they are made and files, to its SHA-256."""
    made = [folder for folder in job.inputs if (folder / runs.RECORD).exists()]
    records = {f"run {f.parent.name}/{f.name}": f / runs.RECORD for f in made}
    files = {f"file {f.relative_to(job.root).as_posix()}": f for f in job.files}
    return {name: runs.file_sha256(path) for name, path in {**records, **files}.items()}


def state(job: Job, code: dict[str, str] | None = None) -> State:
    """Tell what stands of a job, running and cut off ones included; `code` as for `fingerprint`."""
    if is_running(job):
        return State("running")
    now = standing(job, code)
    cut = attempts.cut_off(job.beside("partial"), job.root) if now.kind != "done" else ""
    return State(now.kind, (*now.reasons, cut)) if cut else now


def is_running(job: Job) -> bool:
    """Tell whether a process holds the job's lock."""
    if not job.beside("lock").exists():
        return False
    try:
        with FileLock(job.beside("lock"), timeout=0):
            return False
    except Timeout:
        return True


def standing(job: Job, code: dict[str, str] | None = None) -> State:
    """Compare a job's record with the present plan, notebook, library and files.

    The library's hashes may be given as `code`, as for `fingerprint`.
    """
    record = runs.read_record(job.folder)
    reasons = tuple(_differences(job, record, code or runs.code_hashes())) if record else ()
    if record and not reasons:
        return State("done")
    failure = job.beside("failed") / attempts.REASON
    if failure.exists():
        return State("failed", (failure.read_text(encoding="utf-8").strip(),))
    return State("stale", reasons) if record else State("missing")


def todo(jobs: list[Job], force: bool = False) -> list[tuple[Job, State]]:
    """Return the jobs to run, in order: all that are not done, and the reports that read them."""
    chosen, folders, code = [], set(), runs.code_hashes()
    for job in jobs:
        now = state(job, code)
        if now.kind == "done":
            again = [folder for folder in job.inputs if folder in folders]
            why = [f"run {f.parent.name}/{f.name} will be made again" for f in again]
            now = State("stale", tuple(why)) if why else now
        if force or now.kind != "done":
            chosen.append((job, now))
            folders.add(job.folder)
    return chosen


def _differences(job: Job, record: runs.Record, now: dict[str, str]) -> Iterator[str]:
    """Say, one sentence each, in what a finished run differs from what would be made now."""
    yield from _parameter_changes(job, record["parameters"])
    if record["notebook_sha256"] != notebook_sha256(job.notebook):
        yield "notebook changed"
    changed = [n for n in record["code"].keys() | now.keys() if record["code"].get(n) != now.get(n)]
    if changed:
        shown = [name.removeprefix("studylib/") for name in sorted(changed)]
        more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
        yield f"library changed: {', '.join(shown[:5])}{more}"
    made = input_hashes(job)
    for name in sorted(record["inputs"].keys() | made.keys()):
        if name not in made:
            yield f"{name} is gone"
        elif record["inputs"].get(name) != made[name]:
            yield f"{name} {'is newer' if name.startswith('run ') else 'changed'}"
    wanted, outcomes = record["outcomes_sha256"], job.folder / runs.OUTCOMES
    if wanted and (not outcomes.exists() or runs.file_sha256(outcomes) != wanted):
        yield f"{runs.OUTCOMES} is missing or was changed"


def _parameter_changes(job: Job, before: dict) -> Iterator[str]:
    now, known = effective(job), declared(job.notebook)
    for name, value in now.items():
        if name not in before:
            yield f"parameter {name} is new"
        elif before[name] != json.loads(json.dumps(value)):
            yield f"parameter {name} was {before[name]!r}, is now {value!r}"
    for name in before.keys() - known.keys():
        yield f"parameter {name} is gone"
