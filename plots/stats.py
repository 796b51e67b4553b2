"""Which runs are compared, scores and tests on them, and the tables."""

import importlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import report
from scipy.stats import binomtest, bootstrap, mannwhitneyu, norm, t, ttest_ind, ttest_ind_from_stats

import ppo_clip_continuous
import ppo_kl_scalar_continuous

FORMS = list(report.FORMS)  # of one update: trained with one seed, they end with the same bits
MAIN = [*FORMS, "kl_fixed", "kl_adaptive"]
VARIANTS = report.names("VARIANTS")
ORDER = [*VARIANTS, "clip_higher", "dual_clip", "rollback", "spo", "sapo", "cispo", "soft", "none"]
TASKS = report.names("TASKS")
KNOBS = report.names("KNOBS")
DEFAULTS = asdict(ppo_kl_scalar_continuous.Args())
SHARED = asdict(ppo_clip_continuous.Args()).keys()
HERE = Path(__file__).parent
PAPER = pd.read_csv(HERE / "paper_table.csv", comment="#", index_col="task")
PAPER_CURVES = pd.read_csv(HERE / "paper_curves.csv", comment="#")
PEER = pd.read_csv(HERE / "peer.csv", comment="#", dtype={"beta": str}, keep_default_na=False)
RANDOM = pd.read_csv(HERE / "random_policy.csv", comment="#", index_col="task")["mean"]
BIMODAL, BREAKOUT = "HalfCheetah-v4", 3000
TEST, LEVEL = "Welch's test", 0.05


def in_order(names, order):
    """Distinct names, known ones in their order first, the others by the alphabet."""
    return sorted(set(names), key=lambda name: (order.index(name) if name in order else len(order), name))


def text(setting):
    """A dict of arguments as one sortable string."""
    return json.dumps(setting, sort_keys=True)


def preferred(settings):
    """Of a column of settings: the one with most steps, then most runs, then fewest departures from the defaults."""
    counts = settings.value_counts()

    def rank(setting):
        args = json.loads(setting)
        departures = sum(name in DEFAULTS and value != DEFAULTS[name] for name, value in args.items())
        return -args.get("total_timesteps", 0), -counts[setting], departures, setting

    return min(counts.index, key=rank)


def present_sha256(variant, discrete):
    """script_sha256 of a variant's script as it stands here, or None if that cannot be told."""
    script = f"ppo_{'kl_scalar' if variant[:3] == 'kl_' else variant}_{'cartpole' if discrete else 'continuous'}"
    for name in (script, f"betas.{variant}"):
        if (HERE.parent / f"{name.replace('.', '/')}.py").exists():
            return report.script_sha256(importlib.import_module(name).Args())
    return None


def current(runs):
    """Which runs are of the version of their variant's script that is compared: the present one if it has runs, else
    the one with most."""
    chosen = {}
    for (variant, discrete), versions in runs.groupby(["variant", "discrete"])["script_sha256"]:
        counts = versions.value_counts()
        present = present_sha256(variant, discrete) if len(counts) > 1 else None
        most = min(counts.index, key=lambda version: (-counts[version], version))
        chosen[variant, discrete] = present if present in counts else most
    return [run.script_sha256 == chosen[run.variant, run.discrete] for run in runs.itertuples()]


