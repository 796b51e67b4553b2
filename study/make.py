"""Makes the pictures, the tables and the numbers in the documents again, from the data in study/data:

    python study/make.py            # --check writes nothing, and names what differs

The pictures go to study/pictures, the tables to study/tables.md, and what stands in README.md and docs/ between
`<!-- results: NAME -->` and `<!-- end -->` is replaced. The pictures of theory and design_axis show the surrogates of
the scripts as they are; nothing else asks a script. Nothing here trains.
"""

import os
import re
import sys
from functools import partial
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "plots"), str(ROOT / "tools"), str(ROOT)]

import collect
import compare
import contest
import dataset
import design_axis
import figures
import pandas as pd
import paper
import pictures
import questions
import sections
import style
import tables
import theory
import tyro
import varied
from PIL import Image

THEORY = ("theory", "design_axis")  # pictures that show no data
OF_STUDY = [HERE / "reproduction.md", HERE / "v5" / "README.md"]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *OF_STUDY]


def load():
    """The rows of runs.csv, the runs to compare, all runs, and the curves."""
    rows, curves = dataset.load(HERE / "data")
    every_run = compare.typed(rows, paper.TASKS, paper.VARIANTS)
    return rows, varied.compared(paper.not_apart(every_run)), every_run, curves


def drawings(runs, every_run, curves):
    """Every picture: its name, a function that draws it, and the runs that it shows."""
    main = paper.main_runs(runs)
    forms = main[main["variant"].isin(compare.FORMS)]
    betas = paper.betas_runs(runs)
    own = paper.not_apart(every_run)
    own = own[~own["run"].str.startswith(paper.SCREENED)]
    points = varied.knob_points(runs, own)
    points = points[points["knob"].isin(paper.KNOBS)]
    over_kl = paper.main_runs(varied.settings(runs, own))
    over_kl = over_kl[over_kl["env_id"].isin(betas["env_id"])]
    first_stage = contest.first_stage(every_run)
    second_stage = contest.second_stage(every_run)
    choice = contest.chosen(contest.screening_scores(first_stage))
    yield "learning_curves", partial(figures.learning_curves, main, curves), main
    yield "identity", partial(figures.identity, forms, curves), forms
    yield "partition", partial(pictures.partition, main, curves), main
    yield "final_returns", partial(figures.final_returns, main, reference=paper.REFERENCE), main
    yield "paper_curves", partial(pictures.paper_curves, main, curves), main
    yield "betas_final_returns", partial(figures.final_returns, betas, reference=paper.REFERENCE), betas
    yield "betas_aggregate", partial(figures.aggregate, betas, reference=paper.REFERENCE), betas
    yield "arguments", partial(varied.knobs, runs, points), points
    yield "return_over_kl", partial(varied.return_over_kl, over_kl, curves), over_kl
    yield "chances", partial(pictures.chances, second_stage, choice), second_stage
    yield "confirmation", partial(pictures.confirmation, second_stage, choice), second_stage
    yield "confirmation_kl", partial(pictures.confirmation_kl, second_stage, curves, choice), second_stage
    yield "theory", theory.theory_sheet, runs.iloc[:0]
    yield "design_axis", design_axis.design_axis, runs.iloc[:0]


def filled(text, found):
    """A document with what stands between `<!-- results: NAME -->` and `<!-- end -->` replaced by that section."""

    def fill(match):
        part = found[match[1]]
        return f"<!-- results: {match[1]} -->" + (f"\n{part}\n" if "\n" in part else part) + "<!-- end -->"

    return re.sub(r"<!-- results: (\w+) -->.*?<!-- end -->", fill, text, flags=re.DOTALL)


def load_v5():
    """The rows of v5/runs.csv, the runs so far, how many there are to be, and the curves."""
    rows, curves = dataset.load(HERE / "v5")
    return rows, compare.typed(rows, questions.TASKS), len(pd.read_csv(HERE / "v5" / "plan.csv")), curves


