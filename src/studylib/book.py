"""The book: stage its pages and the executed notebooks in one folder, then build it strictly.

A staged tree holds the pages of book/, the runs' notebooks under notebooks/, two pages written
from what is known (data and licences, provenance), and the scripts and fonts that a page loads,
generated or copied from installed packages so that no page needs a network.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import nbformat
import vl_convert
import yaml

from studylib import catalog, charts, errors, plan, runs

TIERS = {
    "embedded": "Comes from a package registry, pinned by hash, or is computed; nothing to sign.",
    "open": "Public: you download it yourself, then pass its folder as `data_root`.",
    "gated": "Under an agreement that you sign with its owners, who then send you your own copy.",
}
MATHJAX_FILES = re.compile(r"mathjax/(tex-mml-chtml\.js|output/chtml/fonts/woff-v2/[^/]+\.woff)$")
PARAMETER_CELLS = {
    "parameters": "Parameters and their defaults",
    "injected-parameters": "Parameters of this run",
}
ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
HEADING = re.compile(r"^# +(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """An executed notebook that the book shows: the job it comes from, and its record."""

    job: plan.Job
    record: dict

    @property
    def is_report(self) -> bool:
        """Whether this reads other runs (a chapter), rather than being one of them."""
        return self.job.name == self.job.profile

    @property
    def document(self) -> str:
        """The page's place in the staged tree, without suffix."""
        return f"notebooks/{self.job.experiment if self.is_report else self.job.id}"


def build(root: Path, profile: str) -> Path:
    """Build the book of a profile's runs and return the path of its first page.

    Parameters
    ----------
    root : Path
        The study's folder: _config.yml, book/ and runs/ are there; `_build/html` is written.
    profile : str
        Which runs to show (smoke, quick, full).

    Raises
    ------
    RunError
        If no run of the profile is finished, or the build gives any warning; the previous
        `_build/html` is kept then.
    """
    root = Path(root).resolve()
    folder = root / "_build"
    stage(root, profile, folder / "stage")
    work, html, log = folder / "work", folder / "html", folder / "book.log"
    shutil.rmtree(work, ignore_errors=True)
    command = [
        *(sys.executable, "-c", "from jupyter_book.cli.main import main; main()"),
        *("build", "stage", "--config", str(root / "_config.yml"), "--path-output", "work"),
        *("-W", "-n", "--keep-going"),
    ]
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    )
    said = ANSI_COLOUR.sub("", done.stdout).replace(f"{folder / 'stage'}/", "")
    log.write_text(said, encoding="utf-8")
    if done.returncode:
        raise errors.RunError(errors.BOOK_FAILED.format(log=log, warnings=_warnings(said)))
    _replace_folder(work / "_build" / "html", html)
    shutil.rmtree(work)
    return html / "index.html"


