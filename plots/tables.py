"""The tables of a sweep, as Markdown."""

import compare
import estimates
import numpy as np

TEST = "Welch's test"
FEW_POINTS = 10  # a mean return below it, of either sign, is told with a digit after the point
DASH = "—"  # no run, or nothing to compare with

# Heading of each table in tables.md, and how to read it.
HOW_TO_READ = {
    "final_return": (
        "Final returns",
        "Final return (the training episodes' mean return of an iteration, averaged over the iterations of the last "
        "10 % of steps): mean ± standard deviation with divisor n, and in brackets the seeds. Below a reference's, if "
        "there is one, stands p of Welch's test between both means after Holm's correction for all tests of the table.",
    ),
    "tests": (
        "Beside the baseline",
        "p of Welch's test between the mean final returns of a variant and of the baseline, after Holm's correction "
        "for all tests of the table; `differs` means that it is below 0.05.",
    ),
    "aggregate": (
        "All tasks together",
        "The probability that a run returns more than a run of the baseline, averaged over tasks, where an interval "
        "that holds 0.5 decides nothing; a run that diverged is below all others. With a reference also the score, "
        "averaged over seeds and tasks: 0 is a random policy, 1 the reference's clip, and a run that diverged scores "
        "0. In brackets 95 % stratified bootstrap intervals.",
    ),
    "region": (
        "How far an iteration moves the policy",
        "Approximate KL in an iteration's last epoch (nats), and over all its epochs the share of the samples outside "
        "the band [1−ε, 1+ε]: medians over the iterations of all seeds.",
    ),
    "cost": (
        "Cost",
        "Core-hours of all runs, of one thread each, and the median rate of those that are compared, start included.",
    ),
}


def number(value, digits=0):
    """A number as text, rounded twice so that a last bit that differs between processors does not show."""
    return f"{round(float(value), 9):,.{digits}f}"


def markdown(rows, labels=1):
    """Rows of text as a Markdown table, the first `labels` columns flush left; empty if there is a head alone."""
    if len(rows) < 2:
        return ""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * labels + "---:|" * (len(rows[0]) - labels))
    return "\n".join(lines)


def crossed(runs, row_names, column, entry, heads=None):
    """The table of what entry says of the runs of each cell, in rows by row_names and columns by column: names of
    columns of runs, all ordered categoricals."""
    columns = compare.present(runs[column])
    rows = [[*(heads or row_names), *columns]]
    for names, of_row in runs.groupby(row_names, observed=True):
        cells = dict(list(of_row.groupby(column, observed=True)))
        rows.append([*names, *(entry(cells[name]) if name in cells else DASH for name in columns)])
    return markdown(rows, len(row_names))


def mean_and_std(runs):
    """Mean ± standard deviation (divisor n) of the final returns of the runs that finished, and in brackets how many
    those are, and what became of the others."""
    if runs.empty:
        return DASH
    returns = runs["final_return"].dropna()
    diverged = int(runs["diverged"].sum())
    endless = len(runs) - len(returns) - diverged
    others = [f"{diverged} diverged"] if diverged else []
    if endless:
        others.append(f"{endless} without an end of an episode")
    count = ", ".join([f"{len(returns)} of {len(runs)}", *others]) if others else f"{len(runs)}"
    if returns.empty:
        return f"{DASH} ({count})"
    digits = 0 if abs(returns.mean()) >= FEW_POINTS else 1
    spread = f" ± {number(returns.std(ddof=0), digits)}" if len(returns) > 1 else ""
    return f"{number(returns.mean(), digits)}{spread} ({count})"


def published(task, variant, reference, count=True):
    """The reference's mean ± standard deviation, and in brackets its seeds; a dash where it has none."""
    key = (task, compare.first_name(variant))
    if key not in reference.returns.index:
        return DASH
    mean, std, seeds = reference.returns.loc[key, ["mean", "std", "seeds"]]
    return f"{number(mean)} ± {number(std)}" + f" ({seeds:.0f})" * count


def median_kl(runs, curves):
    """The median KL of an iteration over all iterations of the runs, NaN if nothing was logged."""
    return curves["approx_kl"][curves["run"].isin(runs["run"])].median()


def kl_text(kl):
    """A KL as text; a dash for NaN."""
    if np.isnan(kl):
        return DASH
    digits = 5 if kl < 0.001 else 3 if kl < 100 else 0
    return number(kl, digits)


def region(runs, curves):
    """How far the policy moves in an iteration, and the share of samples outside the band: medians over the
    iterations of all seeds, which no single one decides."""
    kl = median_kl(runs, curves)
    inside = curves["in"][curves["run"].isin(runs["run"])].median()
    return DASH if np.isnan(kl) else f"{kl_text(kl)}, {number(100 - 100 * inside)} %"


def verdict(p):
    """A corrected p value in words; a dash where no test could be made."""
    if np.isnan(p):
        return DASH
    text = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    return text + (", differs" if p < estimates.LEVEL else "")


def estimate(result, digits=2):
    """A value and its interval; a dash for None."""
    if result is None:
        return DASH
    value, low, high = (number(part, digits) for part in result)
    return f"{value} [{low}, {high}]" if np.isfinite(result[1]) else value


def returns_of(runs):
    """The final returns of the runs that finished, as {(task, variant): array}."""
    finished = runs.dropna(subset="final_return")
    return finished.groupby(["env_id", "variant"], observed=True)["final_return"].agg(np.array).to_dict()


def corrected(tests):
    """{key: p value} after Holm's correction for all of them."""
    return dict(zip(tests, estimates.holm(list(tests.values())), strict=True))


