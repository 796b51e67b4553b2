"""Collects the runs and draws every picture and table from them:

    python plots/make.py                                      # from runs/
    python plots/make.py --wandb-entity me --wandb-project-name klip-ppo
    python plots/make.py --redraw                             # from plots/results alone
    python plots/make.py --redraw --page page.html            # the interactive page, too
    python plots/make.py --runs-dir ../other/runs --out plots --no-draw    # add those runs to plots/results
    python plots/make.py --redraw --drop 'knobs/*'            # take runs out of plots/results

The data set goes to plots/results (see collect.py), pictures and tables to plots. Collecting adds: a run replaces the one
of its name, the others stay, unless --drop names them. Only where `out` is inside the folder of the runs, as it is by
default for other folders than runs/, the data set belongs to that folder and holds the runs that are there, no more.

Runs are compared within a task only if all their arguments agree; of several settings the pictures show the one with the
most steps, then the most runs, then the fewest departures from the scripts' defaults, and what is left out is named.
Nothing here trains.
"""

import io
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tools")]  # the theory is drawn from the scripts

import collect
import design_axis
import figures
import page
import stats
import tyro

THEORY = ("theory", "design_axis")  # pictures that show no data


@dataclass
class Args:
    runs_dir: Path = Path("runs")
    """the folder below which the runs are"""
    out: Path | None = None
    """the folder for pictures and tables, and in its results/ the data set; if not given, the folder of this file for
    runs from runs/ or W&B, and for those from another folder plots/ in that"""
    redraw: bool = False
    """if toggled, draw from the data set in `out`/results without looking for runs"""
    draw: bool = True
    """if toggled off, bring the data set up to date and draw nothing"""
    page: Path | None = None
    """the file for the interactive page; if not given, index.html in `out`, and none for the published data set"""
    drop: tuple[str, ...] = ()
    """the names of runs to take out of the data set, or patterns such as 'knobs/*', before others are collected: a run
    that is still in its folder is collected anew"""
    wandb_entity: str | None = None
    """read the runs from this W&B entity (team) instead"""
    wandb_project_name: str | None = None
    """read the runs from this W&B project instead (klip-ppo if only the entity is given)"""


def fail(message, code=2):
    """Ends the program with one line on standard error."""
    print("error:", *message.split(), file=sys.stderr)
    sys.exit(code)


def update(args, results):
    """Brings the data set up to date; returns the number of runs in it, and a line for each that was left out."""
    if args.redraw:
        return collect.collect([], results, args.drop)
    if args.wandb_entity or args.wandb_project_name:
        import wandb

        project = args.wandb_project_name or "klip-ppo"
        try:
            return collect.collect(collect.from_wandb(args.wandb_entity, project), results, args.drop)
        except (wandb.Error, ValueError) as error:
            fail(f"--wandb-project-name {project}: {error} Log in with `wandb login`, or check the two names")
    if not args.runs_dir.is_dir():
        fail(f"--runs-dir {args.runs_dir} is no folder: train first (./benchmark.sh quick), or name your runs' folder")
    alone = results.resolve().is_relative_to(args.runs_dir.resolve())
    return collect.collect(collect.from_folders(args.runs_dir), results, args.drop, alone)


def save(figure, out, name, data_sha256):
    """Writes a figure as PNG and SVG, of the same bytes for the same data; without a figure removes what is there."""
    # The hash tells which data a picture shows: its own bytes depend on how matplotlib was built, too.
    source = None if name in THEORY else data_sha256
    for kind, metadata in {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}.items():
        path = out / f"{name}.{kind}"
        if figure is None:
            path.unlink(missing_ok=True)
            continue
        data = io.BytesIO()
        figure.savefig(data, format=kind, metadata={**metadata, "Source": source})
        collect.write(path, data.getvalue())