def stage(root: Path, profile: str, target: Path) -> Path:
    """Lay out everything Jupyter Book reads for one profile; an earlier `target` is replaced.

    Raises
    ------
    ParameterError
        If study.yml is wrong, or does not know the profile.
    RunError
        If no run of the profile is finished.
    """
    root, target = Path(root).resolve(), Path(target)
    jobs = plan.load(root / plan.FILE).jobs(profile)
    found = [(job, runs.read_record(job.folder)) for job in jobs]
    pages = [Page(job, record) for job, record in found if record]
    if not pages:
        raise errors.RunError(errors.BOOK_NO_RUNS.format(profile=profile, folder=root / "runs"))
    fresh = target.with_name(f"{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(root / "book", fresh)
    for page in pages:
        path = fresh / f"{page.document}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(_presentable(page), path)
    toc = yaml.safe_load((fresh / "_toc.yml").read_text(encoding="utf-8"))
    toc["parts"] = _parts(toc["parts"], pages)
    (fresh / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")
    (fresh / "data.md").write_text(data_page(catalog.ENTRIES.values()), encoding="utf-8")
    (fresh / "provenance.md").write_text(provenance_page(pages, jobs), encoding="utf-8")
    _write_assets(fresh / "_extra" / "_static")
    _replace_folder(fresh, target)
    return target


def data_page(entries) -> str:
    """Write the appendix on data and licences from the catalog's entries (MyST Markdown)."""
    entries = list(entries)
    parts = [
        "# Data and licences\n\n"
        "What the study can read, where it comes from and under which terms. Readings of licences "
        "are the authors' own, from the files named; they are no legal advice."
    ]
    for tier, meaning in TIERS.items():
        chosen = [entry for entry in entries if entry.tier == tier]
        if not chosen:
            continue
        rows = [(e.title, f"`{e.name}`", e.kind, e.licence, e.size_mb or "") for e in chosen]
        parts.append(f"## The {tier} tier\n\n{meaning}")
        parts.append(_table(("What", "Name", "Kind", "Licence", "Size (MB)"), rows))
        parts += [_entry(e) for e in chosen]
    return "\n\n".join(parts) + "\n"


def provenance_page(pages: list[Page], jobs: list[plan.Job]) -> str:
    """Write the page that says how each run of the book came about (MyST Markdown)."""
    headers = (
        *("Experiment", "Run", "Profile", "Commit", "Machine"),
        *("Wall time", "Peak memory", "Started (UTC)"),
    )
    parts = [
        "# Provenance\n\n"
        f"This book shows the runs of the profile `{jobs[0].profile}`. Each row is read from the "
        "run's own record (`run.json`). Another profile, machine or commit may give other results.",
        _table(headers, [_provenance_row(page) for page in pages]),
    ]
    if any(page.record["git"] and page.record["git"]["dirty"] for page in pages):
        parts.append(
            "Changed: the working tree held changes on top of that commit. The record has the "
            "hash of every library file it used."
        )
    parts += filter(None, map(_standing, jobs))
    parts.append("## Versions\n\nThe packages these runs were made with.")
    parts.append(_table(("Package", "Version"), _versions(pages)))
    return "\n\n".join(parts) + "\n"


def _standing(job: plan.Job) -> str:
    """Say in what a run of the plan is not up to date; empty where it is."""
    now = plan.standing(job)
    if now.kind == "done":
        return ""
    told = "out of date, shown as it was made" if now.kind == "stale" else f"{now.kind}, not shown"
    reasons = f": {'; '.join(now.reasons)}" if now.reasons else ""
    return f"`{job.id}` is {told}{reasons}."


def _parts(parts: list[dict], pages: list[Page]) -> list[dict]:
    """Keep the notebooks that the contents name if they were run; RUNS is all others."""
    made = {page.document for page in pages}
    placed, filled = set(), []
    for part in parts:
        if part["chapters"] != "RUNS":
            files = [c["file"] for c in part["chapters"]]
            kept = [f for f in files if not f.startswith("notebooks/") or f in made]
            placed |= set(kept)
            part = part | {"chapters": [{"file": f} for f in kept]}
        filled.append(part)
    rest = _chapters([page for page in pages if page.document not in placed])
    full = [p | {"chapters": rest} if p["chapters"] == "RUNS" else p for p in filled]
    return [part for part in full if part["chapters"]]


def _chapters(pages: list[Page]) -> list[dict]:
    """Chapters for the table of contents: reports with the runs they read, then all other runs."""
    chapters, placed = [], set()
    for report in (page for page in pages if page.is_report):
        read = [p for p in pages if p.job.folder in report.job.inputs and p.document not in placed]
        sections = [{"file": p.document, "title": f"Run {p.job.name}"} for p in read]
        chapters.append({"file": report.document} | ({"sections": sections} if sections else {}))
        placed |= {report.document, *(p.document for p in read)}
    return chapters + [{"file": p.document} for p in pages if p.document not in placed]


def _presentable(page: Page) -> nbformat.NotebookNode:
    """The notebook as a page: its parameters folded, its heading told apart from other runs'."""
    notebook = nbformat.read(page.job.folder / "notebook.ipynb", as_version=4)
    for cell in notebook.cells:
        for tag in PARAMETER_CELLS.keys() & set(cell.metadata.get("tags", [])):
            prompt = {"code_prompt_show": PARAMETER_CELLS[tag]}
            cell.source = cell.source.removeprefix("# Parameters\n")
            cell.metadata["tags"] = ["hide-input", *cell.metadata["tags"]]
            cell.metadata["mystnb"] = prompt | {"code_prompt_hide": PARAMETER_CELLS[tag]}
    headings = [c for c in notebook.cells if c.cell_type == "markdown" and HEADING.search(c.source)]
    if headings and not page.is_report:
        headings[0].source = HEADING.sub(rf"# \1: {page.job.name}", headings[0].source, count=1)
    return notebook


def _provenance_row(page: Page) -> tuple:
    job, record = page.job, page.record
    return (
        job.experiment,
        f"[{job.name}]({page.document}.ipynb)",
        record["profile"],
        _commit(record["git"]),
        f"{record['cpu']}; {record['device']}, threads: {record['threads']}",
        _duration(record["wall_seconds"]),
        f"{record['peak_memory_mb']:,.0f} MB",
        datetime.fromisoformat(record["started"]).strftime("%Y-%m-%d %H:%M"),
    )


def _commit(git: dict | None) -> str:
    if git is None:
        return "not recorded"
    return f"`{git['commit'][:9]}`" + (" changed" if git["dirty"] else "")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _versions(pages: list[Page]) -> list[tuple[str, str]]:
    """Each package with every version that a run was made with."""
    found: dict[str, set[str]] = {}
    for page in pages:
        for package, version in page.record["versions"].items():
            found.setdefault(package, set()).add(version)
    return [(package, ", ".join(sorted(found[package]))) for package in sorted(found)]


def _entry(entry) -> str:
    facts = {
        "Licence": entry.licence,
        "Cite": entry.citation,
        "How to get it": entry.get,
        "Group labels": entry.labels,
    }
    lines = [f"{name}\n: {_one_line(value)}" for name, value in facts.items() if value]
    shown = "" if entry.showable else "No picture from it is shown in this book.\n\n"
    return f"### {entry.title}\n\n{shown}" + "\n\n".join(lines)


def _table(headers, rows) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(
        "| " + " | ".join(_one_line(cell).replace("|", "\\|") for cell in line) + " |"
        for line in lines
    )


def _one_line(text) -> str:
    return " ".join(str(text).split())


def _write_assets(folder: Path) -> None:
    """Write what pages load: the Vega bundle, and MathJax with its fonts from its package."""
    folder.mkdir(parents=True)
    bundle = vl_convert.javascript_bundle(vl_version=charts.VEGALITE)
    # the wrapper keeps the bundle's many names to itself
    (folder / "vega-bundle.js").write_text(f"(() => {{{bundle}\n}})();\n", encoding="utf-8")
    for file in importlib.metadata.files("sphinx-mathjax-offline"):
        found = MATHJAX_FILES.search(file.as_posix())
        if found:
            target = folder / found[0]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), target)


def _replace_folder(fresh: Path, target: Path) -> None:
    """Put a finished folder in another's place; nothing is deleted before it stands there."""
    old = target.with_name(f"{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(fresh, target)
    shutil.rmtree(old, ignore_errors=True)


def _warnings(log: str) -> str:
    """The log's own complaints, or its last lines where it has none."""
    found = re.findall(r"^.*\b(?:WARNING|ERROR|CRITICAL|Exception)\b.*$", log, re.MULTILINE)
    return "\n".join(found[:20] or log.splitlines()[-15:])
