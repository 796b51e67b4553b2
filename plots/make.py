"""Collects the runs and draws every picture and table from them:

    python plots/make.py                                      # from runs/, into runs/plots/
    python plots/make.py --runs-dir ../other/runs             # from another folder, into plots/ in that
    python plots/make.py --redraw                             # from the data set in runs/plots/results alone
    python plots/make.py --wandb-entity me --wandb-project-name klip-ppo

The data set goes to results/ in the folder of the pictures (see collect.py), the tables to tables.md beside them.
Collecting adds: a run replaces the one of its name, the others stay, unless --drop names them. Only where `out` is
inside the folder of the runs, as it is by default, the data set belongs to that folder and holds the runs that are
there, no more.

The published data set, in plots/results, with its pictures, README.md and docs/, changes with --publish alone:

    python plots/make.py --publish --redraw --page page.html  # draw it again, and the interactive page
    python plots/make.py --publish --runs-dir ../other/runs   # add those runs
    python plots/make.py --publish --redraw --drop 'knobs/*'  # take runs out

Runs are compared within a task only if all their arguments agree; of several settings the pictures show the one with
the most steps, then the most runs, then the fewest departures from the scripts' defaults, and what is left out is
named. Nothing here trains.
"""

import io
import os
import re
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
import contest
import design_axis
import figures
import page
import tables
import theory
import tyro
from PIL import Image
from PIL.PngImagePlugin import PngInfo

THEORY = ("theory", "design_axis")  # pictures that show no data


@dataclass
class Args:
    runs_dir: Path = Path("runs")
    """the folder below which the runs are"""
    out: Path | None = None
    """the folder for pictures and tables, and in its results/ the data set; if not given, plots/ in the folder of the
    runs"""
    publish: bool = False
    """if toggled, bring the published data set up to date, its pictures, README.md and docs/"""
    redraw: bool = False
    """if toggled, draw from the data set in `out`/results without looking for runs"""
    draw: bool = True
    """if toggled off, bring the data set up to date and draw nothing"""
    page: Path | None = None
    """the file for the interactive page; if not given, index.html in `out`, and none for the published data set"""
    svg: bool = False
    """if toggled, write each picture as SVG too"""
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
    is_published = results.parent.resolve() == HERE
    alone = not is_published and results.resolve().is_relative_to(args.runs_dir.resolve())
    return collect.collect(collect.from_folders(args.runs_dir), results, args.drop, alone)