def select(runs):
    """The runs to compare: one version of a variant's script, one setting a task, within it one setting of a variant's
    own arguments, one run a seed.

    Returns them, all runs of these versions with their settings, and a line for each thing left out.
    """
    args = runs["args"].map(json.loads)
    runs = runs.assign(
        seed=runs["seed"].astype(int),
        final_return=pd.to_numeric(runs["final_return"]),
        diverged=runs["diverged_at"] != "",
        **{name: runs[name].astype(float) for name in ("sps", "wall_time_s")},
        steps=args.map(lambda a: a["total_timesteps"]),
        discrete=args.map(lambda a: a["exp_name"].endswith("_cartpole")),
        shared=args.map(lambda a: text({k: v for k, v in a.items() if k in SHARED and k != "exp_name"})),
        own=args.map(lambda a: text({k: v for k, v in a.items() if k not in SHARED})),
    )
    is_current, chosen, notes = pd.Series(current(runs), runs.index), [], []
    for (task, variant, version), others in runs[~is_current].groupby(["env_id", "variant", "script_sha256"]):
        notes.append(
            f"{task}, {variant}: runs of another version, script_sha256 {version[:8] or 'unknown'}: {len(others)}"
        )
    runs = runs[is_current]
    for task in in_order(runs["env_id"], TASKS):
        of_task = runs[runs["env_id"] == task]
        setting = preferred(of_task["shared"])
        for variant in in_order(of_task["variant"], ORDER):
            of_variant = of_task[of_task["variant"] == variant]
            same = of_variant[of_variant["shared"] == setting]
            if len(same):
                same = same[same["own"] == preferred(same["own"])]
            latest = same.drop_duplicates("seed", keep="last")  # names end in the time
            if len(same) > len(latest):
                notes.append(f"{task}, {variant}: older runs of the same seed: {len(same) - len(latest)}")
            if len(of_variant) > len(same):
                main = json.loads(setting) | json.loads(same["own"].iloc[0] if len(same) else "{}")
                others = of_variant.drop(same.index)
                other = [json.loads(run.shared) | json.loads(run.own) for run in others.itertuples()]
                names = sorted({name for a in other for name in main if a.get(name) != main[name]})
                notes.append(f"{task}, {variant}: runs with another {', '.join(names)}: {len(others)}")
            chosen.append(latest)
    return pd.concat(chosen, ignore_index=True), runs, notes


def main_runs(runs):
    return runs[runs["variant"].isin(MAIN)]


def betas_runs(runs):
    """The runs of other variants than the main ones, and those to compare with: of their tasks and seeds."""
    others = runs[~runs["variant"].isin(MAIN)]
    return with_seeds_of(runs[runs["env_id"].isin(others["env_id"]) & ~runs["variant"].isin(FORMS[1:])], others)


def with_seeds_of(runs, others):
    """The runs without the seeds that the others lack, on the tasks that the others have."""
    having = others.groupby("env_id")["seed"].agg(set)
    kept = [seed in having.get(task, {seed}) for task, seed in zip(runs["env_id"], runs["seed"])]
    return runs[np.array(kept, bool)]


def knob_points(runs, every_run):
    """The runs in which one argument differs from those that are compared, and of these the ones with the same seeds,
    for each such argument: run, knob, task, variant, value, seed, final_return, diverged. As a pair: first the arguments
    that ./benchmark.sh knobs sweeps, then the others."""
    points = []
    for (task, variant), chosen in runs.groupby(["env_id", "variant"]):
        alike = every_run[(every_run["env_id"] == task) & (every_run["variant"] == variant)]
        args = [json.loads(run.shared) | json.loads(run.own) for run in alike.itertuples()]
        main = json.loads(chosen["shared"].iloc[0]) | json.loads(chosen["own"].iloc[0])
        changed = [[k for k in {**main, **a} if main.get(k) != a.get(k)] for a in args]
        for knob in sorted({names[0] for names in changed if len(names) == 1} - {"total_timesteps"}):
            values = ["None" if a.get(knob) is None else a[knob] for a in args]  # None itself equals nothing in pandas
            cells = alike.assign(knob=knob, task=task, value=pd.Series(values, alike.index, object))
            swept = cells[[names == [knob] for names in changed]]
            default = cells[[names == [] for names in changed]]
            points += [swept, default[default["seed"].isin(swept["seed"])]]
    columns = ["run", "knob", "task", "variant", "value", "seed", "final_return", "diverged"]
    points = pd.concat(points)[columns] if points else pd.DataFrame(columns=columns)
    points = points.drop_duplicates(["knob", "task", "variant", "value", "seed"], keep="last")
    swept = points["knob"].isin(KNOBS)
    return points[swept], points[~swept]


def triples(runs):
    """Of each (task, seed) that clip, klip and phi all have: whether they ended with the same parameters."""
    forms = runs[runs["variant"].isin(FORMS) & (runs["params_sha256"] != "")]
    hashes = forms.groupby(["env_id", "seed"])["params_sha256"]
    return (hashes.nunique() == 1)[hashes.size() == len(FORMS)]


def merged(runs):
    """The runs with clip, klip and phi as one variant if they are: where all three ran, they are identical; and the
    name of it."""
    same = triples(runs)
    if same.empty or not same.all():
        return runs, {}
    runs = runs.assign(variant=runs["variant"].replace(dict.fromkeys(FORMS, "clip")))
    return runs.drop_duplicates(["env_id", "variant", "seed"]), {"clip": " = ".join(FORMS)}


