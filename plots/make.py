"""Draws a folder of runs, into plots/ in it:

    python plots/make.py                                # runs/, into runs/plots/
    python plots/make.py runs/quick                     # another folder, into runs/quick/plots/
    python plots/make.py --reference published.csv      # beside published returns, with scores
    python plots/make.py --wandb-entity me --wandb-project-name klip-ppo

summary.md shows every picture with its caption, and the tables; runs.csv and curves.csv.gz are what was drawn. Nothing
else is written, and nothing is trained.

Every complete run is drawn, each setting of a variant under its own name. What is left out is named, in summary.md too.
"""

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


@dataclass
class Args:
    runs: tyro.conf.Positional[Path] = Path("runs")
    """the folder of the runs, in which the pictures go to plots/"""
    reference: Path | None = None
    """published returns to compare with: a CSV file with the columns task, variant, mean, std, seeds, steps and
    random_policy, a row for each task and variant (study/reference.csv has the study's)"""
    baseline: str = "clip"
    """the variant with which the others are compared"""
    wandb_entity: str | None = None
    """read the runs from this W&B entity (team) instead"""
    wandb_project_name: str | None = None
    """read the runs from this W&B project instead (klip-ppo if only the entity is given)"""


def fail(message, code=2):
    """Ends the program with one line on standard error."""
    print("error:", *message.split(), file=sys.stderr)
    sys.exit(code)


def found(args):
    """The runs, as collect wants them."""
    if args.wandb_entity or args.wandb_project_name:
        import wandb

        project = args.wandb_project_name or "klip-ppo"
        try:
            return list(collect.from_wandb(args.wandb_entity, project))
        except (wandb.Error, ValueError) as error:
            fail(f"--wandb-project-name {project}: {error} Log in with `wandb login`, or check the two names")
    if not args.runs.is_dir():
        fail(f"{args.runs} is no folder: train first (./benchmark.sh quick), or name your runs' folder")
    return list(collect.from_folders(args.runs))


def order(runs_dir):
    """The tasks and the variants of the sweeps below a folder, in the order of their plan.tsv."""
    tasks, variants = [], list(compare.FORMS)
    for plan in sorted(runs_dir.rglob("plan.tsv"), key=lambda path: len(path.parts)):
        for line in plan.read_text(encoding="utf-8").splitlines():
            _, task, variant, _ = line.split("\t")
            tasks.append(task)
            variants.append(variant)
    return list(dict.fromkeys(tasks)), list(dict.fromkeys(variants))


def pictures(runs, curves, reference, baseline):
    """Every picture: its name, and a function that draws it, or returns None if there is nothing to draw."""
    yield "learning_curves", partial(figures.learning_curves, runs, curves, baseline)
    yield "final_returns", partial(figures.final_returns, runs, baseline, reference)
    yield "aggregate", partial(figures.aggregate, runs, baseline, reference)
    yield "identity", partial(figures.identity, runs, curves)
    yield "kl", partial(figures.kl, runs, curves)
    yield "partition", partial(figures.partition, runs, curves)
    yield "theory", theory.theory_sheet
    yield "design_axis", partial(design_axis.of_trained, compare.present(runs["method"]))


def draw(rows, curves, left_out, args, out):
    """Draws every picture, and writes them and every table to summary.md."""
    reference = compare.read_reference(args.reference) if args.reference else None
    runs, notes = compare.comparison(compare.typed(rows, *order(args.runs)))
    variants = compare.present(runs["variant"])
    if args.baseline not in variants:
        print(f"--baseline {args.baseline}: no such variant, so none is compared with it: {', '.join(variants)}")
    notes = [*left_out, *notes, *compare.other_libraries(runs)]
    for line in notes:
        print(f"note: {line}", file=sys.stderr)
    parts = ["# The runs in pictures and tables\n", *(f"- {line}" for line in notes), ""]
    for name, drawing in pictures(runs, curves, reference, args.baseline):
        path = out / f"{name}.png"
        figure = drawing()
        if figure is None:
            path.unlink(missing_ok=True)
            continue
        collect.write(path, style.png(figure))
        parts.append(f"![{name}]({path.name})\n\n{figure.caption}\n")
    parts += tables.documented(tables.sections(runs, curves, args.baseline, reference), tables.HOW_TO_READ)
    collect.write(out / "summary.md", "\n".join(parts).encode())


def main(args):
    """Does what the arguments say. Ends the program with one line where that cannot be done."""
    out = args.runs / "plots"
    rows, curves, left_out = collect.collect(found(args))
    if rows.empty:
        for line in left_out:
            print(f"note: {line}", file=sys.stderr)
        fail("no complete run there: train first, for example with ./benchmark.sh quick")
    try:
        collect.save(out, rows, curves)
        draw(rows, curves, left_out, args, out)
    except compare.UnreadableReference as error:
        fail(str(error))
    print(f"{len(rows)} runs in pictures and tables: {out / 'summary.md'}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Args, description=__doc__))
    except KeyboardInterrupt:
        fail("interrupted", code=130)
    except OSError as error:
        fail(f"{error}: if the disk is full or read-only, make room")