def png(figure, source):
    """A figure as PNG of 256 colours, stamped with source, if that is given: the same bytes for the same picture."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    image = Image.open(drawn).convert("RGB")
    image = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    stamp = PngInfo()
    if source:
        stamp.add_text("Source", source)
    data = io.BytesIO()
    image.save(data, format="png", optimize=True, pnginfo=stamp)
    return data.getvalue()


def svg(figure, source):
    """The same as SVG."""
    data = io.BytesIO()
    figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None, "Source": source})
    return data.getvalue()


def save(figure, path, source, render):
    """Writes a figure, rendered; without a figure removes what is there."""
    if figure is None:
        path.unlink(missing_ok=True)
    else:
        collect.write(path, render(figure, source))


def pictures(runs, every_run, curves):
    """Every picture: its name, a function that draws it or returns None if it cannot, and the runs that it shows."""
    main = compare.main_runs(runs)
    forms = main[main["variant"].isin(compare.FORMS)]
    betas = compare.betas_runs(runs)
    elsewhere = every_run[~every_run["run"].str.startswith(compare.SCREENED)]
    points = compare.knob_points(runs, elsewhere)
    of_knobs = points["knob"].isin(compare.KNOBS)
    settings = compare.settings(runs, elsewhere)
    settings = settings[settings["env_id"].isin(betas["env_id"])]
    first_stage = contest.first_stage(every_run)
    second_stage = contest.second_stage(every_run)
    choice = contest.chosen(contest.screening_scores(first_stage))
    nothing = runs.iloc[:0]
    yield "overview", partial(figures.overview, main, curves), main
    yield "learning_curves", partial(figures.learning_curves, main, curves), main
    yield "identity", partial(figures.identity, forms, curves), forms
    yield "partition", partial(figures.partition, main, curves), main
    yield "beta", partial(figures.beta, main, curves), main
    yield "final_returns", partial(figures.final_returns, main), main
    yield "aggregate", partial(figures.aggregate, compare.merged(main)), main
    yield "paper_curves", partial(figures.paper_curves, main, curves), main
    for which in figures.MULTIPLES:
        yield f"betas_{which}", partial(figures.small_multiples, betas, curves, which), betas
    yield "betas_final_returns", partial(figures.final_returns, betas), betas
    yield "betas_aggregate", partial(figures.aggregate, betas), betas
    yield "knobs", partial(figures.knobs, runs, points[of_knobs]), points[of_knobs]
    yield "settings", partial(figures.knobs, runs, points[~of_knobs]), points[~of_knobs]
    yield "return_over_kl", partial(figures.return_over_kl, settings, curves), settings
    yield "screening", partial(figures.screening, first_stage, curves), first_stage
    yield "confirmation", partial(figures.confirmation, second_stage, choice), second_stage
    yield "confirmation_kl", partial(figures.confirmation_kl, second_stage, curves, choice), second_stage
    yield "theory", theory.theory_sheet, nothing
    yield "design_axis", design_axis.design_axis, nothing


def filled(text, sections):
    """A document with what stands between `<!-- results: NAME -->` and `<!-- end -->` replaced by that section."""

    def fill(match):
        if match[1] not in sections:
            fail(f"<!-- results: {match[1]} -->: there is no such section, but {', '.join(sections)}")
        part = sections[match[1]] or "no such runs"
        return f"<!-- results: {match[1]} -->" + (f"\n{part}\n" if "\n" in part else part) + "<!-- end -->"

    return re.sub(r"<!-- results: (\w+) -->.*?<!-- end -->", fill, text, flags=re.DOTALL)


def documents(out):
    """What the tables and numbers are written into, by path: tables.md, and of the published data set README.md and
    docs/ too."""
    if out.resolve() != HERE:
        return out / "tables.md", []
    docs = HERE.parent / "docs"
    tables_md = docs / "tables.md"
    others = [path for path in sorted(docs.glob("*.md")) if path != tables_md]
    return tables_md, [HERE.parent / "README.md", *others]


def write_documents(out, sections):
    """Writes tables.md, and fills in the documents that speak of the data set."""
    tables_md, others = documents(out)
    collect.write(tables_md, tables.page(sections).encode())
    for path in others:
        collect.write(path, filled(path.read_text(encoding="utf-8"), sections).encode())
    return tables_md


def draw(args, out):
    """Draws every picture and writes every table of the data set in out/results."""
    rows, curves = collect.load(out / "results")
    runs, every_run, notes = compare.comparison(rows)
    for line in notes:
        print(f"not compared: {line}", file=sys.stderr)
    names = []
    for name, drawing, shown in pictures(runs, every_run, curves):
        figure = drawing()
        # The hash tells which runs a picture shows: its own bytes depend on how matplotlib was built, too.
        source = None if name in THEORY else collect.sha256(out / "results", shown["run"])
        save(figure, out / f"{name}.png", source, png)
        if args.svg:
            save(figure, out / f"{name}.svg", source, svg)
        if figure:
            names.append(f"{name}.png")
    page_path = args.page or (None if out.resolve() == HERE else out / "index.html")
    if page_path:
        page.write(rows, curves, page_path)
        print(f"Open {page_path} in a browser: an update, β_t and every run, to play with")
    tables_md = write_documents(out, tables.sections(runs, every_run, curves))
    main = compare.merged(compare.main_runs(runs))
    for task in compare.present(runs["env_id"]):
        remarks = figures.remarks(main, task, tables.main_variants(main)).split("\n")
        line = ", ".join([figures.title(runs, task), *filter(None, remarks)])
        print(f"{line}: {runs['steps'][runs['env_id'] == task].iloc[0]:,} steps")
    print(f"In {out}: {', '.join(names)}; the tables, beside the paper's: {tables_md}")


def main(args):
    """Does what the arguments say. Ends the program with one line where that cannot be done."""
    out = HERE if args.publish else args.out or args.runs_dir / "plots"
    if args.publish and args.out:
        fail("--publish writes into the published data set: leave --out out")
    if not args.publish and out.resolve().is_relative_to(HERE):
        fail(f"--out {out} is the published data set's: name another folder, or use --publish")
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
    except collect.DataError as error:
        fail(str(error))


if __name__ == "__main__":
    try:
        main(tyro.cli(Args, description=__doc__))
    except KeyboardInterrupt:
        fail("interrupted", code=130)
    except OSError as error:
        fail(f"{error}: if the disk is full or read-only, make room or name another folder with --out")