def scores(runs):
    """Scores as {variant: [(seeds,) a task]}, and the tasks: 0 is a random policy, 1 the paper's PPO-Clip, a diverged
    run scores 0. Tasks without these anchors, or without a seed that every variant has, are left out, and so are other
    seeds. Empty without such a task."""
    low = runs["env_id"].map(RANDOM)
    score = (runs["final_return"] - low) / (runs["env_id"].map(PAPER["clip_mean"]) - low)
    runs = runs.assign(score=score.mask(runs["diverged"] & low.notna(), 0.0)).dropna(subset="score")
    variants, tables = in_order(runs["variant"], ORDER), {}
    for task in in_order(runs["env_id"], TASKS):
        table = runs[runs["env_id"] == task].pivot(index="seed", columns="variant", values="score")
        table = table.reindex(columns=variants).dropna()
        if len(table):
            tables[task] = table
    return {v: [table[v].to_numpy() for table in tables.values()] for v in variants} if tables else {}, list(tables)


def iqm(*tasks, axis=-1):
    """The interquartile mean: of the scores of all tasks, the mean of the middle half. Each task weighs the same, whatever
    its number of seeds (scipy's trim_mean knows no weights)."""
    weights = np.concatenate([np.full(task.shape[axis], 1 / task.shape[axis] / len(tasks)) for task in tasks])
    scores = np.concatenate(tasks, axis)
    order = np.argsort(scores, axis)
    below = np.cumsum(weights[order], axis)
    kept = below.clip(0.25, 0.75) - (below - weights[order]).clip(0.25, 0.75)
    return 2 * (np.take_along_axis(scores, order, axis) * kept).sum(axis)


