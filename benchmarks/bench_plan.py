"""Time the planning of a sweep: how long until the first of many runs can start.

Writes a project with a teacher, N runs of one notebook that each take the teacher's file, and a
report on all of them, and times what stands between `study run` and the first notebook: the plan
itself, `study run --dry-run` (with the estimate of time and disk), and Snakemake's own planning
(`snakemake -n`). Then the same again with all runs done, when nothing is left to make. Prints
seconds and whether the whole stays below 30 s.
`python benchmarks/bench_plan.py [--runs N]`
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from studylib import plan, runs

HERE = Path(__file__).resolve().parent.parent
LIMIT = 30.0  # seconds
STUDY = """
profiles: {{smoke: {{about: all}}}}
experiments:
  teacher: {{title: A teacher, notebook: notebooks/tiny.ipynb, runs: {{one: {{}}}}}}
  student:
    title: Students
    notebook: notebooks/tiny.ipynb
    parameters: {{mode: {{run: teacher/one, file: network.safetensors}}}}
    grid:
      - width: {{{widths}}}
        seed: {{{seeds}}}
reports:
  students: {{title: A report, notebook: notebooks/tiny_report.ipynb, of: [student]}}
"""


def write_project(root: Path, n: int) -> plan.Plan:
    """A study with `n` students, ten seeds each."""
    (root / "notebooks").mkdir(parents=True)
    for notebook in (HERE / "tests" / "fixtures").glob("tiny*.ipynb"):
        shutil.copy(notebook, root / "notebooks")
    shutil.copy(HERE / "Snakefile", root)
    widths = ", ".join(f"w{i}: {{n: {i + 1}}}" for i in range(n // 10))
    seeds = ", ".join(f"{i}: {{seed: {i}}}" for i in range(10))
    (root / "study.yml").write_text(STUDY.format(widths=widths, seeds=seeds))
    return plan.load(root / "study.yml")


def pretend_done(jobs: list[plan.Job]) -> None:
    """Write the records that finished runs would leave."""
    code = runs.code_hashes()
    for job in jobs:
        job.folder.mkdir(parents=True)
        made = {"schema": 1, "parameters": plan.effective(job), "code": code, "cpu": "a processor"}
        made |= {"notebook_sha256": plan.notebook_sha256(job.notebook), "outcomes_sha256": None}
        made |= {"inputs": plan.input_hashes(job), "profile": job.profile, "wall_seconds": 1.0}
        runs.write_record(job.folder, made | {"device": "cpu", "threads": 1, "started": "2020"})


def timed(*words: str, root: Path) -> float:
    """Seconds of a command that must succeed."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", *words], cwd=root, check=True, capture_output=True)
    return time.perf_counter() - start


def study(root: Path) -> float:
    return timed("studylib.cli", "run", "--profile", "smoke", "--dry-run", "--jobs", "8", root=root)


def snakemake(root: Path, jobs: list[plan.Job]) -> float:
    """As `study run` asks it, but for doing anything."""
    asked = {"profile": "smoke", "jobs": [job.id for job in jobs]}
    (root / "asked.json").write_text(json.dumps(asked))
    words = ("snakemake", "-n", "--quiet", "--forceall", "--cores", "8", "--configfile")
    return timed(*words, "asked.json", root=root)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000, help="a multiple of ten")
    n = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "study"
        jobs = write_project(root, n).jobs("smoke")
        start = time.perf_counter()
        plan.todo(plan.load(root / "study.yml").jobs("smoke"))
        took = {"the plan, read and compared": time.perf_counter() - start}
        took["study run --dry-run"] = study(root)
        took["snakemake -n"] = snakemake(root, jobs)
        whole = took["study run --dry-run"] + took["snakemake -n"]
        pretend_done(jobs)
        took["study run --dry-run, all done"] = study(root)
    for what, seconds in took.items():
        print(f"{what:<32}{seconds:6.1f} s")
    print(
        f"{len(jobs)} runs planned in {whole:.1f} s: {'below' if whole < LIMIT else 'ABOVE'} 30 s"
    )


if __name__ == "__main__":
    main()