def anchor(heading):
    """The fragment by which GitHub links to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def documents(runs, every_run, curves, v5_runs, v5_planned):
    """The text of each document that the data fill in, by path."""
    found = sections.sections(runs, every_run, curves, pd.read_csv(HERE / "data" / "speed.csv"))
    of_study = sections.returns_by_task(paper.main_runs(runs))
    found |= questions.sections(v5_runs, v5_planned, of_study)
    newest = compare.typed(dataset.load(HERE / "newest")[0], paper.TASKS)
    found["newest"] = sections.newest_table(newest, of_study)
    elsewhere = pd.read_csv(HERE / "elsewhere.csv")
    found["pairs_sb3"] = sections.equal_pairs(elsewhere, "Stable-Baselines3")
    found["pairs_cleanrl"] = sections.equal_pairs(elsewhere, "CleanRL")
    texts = {path: filled(path.read_text(encoding="utf-8"), found) for path in DOCUMENTS}
    contents = [f"- [{heading}](#{anchor(heading)})" for heading, _ in sections.HOW_TO_READ.values()]
    parts = ["# Tables\n\nWritten by `python study/make.py` from the data.\n", "\n".join(contents) + "\n"]
    parts += tables.documented(found, sections.HOW_TO_READ)
    return texts | {HERE / "tables.md": "\n".join(parts)}


def reference(runs):
    """The text of reference.csv, which plots/make.py reads: mean returns of the runs that are compared."""
    cells = runs.groupby(["env_id", "variant"], observed=True)
    table = pd.DataFrame(
        {
            "mean": cells["final_return"].mean().round(2),
            "std": cells["final_return"].std(ddof=0).round(2),
            "seeds": cells["final_return"].count(),
            "steps": cells["steps"].first(),
        }
    ).rename_axis(["task", "variant"])
    table["random_policy"] = table.index.get_level_values("task").astype(str).map(paper.REFERENCE.random)
    return table.to_csv()


def differing(texts, sources):
    """The files that are not what the data give: by their text, and pictures by the hash of the runs in them, since
    their bytes depend on how matplotlib was built, too."""
    found = [path.name for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
    stamps = {path.stem: Image.open(path).text.get("Source") for path in (HERE / "pictures").glob("*.png")}
    names = sorted(stamps.keys() | sources.keys())
    return found + [f"{name}.png" for name in names if stamps.get(name, ...) != sources.get(name, ...)]


def finished(name, figure):
    """A figure with its caption, but for that of the design axis, which stands in docs/betas.md."""
    return figure if name == "design_axis" else pictures.with_caption(figure)


def main(check: bool = False):
    """Makes pictures, tables and the numbers in the documents again.

    Args:
        check: write nothing; name what is not as the data give it, and exit with 1 if there is any
    """
    rows, runs, every_run, curves = load()
    every_drawing = list(drawings(runs, every_run, curves))
    sources = {name: dataset.sha256(rows, curves, shown["run"]) for name, _, shown in every_drawing}
    sources |= dict.fromkeys(THEORY)
    v5_rows, v5_runs, v5_planned, v5_curves = load_v5()
    if questions.answered(v5_runs):
        every_drawing.append(("v5_chances", partial(pictures.v5_chances, v5_runs), v5_runs))
        sources["v5_chances"] = dataset.sha256(v5_rows, v5_curves, v5_runs["run"])
    texts = documents(runs, every_run, curves, v5_runs, v5_planned) | {HERE / "reference.csv": reference(runs)}
    if check:
        names = differing(texts, sources)
        sys.exit(f"differs from the data: {', '.join(names)}; run python study/make.py" if names else 0)
    for path, text in texts.items():
        collect.write(path, text.encode())
    for name, draw, _ in every_drawing:
        collect.write(HERE / "pictures" / f"{name}.png", style.png(finished(name, draw()), sources[name]))


if __name__ == "__main__":
    tyro.cli(main)