def improvement(*tasks, axis=-1):
    """The chance that a run of the first half of the samples beats one of the second, a tie counting half, averaged
    over tasks: the first half holds one variant's tasks, the second the same tasks of the other."""
    ours, theirs = tasks[: len(tasks) // 2], tasks[len(tasks) // 2 :]
    beats = [(np.sign(x[..., :, None] - y[..., None, :]) / 2 + 0.5).mean((-2, -1)) for x, y in zip(ours, theirs)]
    return np.mean(beats, 0)


def interval(statistic, samples, resamples=5000):
    """The statistic and its 95 % bootstrap interval, stratified: seeds are drawn anew within each task. With a single
    seed there is none."""
    if min(len(sample) for sample in samples) < 2:
        return statistic(*samples), np.nan, np.nan
    options = {"vectorized": True, "method": "percentile", "n_resamples": resamples, "batch": 1000}
    low, high = bootstrap(samples, statistic, rng=np.random.default_rng(0), **options).confidence_interval
    return statistic(*samples), low, high


def aggregates(runs):
    """The interquartile mean and the probability of improvement over clip, with their intervals, as {variant: (IQM,
    improvement or None)}; names of variants; the tasks, and the numbers of seeds. Empty without a task with scores."""
    runs, names = merged(runs)
    cells, tasks = scores(runs)
    counts = sorted({len(sample) for samples in cells.values() for sample in samples})
    results = {}
    for variant in cells:
        compared = variant != "clip" and "clip" in cells and counts[0] > 1  # a single seed says nothing
        over = interval(improvement, [*cells[variant], *cells["clip"]]) if compared else None
        results[variant] = interval(iqm, cells[variant]), over
    return results, names, tasks, counts


def welch(ours, mean, std, n=5):
    """The p value of Welch's test between runs and published results with that mean, and standard deviation with divisor
    n; NaN if fewer than two runs finished."""
    ours = ours["final_return"].dropna()
    if len(ours) < 2:
        return np.nan
    published = (mean, std * np.sqrt(n / (n - 1)), n)
    return ttest_ind_from_stats(ours.mean(), ours.std(), len(ours), *published, equal_var=False).pvalue


def beside_clip(ours, task, variant):
    """What a task's runs of a variant return beside clip's: ours, the paper's, the difference of these two differences,
    half its 95 % interval and the p value that it is 0; the last two NaN if fewer than two runs of either finished."""
    published = {v: (PAPER.loc[task, f"{v}_mean"], PAPER.loc[task, f"{v}_std"] ** 2 / 4, 5) for v in (variant, "clip")}
    returns = {v: ours.loc[ours["variant"] == v, "final_return"].dropna() for v in (variant, "clip")}
    trained = {v: (x.mean(), x.var() / max(len(x), 1), len(x)) for v, x in returns.items()}
    means, squares, counts = np.array([side[v] for side in (trained, published) for v in (variant, "clip")], float).T
    here, there = means[0] - means[1], means[2] - means[3]
    if counts.min() < 2:
        return here, there, here - there, np.nan, np.nan
    error, freedom = (
        np.sqrt(squares.sum()),
        squares.sum() ** 2 / (squares**2 / (counts - 1)).sum(),
    )  # Welch-Satterthwaite
    return here, there, here - there, error * t.isf(0.025, freedom), 2 * t.sf(abs(here - there) / error, freedom)


def number(value, digits=0):
    """Rounded twice, so that a last bit that differs between processors does not show."""
    return f"{round(float(value), 9):,.{digits}f}"


def cell(runs):
    """Mean ± standard deviation (divisor n) over the runs that finished, and their number."""
    returns, diverged = runs["final_return"].dropna(), int(runs["diverged"].sum())
    total = len(returns) + diverged
    if not total:
        return "—"
    if returns.empty:
        return f"{diverged} of {total} diverged"
    spread = f" ± {number(returns.std(ddof=0))}" if len(returns) > 1 else ""
    count = f"{len(returns)} of {total}, {diverged} diverged" if diverged else total
    return f"{number(returns.mean())}{spread} ({count})"


def final_returns(runs, tests=True):
    """The table of final returns of the main variants as rows of text: a head, then for each task (also those that only
    the paper trained) ours, the paper's, and if tests the test between them."""
    same, (runs, names) = triples(runs), merged(main_runs(runs))
    variants = MAIN[:1] + MAIN[3:] if names else MAIN
    rows = [["task", "", *(names.get(v, v) for v in variants), "identical triples"]]
    for task in in_order([*PAPER.index, *runs["env_id"]], TASKS):
        of_task = runs[runs["env_id"] == task]
        cells = {v: of_task[of_task["variant"] == v] for v in variants}
        found = same[same.index.get_level_values("env_id") == task]
        steps = f", {of_task['steps'].iloc[0]:,} steps" if len(of_task) else ""
        rows.append(
            [task, f"ours{steps}", *map(cell, cells.values()), f"{found.sum()} of {len(found)}" if len(found) else "—"]
        )
        if task in PAPER.index:
            paper = {
                v: (PAPER.loc[task, f"{v}_mean"], PAPER.loc[task, f"{v}_std"]) for v in variants if f"{v}_mean" in PAPER
            }
            published = {v: f"{mean:,} ± {std:,} (5)" for v, (mean, std) in paper.items()}
            rows.append(["", "paper", *(published.get(v, "—") for v in variants), ""])
            if tests and set(of_task["steps"]) == {PAPER.loc[task, "steps"]}:
                verdicts = {v: verdict(welch(cells[v], *paper[v])) for v in paper}
                rows.append(["", TEST, *(verdicts.get(v, "—") for v in variants), ""])
    return rows


def verdict(p):
    if np.isnan(p):
        return "—"
    return ("p < 0.001" if p < 0.001 else f"p = {p:.2g}") + (", differs" if p < LEVEL else "")


def tested(first, second):
    """Welch's test between two samples of final returns, in words; a dash if either has fewer than two."""
    return verdict(ttest_ind(first, second, equal_var=False).pvalue if min(len(first), len(second)) > 1 else np.nan)


def ranked(first, second):
    """The chance that a run of the first sample returns more than one of the second, a tie counting half, and the
    Mann-Whitney test that it is 0.5; a dash if either has fewer than two."""
    if min(len(first), len(second)) < 2:
        return "—"
    wins, p = mannwhitneyu(first, second)
    return f"{number(wins / len(first) / len(second), 2)}, {verdict(p)}"


CELLS_NOTE = (
    "Final return: mean ± standard deviation (divisor n, in both rows) over the seeds that finished, whose number is in "
    "brackets. Identical triples: seeds with which clip, klip and phi ended with the same parameters, bit for bit. —: no "
    "complete run, or not in the paper."
)
NOTE = (
    f"{CELLS_NOTE} A run's final return: the training episodes' mean return of an iteration, averaged over the iterations "
    f"of the last 10 % of steps. Welch's test, of runs as long as the paper's: between ours and the paper's means (with divisor n − 1); "
    f"differs: p < {LEVEL}, without correction for the number of tests. Paper: Colletti & Holzinger 2026, arXiv 2606.23932."
)


def sections(runs, every_run, curves):
    """What the documents say of the results, as Markdown by name: tables, and numbers to stand within a sentence; empty
    where there are no such runs."""
    same, main, betas = triples(runs), main_runs(runs), betas_runs(runs)
    grid = with_seeds_of(main, main[main["variant"].isin(FORMS[1:])])
    knobs, settings = knob_points(runs, every_run)
    tests = [text for row in final_returns(runs) if row[1] == TEST for text in row[2:-1] if text != "—"]
    return {
        "final_return": markdown(final_returns(runs)) + f"\n\n{NOTE}",
        "final_return_untested": markdown(final_returns(runs, tests=False)) + f"\n\n{CELLS_NOTE}",
        "differing": f"{sum('differs' in text for text in tests)} of {len(tests)}",
        "beside_clip": beside_clip_table(main),
        "beside_clip_later_seeds": beside_clip_table(main[main["seed"] > 4]),  # that did not raise the question
        "triples": f"{same.sum()} of {len(same)}",
        "peer": peer_table(main),
        "kill_peak": kill_peak_table(main, curves),
        "aggregate": aggregate_table(main),
        "breakout": breakout_table(main),
        "scalar_tests": tests_table(merged(main)[0]),
        "scalar_ranks": tests_table(merged(main)[0], ranked),
        "scalar_region": region_table(merged(main)[0], curves),
        "betas": betas_table(betas),
        "betas_tests": tests_table(betas),
        "betas_region": region_table(betas, curves),
        "betas_aggregate": aggregate_table(betas),
        "knobs": knob_tables(knobs, cell),
        "knobs_region": knob_tables(knobs, lambda cell_runs: region(cell_runs, curves)),
        "settings": knob_tables(settings, cell),
        "cost": cost_table(runs, every_run),
        "grid_runs": f"{len(grid):,}",
        "grid_core_hours": number(grid["wall_time_s"].sum() / 3600, 1),
        "runs": f"{len(every_run):,}",
        "core_hours": number(every_run["wall_time_s"].sum() / 3600, 1),
        "versions": "; ".join(sorted(set(every_run["versions"]))),
    }


def aggregate_table(runs):
    results, names, tasks, counts = aggregates(runs)
    if not results:
        return ""

    def estimate(result):
        if result is None:
            return "—"
        value, low, high = result
        return number(value, 2) + (f" [{number(low, 2)}, {number(high, 2)}]" if np.isfinite(low) else "")

    rows = [["variant", "interquartile mean score", "probability of improvement over clip"]]
    rows += [[names.get(variant, variant), *map(estimate, both)] for variant, both in results.items()]
    seeds = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    note = (
        f"{', '.join(tasks)}; seeds that every variant has ({seeds}). {SCORE_NOTE} 95 % bootstrap intervals, by task."
    )
    return markdown(rows, labels=1) + f"\n\n{note}"


SCORE_NOTE = (
    "Each task weighs the same. Score: 0 is a random policy, 1 the paper's PPO-Clip; a run that diverged scores 0."
)


def beside_clip_table(runs):
    """The scalar penalties beside clip, here and in the paper."""
    runs, variants = merged(runs)[0], MAIN[3:]
    rows = [["task", *(f"{v} − clip, {of}" for v in variants for of in ("ours", "paper", "difference"))]]
    zs = []
    for task in in_order(PAPER.index, TASKS):
        ours = runs[runs["env_id"] == task]
        found = [beside_clip(ours, task, v) for v in variants]
        if set(ours["steps"]) == {PAPER.loc[task, "steps"]} and not np.isnan(found).any():
            texts = [
                [number(here), number(there), f"{number(d)} ± {number(half)}"] for here, there, d, half, _ in found
            ]
            rows.append([task, *np.ravel(texts)])
            zs.append([np.sign(d) * norm.isf(p / 2) for _, _, d, _, p in found])
    if not zs:
        return ""
    overall = np.sum(zs, 0) / np.sqrt(len(zs))
    rows.append(["all", *np.ravel([["", "", f"z = {number(z, 1)}, {verdict(2 * norm.sf(abs(z)))}"] for z in overall])])
    note = (
        "Difference: ours minus the paper's, ± half its 95 % interval (Welch-Satterthwaite, from the spread of all four "
        "means). Last row: Stouffer's test over the tasks, negative where a scalar penalty does worse here."
    )
    return markdown(rows, labels=1) + f"\n\n{note}"


def peer_table(runs):
    """Clip and β = 1 beside Stable-Baselines3's PPO with the same two objectives (tools/peer.py), of runs as long."""
    rows = [["task", "", "clip", "kl_fixed", f"{TEST}, kl_fixed and clip"]]
    for task, of_task in PEER.groupby("task"):
        ours = runs[(runs["env_id"] == task) & (runs["steps"] == PAPER.loc[task, "steps"])]
        peers = of_task.assign(variant=of_task["beta"].map({"": "clip", "1": "kl_fixed"}), diverged=False)
        sides = [[side[side["variant"] == v] for v in ("clip", "kl_fixed")] for side in (ours, peers)]
        clips, penalties = zip(*([part["final_return"].dropna() for part in side] for side in sides))
        if min(map(len, clips + penalties)) > 1:
            rows.append([task, "ours", *map(cell, sides[0]), tested(clips[0], penalties[0])])
            rows.append(["", "Stable-Baselines3", *map(cell, sides[1]), tested(clips[1], penalties[1])])
            rows.append(["", TEST, tested(*clips), tested(*penalties), ""])
    return markdown(rows) if len(rows) > 1 else ""


def breakout_table(runs):
    """On the bimodal task: how many seeds end above the gap between the modes."""
    runs, names = merged(runs[runs["env_id"] == BIMODAL])
    rows = [["variant", "seeds", f"above {BREAKOUT:,}", "share", "95 % interval (Wilson)"]]
    for variant in in_order(runs["variant"], ORDER):
        of_variant = runs[runs["variant"] == variant]
        above, seeds = int((of_variant["final_return"] > BREAKOUT).sum()), len(of_variant)
        span = binomtest(above, seeds).proportion_ci(method="wilson")
        shares = [number(100 * share) for share in (above / seeds, span.low, span.high)]
        rows.append(
            [names.get(variant, variant), f"{seeds}", f"{above}", f"{shares[0]} %", f"{shares[1]} to {shares[2]} %"]
        )
    return markdown(rows, labels=1) if len(rows) > 1 else ""


def kill_peak_table(runs, curves):
    """The largest share of I_kill in an iteration of clip, of the mean over seeds, where the paper's is known."""
    rows = [["task", "ours", "paper"]]
    for task in in_order(PAPER.index[PAPER["kill_peak"].notna()], TASKS):
        of_clip = runs[
            (runs["env_id"] == task) & (runs["variant"] == "clip") & (runs["steps"] == PAPER.loc[task, "steps"])
        ]
        if len(of_clip):
            shares = curves[curves["run"].isin(of_clip["run"])].groupby("global_step")["kill"].mean()
            rows.append(
                [
                    task,
                    f"{100 * shares.max():.1f} % ({len(of_clip)})",
                    f"{100 * PAPER.loc[task, 'kill_peak']:.1f} % (5)",
                ]
            )
    return markdown(rows, labels=1) if len(rows) > 1 else ""


def betas_table(runs):
    tasks = in_order(runs["env_id"], TASKS)
    if not tasks:
        return ""
    rows = [["coefficient", *tasks]]
    for variant in in_order(runs["variant"], ORDER):
        of_variant = runs[runs["variant"] == variant]
        rows.append([variant, *(cell(of_variant[of_variant["env_id"] == task]) for task in tasks)])
    clip = runs[runs["variant"] == "clip"].set_index(["env_id", "seed"])["params_sha256"]
    same = [
        r.variant != "clip" and r.params_sha256 == clip.get((r.env_id, r.seed), "") != "" for r in runs.itertuples()
    ]
    counts = runs[same].groupby(["variant", "env_id"]).size()
    seeds = runs.groupby(["variant", "env_id"]).size()
    like_clip = ", ".join(f"{' on '.join(place)} ({count} of {seeds[place]})" for place, count in counts.items())
    note = (
        f"\n\nRuns that ended with the parameters of clip's run of that seed, bit for bit: {like_clip}."
        if like_clip
        else ""
    )
    return markdown(rows, labels=1) + note


def tests_table(runs, compared=tested):
    """A comparison of each coefficient's final returns with clip's, of those that finished: by default Welch's test."""
    tasks = in_order(runs["env_id"], TASKS)
    returns = runs.dropna(subset="final_return").groupby(["variant", "env_id"])["final_return"].agg(list)
    rows = [["coefficient", *tasks]]
    for variant in in_order(runs.loc[runs["variant"] != "clip", "variant"], ORDER):
        rows.append(
            [variant, *(compared(returns.get((variant, task), []), returns.get(("clip", task), [])) for task in tasks)]
        )
    return markdown(rows, labels=1) if len(rows) > 1 and "clip" in set(runs["variant"]) else ""


def region(runs, curves):
    """How far the policy moves in an iteration, and the share of samples outside the band: medians over the iterations of
    all seeds, which no single one decides."""
    medians = curves.loc[curves["run"].isin(runs["run"]), ["approx_kl", "in"]].median()
    kl = number(medians["approx_kl"], 3 if medians["approx_kl"] < 100 else 0)
    return f"{kl}, {number(100 - 100 * medians['in'])} %" if medians.notna().all() else "—"


def region_table(runs, curves):
    tasks = in_order(runs["env_id"], TASKS)
    rows = [["KL, outside", *tasks]]
    for variant in in_order(runs["variant"], ORDER):
        of_variant = runs[runs["variant"] == variant]
        rows.append([variant, *(region(of_variant[of_variant["env_id"] == task], curves) for task in tasks)])
    return markdown(rows, labels=1) if tasks else ""


def knob_tables(points, entry):
    """A table an argument; entry makes a text of a cell's runs."""
    return "\n\n".join(knob_table(knob, of_knob, entry) for knob, of_knob in points.groupby("knob"))


def values_of(points):
    """The values of an argument, in order, and each as text."""
    values = sorted(set(points["value"]), key=lambda value: (isinstance(value, str), value))
    return values, [f"{value:g}" if isinstance(value, float) else str(value) for value in values]


def knob_table(knob, points, entry):
    values, texts = values_of(points)
    rows = [["task", "variant", *(f"`--{knob.replace('_', '-')} {text}`" for text in texts)]]
    for task in in_order(points["task"], TASKS):
        of_task = points[points["task"] == task]
        for variant in in_order(of_task["variant"], ORDER):
            of_variant = of_task[of_task["variant"] == variant]
            rows.append([task, variant, *(entry(of_variant[of_variant["value"] == value]) for value in values)])
    return markdown(rows)


def cost_table(runs, every_run):
    """Core-hours of all runs; steps per second of those that are compared, for other settings have other rates."""
    rows = [["task", "runs", "steps of a run", "core-hours", "steps per second (median)"]]
    for task in in_order(runs["env_id"], TASKS):
        of_task = every_run[every_run["env_id"] == task]
        steps = " to ".join(f"{n:,}" for n in dict.fromkeys((of_task["steps"].min(), of_task["steps"].max())))
        hours, rate = (
            number(of_task["wall_time_s"].sum() / 3600, 2),
            number(runs.loc[runs["env_id"] == task, "sps"].median()),
        )
        rows.append([task, f"{len(of_task)}", steps, hours, rate])
    rows.append(["all", f"{len(every_run)}", "", number(every_run["wall_time_s"].sum() / 3600, 2), ""])
    return markdown(rows, labels=1)


def markdown(rows, labels=2):
    """Rows of text as a Markdown table, the first `labels` columns flush left."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * labels + "---:|" * (len(rows[0]) - labels))
    return "\n".join(lines)


ESCAPES = {character: rf"\{character}" for character in "&%_$#{}"}
ESCAPES |= {"±": r"$\pm$", "—": "--", "<": "$<$", "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\^{}"}


def latex(rows):
    lines = [" & ".join(entry.translate(str.maketrans(ESCAPES)) for entry in row) + r" \\" for row in rows]
    head, body = lines[0], [r"\addlinespace " * bool(row[0]) + line for row, line in zip(rows[1:], lines[1:])]
    body[0] = lines[1]
    begin, end = r"\begin{tabular}{ll" + "r" * (len(rows[0]) - 2) + "}", r"\end{tabular}"
    return "\n".join(["% " + NOTE, begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", end, ""])