def tests_beside_reference(runs, reference):
    """{(task, variant): corrected p} of Welch's tests between our means and the reference's, of runs as long as its."""
    tests = {}
    for (task, variant), returns in returns_of(as_long_as(runs, reference)).items():
        key = (task, compare.first_name(variant))
        if key in reference.returns.index:
            mean, std, seeds = reference.returns.loc[key, ["mean", "std", "seeds"]]
            tests[task, variant] = estimates.welch_published(returns, mean, std, seeds)
    return corrected(tests)


def as_long_as(runs, reference):
    """The runs of tasks that the reference has, with as many steps."""
    steps = reference.returns["steps"].groupby("task").first()
    return runs[runs["steps"] == runs["env_id"].astype(str).map(steps)]


def tests_beside(runs, baseline="clip"):
    """{(task, variant): corrected p} of Welch's tests between the final returns of a variant and of a baseline."""
    returns = returns_of(runs)
    names = {variant: compare.first_name(variant) for _, variant in returns}
    of_baseline = {task: values for (task, variant), values in returns.items() if names[variant] == baseline}
    tests = {}
    for (task, variant), values in returns.items():
        if names[variant] != baseline and task in of_baseline:
            tests[task, variant] = estimates.welch(values, of_baseline[task])
    return corrected(tests)


def final_return_table(runs, variants, same, reference=None):
    """Final returns, a row a task; and where there is a reference, its own and the tests between both."""
    tests = tests_beside_reference(runs, reference) if reference else {}
    rows = [["task", "", *variants, "identical triples"]]
    for task, of_task in runs.groupby("env_id", observed=True):
        cells = [mean_and_std(of_task[of_task["variant"] == variant]) for variant in variants]
        found = same[same.index.get_level_values("env_id") == task]
        triples = f"{found.sum()} of {len(found)}" if len(found) else DASH
        rows.append([task, f"ours, {of_task['steps'].iloc[0]:,} steps", *cells, triples])
        if reference and task in reference.random.index:
            rows.append(["", reference.name, *(published(task, variant, reference) for variant in variants), ""])
        verdicts = [verdict(tests.get((task, variant), np.nan)) for variant in variants]
        if set(verdicts) != {DASH}:
            rows.append(["", TEST, *verdicts, ""])
    return markdown(rows, labels=2)


def tests_table(runs, baseline="clip"):
    """Welch's test beside a baseline, a row a variant, a column a task."""
    tests = tests_beside(runs, baseline)
    others = runs[runs["variant"].astype(str).map(compare.first_name) != baseline]

    def entry(cell):
        first = cell.iloc[0]
        return verdict(tests.get((first["env_id"], first["variant"]), np.nan))

    return crossed(others, ["variant"], "env_id", entry) if tests else ""


def aggregate_table(found, baseline="clip"):
    """From {variant: Aggregate}: the score, if there is one, and the probability of improvement over a baseline."""
    scored = any(aggregate.score for aggregate in found.values())
    rows = [["variant", "tasks", *["mean score"] * scored, f"probability of improvement over {baseline}"]]
    for variant, aggregate in found.items():
        entries = [aggregate.score] * scored + [aggregate.improvement]
        rows.append([variant, f"{len(aggregate.tasks)}", *map(estimate, entries)])
    return markdown(rows)


def aggregates_of(runs, baseline="clip", reference=None):
    """{variant: Aggregate} of runs; without a reference none has a score."""
    baseline = compare.called(compare.present(runs["variant"]), baseline)
    if reference:
        return estimates.aggregates(compare.scores(runs, reference), baseline)
    found = estimates.aggregates(compare.ranks(runs), baseline)
    return {variant: aggregate._replace(score=None) for variant, aggregate in found.items()}


def cost_table(runs, every_run):
    """Core-hours of all runs; steps per second of those that are compared, for other settings have other rates."""
    rows = [["task", "runs", "steps of a run", "core-hours", "steps per second (median)"]]
    for task, of_task in every_run.groupby("env_id", observed=True):
        lengths = dict.fromkeys((of_task["steps"].min(), of_task["steps"].max()))
        steps = " to ".join(f"{length:,}" for length in lengths)
        rate = runs["sps"][runs["env_id"] == task].median()
        rate_text = DASH if np.isnan(rate) else number(rate)
        rows.append([task, f"{len(of_task)}", steps, number(core_hours(of_task), 2), rate_text])
    rows.append(["all", f"{len(every_run)}", "", number(core_hours(every_run), 2), ""])
    return markdown(rows)


def core_hours(runs):
    return runs["wall_time_s"].sum() / 3600


def sections(runs, curves, baseline="clip", reference=None):
    """The tables of a sweep by name, as Markdown; empty where there is nothing to tell."""
    both = compare.merged(runs)
    same = compare.identical_triples(runs)
    return {
        "final_return": final_return_table(both, compare.present(both["variant"]), same, reference),
        "tests": tests_table(both, baseline),
        "aggregate": aggregate_table(aggregates_of(both, baseline, reference), baseline),
        "region": crossed(both, ["variant"], "env_id", lambda cell: region(cell, curves)),
        "cost": cost_table(runs, runs),
    }


def documented(found, how_to_read):
    """Each table that is not empty, below its heading and the sentence that says how to read it, as Markdown."""
    return [
        f"## {heading}\n\n{sentence}\n\n{found[name]}\n"
        for name, (heading, sentence) in how_to_read.items()
        if found[name]
    ]
