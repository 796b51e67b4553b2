"""Collects runs and draws every picture and table of them:

    python plots/make.py                                      # from runs/, into runs/plots/
    python plots/make.py --runs-dir runs/quick                # from another folder, into plots/ in that
    python plots/make.py --reference published.csv            # beside published returns, with scores
    python plots/make.py --wandb-entity me --wandb-project-name klip-ppo
    python plots/make.py --redraw                             # from the data set in runs/plots/results alone

The data set goes to results/ in the folder of the pictures (see collect.py), the tables to tables.md beside them.
Collecting adds: a run replaces the one of its name, the others stay, unless --drop names them. Only where `out` is
inside the folder of the runs, as it is by default, the data set belongs to that folder and holds the runs that are
there, no more.

Runs are compared within a task only if all their arguments agree; of several settings the pictures show the one with
the most runs, and what is left out is named. Nothing here trains.
"""

import io
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tools")]  # the theory is drawn from the scripts

import collect
import compare
import design_axis
import figures
import style
import tables
import theory
import tyro

THEORY = ("theory", "design_axis")  # pictures that show no data


@dataclass
class Args:
    runs_dir: Path = Path("runs")
    """the folder below which the runs are"""
    out: Path | None = None
    """the folder for pictures and tables, and in its results/ the data set; if not given, plots/ in the folder of the
    runs"""
    reference: Path | None = None
    """published returns to compare with: a CSV file with the columns task, variant, mean, std, seeds, steps and
    random_policy, a row for each task and variant (study/reference.csv has the published ones)"""
    redraw: bool = False
    """if toggled, draw from the data set in `out`/results without looking for runs"""
    draw: bool = True
    """if toggled off, bring the data set up to date and draw nothing"""
    svg: bool = False
    """if toggled, write each picture as SVG too"""
    drop: tuple[str, ...] = ()
    """the names of runs to take out of the data set, or patterns such as 'mine/*', before others are collected: a run
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


def svg(figure, source):
    """A figure as SVG, stamped with source, if that is given."""
    data = io.BytesIO()
    figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None, "Source": source})
    return data.getvalue()


def save(figure, path, source, render):
    """Writes a figure, rendered; without a figure removes what is there."""
    if figure is None:
        path.unlink(missing_ok=True)
    else:
        collect.write(path, render(figure, source))


def pictures(runs, every_run, curves, reference):
    """Every picture: its name, a function that draws it or returns None if it cannot, and the runs that it shows."""
    main = compare.main_runs(runs)
    forms = main[main["variant"].isin(compare.FORMS)]
    betas = compare.betas_runs(runs)
    points = compare.knob_points(runs, every_run)
    settings = compare.settings(runs, every_run)
    nothing = runs.iloc[:0]
    yield "learning_curves", partial(figures.learning_curves, main, curves), main
    yield "identity", partial(figures.identity, forms, curves), forms
    yield "partition", partial(figures.partition, main, curves), main
    yield "beta", partial(figures.beta, main, curves), main
    yield "final_returns", partial(figures.final_returns, main, reference), main
    yield "aggregate", partial(figures.aggregate, compare.merged(main), reference), main
    for which in figures.MULTIPLES:
        yield f"betas_{which}", partial(figures.small_multiples, betas, curves, which), betas
    yield "betas_final_returns", partial(figures.final_returns, betas, reference), betas
    yield "betas_aggregate", partial(figures.aggregate, betas, reference), betas
    yield "settings", partial(figures.knobs, runs, points), points
    yield "return_over_kl", partial(figures.return_over_kl, settings, curves), settings
    yield "theory", theory.theory_sheet, nothing
    yield "design_axis", design_axis.design_axis, nothing


def draw(args, out):
    """Draws every picture and writes every table of the data set in out/results."""
    reference = compare.read_reference(args.reference) if args.reference else None
    rows, curves = collect.load(out / "results")
    runs, every_run, notes = compare.comparison(compare.typed(rows))
    for line in notes:
        print(f"not compared: {line}", file=sys.stderr)
    names = []
    for name, drawing, shown in pictures(runs, every_run, curves, reference):
        figure = drawing()
        # The hash tells which runs a picture shows: its own bytes depend on how matplotlib was built, too.
        source = None if name in THEORY else collect.sha256(out / "results", shown["run"])
        save(figure, out / f"{name}.png", source, style.png)
        if args.svg:
            save(figure, out / f"{name}.svg", source, svg)
        if figure:
            names.append(f"{name}.png")
    found = tables.sections(runs, every_run, curves, reference)
    text = tables.page(found, tables.HOW_TO_READ, "python plots/make.py")
    collect.write(out / "tables.md", text.encode())
    main = compare.merged(compare.main_runs(runs))
    for task in compare.present(runs["env_id"]):
        remarks = figures.remarks(main, task, tables.main_variants(main)).split("\n")
        line = ", ".join([figures.title(runs, task), *filter(None, remarks)])
        print(f"{line}: {runs['steps'][runs['env_id'] == task].iloc[0]:,} steps")
    print(f"In {out}: {', '.join(names)}; the tables: {out / 'tables.md'}")


def main(args):
    """Does what the arguments say. Ends the program with one line where that cannot be done."""
    out = args.out or args.runs_dir / "plots"
    try:
        if args.redraw and not (out / "results" / "runs.csv").exists():
            fail(f"--redraw: there is no {out / 'results' / 'runs.csv'}; leave --redraw out to make it from your runs")
        if args.drop or not args.redraw:
            count, left_out = update(args, out / "results")
            for line in left_out:
                print(f"left out: {line}", file=sys.stderr)
            if not count:
                fail("no complete run there: train first, for example with ./benchmark.sh quick")
        if args.draw:
            draw(args, out)
    except (collect.DataError, compare.UnreadableReference) as error:
        fail(str(error))


if __name__ == "__main__":
    try:
        main(tyro.cli(Args, description=__doc__))
    except KeyboardInterrupt:
        fail("interrupted", code=130)
    except OSError as error:
        fail(f"{error}: if the disk is full or read-only, make room or name another folder with --out")