def pictures(runs, every_run, curves):
    main, betas = stats.main_runs(runs), stats.betas_runs(runs)
    # Where clip has more seeds than klip and phi, its mean over all would part theirs.
    alike = stats.with_seeds_of(main, main[main["variant"].isin(stats.FORMS[1:])])
    main_curves, alike_curves, betas_curves = (curves[curves["run"].isin(part["run"])] for part in (main, alike, betas))
    drawn = {}
    for name in ("overview", "learning_curves"):
        drawn[name] = getattr(figures, name)(main, main_curves) if len(main) else None
    for name in ("identity", "partition", "beta"):
        drawn[name] = getattr(figures, name)(alike, alike_curves) if len(alike) else None
    drawn |= {"final_returns": figures.final_returns(main), "aggregate": figures.aggregate(main)}
    drawn["paper_curves"] = figures.paper_curves(main, main_curves)
    for name in figures.MULTIPLES:
        drawn[f"betas_{name}"] = figures.small_multiples(betas, betas_curves, name) if len(betas) else None
    drawn |= {"betas_final_returns": figures.final_returns(betas), "betas_aggregate": figures.aggregate(betas)}
    drawn |= zip(("knobs", "settings"), (figures.knobs(runs, points) for points in stats.knob_points(runs, every_run)))
    return drawn | dict(zip(THEORY, (figures.theory_sheet(), design_axis.design_axis())))


def filled(text, sections):
    """A document with what stands between `<!-- results: NAME -->` and `<!-- end -->` replaced by that section."""

    def fill(match):
        if match[1] not in sections:
            fail(f"<!-- results: {match[1]} -->: there is no such section, but {', '.join(sections)}")
        part = sections[match[1]] or "no such runs"
        return f"<!-- results: {match[1]} -->" + (f"\n{part}\n" if "\n" in part else part) + "<!-- end -->"

    return re.sub(r"<!-- results: (\w+) -->.*?<!-- end -->", fill, text, flags=re.DOTALL)


def documents(out):
    """The documents that speak of a data set: of the published one README.md and docs/."""
    return [HERE.parent / "README.md", *sorted((HERE.parent / "docs").glob("*.md"))] if out.resolve() == HERE else []


def results_page(sections):
    parts = [
        f"## {name.replace('_', ' ').capitalize()}\n\n{part}\n"
        for name, part in sections.items()
        if part and name != "final_return_untested"
    ]
    return "\n".join(["Written by plots/make.py from the data set in results/.\n", *parts])


def main(args):
    out = args.out or (HERE if args.runs_dir == Args.runs_dir else args.runs_dir / "plots")
    try:
        if args.redraw and not (out / "results" / "runs.csv").exists():
            fail(f"--redraw: there is no {out / 'results' / 'runs.csv'}; leave --redraw out to make it from your runs")
        if args.drop or not args.redraw:
            count, left_out = update(args, out / "results")
            for line in left_out:
                print(f"left out: {line}", file=sys.stderr)
            if not count:
                fail("no complete run there: train first, for example with ./benchmark.sh quick")
        if not args.draw:
            return
        all_runs, curves = collect.load(out / "results")
    except collect.DataError as error:
        fail(str(error))
    runs, every_run, notes = stats.select(all_runs)
    for line in notes:
        print(f"not compared: {line}", file=sys.stderr)
    drawn = pictures(runs, every_run, curves)
    page_path = args.page or (None if out.resolve() == HERE else out / "index.html")
    if page_path:
        page.write(all_runs, curves, page_path)
        print(f"Open {page_path} in a browser: an update, β_t and every run, to play with")
    data_sha256 = collect.sha256(out / "results")
    for name, figure in drawn.items():
        save(figure, out, name, data_sha256)
    sections = stats.sections(runs, every_run, curves)
    collect.write(out / "results.md", results_page(sections).encode())
    collect.write(out / "final_return.tex", stats.latex(stats.final_returns(runs)).encode())
    for path in documents(out):
        collect.write(path, filled(path.read_text(), sections).encode())
    for task in stats.in_order(runs["env_id"], stats.TASKS):
        of_task = runs[runs["env_id"] == task]
        print(f"{task}: {of_task['steps'].iloc[0]:,} steps, {figures.seeds(of_task, task)}")
    names = ", ".join(f"{name}.png" for name, figure in drawn.items() if figure)
    print(f"In {out}: {names}, each as SVG too; results.md has the tables, beside the paper's; final_return.tex")


if __name__ == "__main__":
    try:
        main(tyro.cli(Args, description=__doc__))
    except KeyboardInterrupt:
        fail("interrupted", code=130)
    except OSError as error:
        fail(f"{error}: if the disk is full or read-only, make room or name another folder with --out")
