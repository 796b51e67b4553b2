"""The pictures. Each function draws one, from the data set alone, and returns a figure."""

import textwrap
import zlib

import matplotlib
import numpy as np
import stats
import theory
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator

matplotlib.rcParams.update(
    {
        "font.size": 10,  # 7.2 inches wide, so that text is read at half the width of a page
        "axes.titlesize": 10,
        "legend.fontsize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "0.9",
        "legend.frameon": False,
        "legend.handlelength": 3.2,
        "lines.markersize": 4.5,
        "savefig.dpi": 200,
        "svg.hashsalt": "klip-ppo",  # the ids in an SVG are random without it
    }
)
# Colours of Okabe & Ito (2008). clip, klip and phi coincide: dashes and rings on a wide line show all three.
STYLES = {
    "clip": {"color": "#56B4E9", "linewidth": 4.5},
    "klip": {"color": "black", "linewidth": 1.5, "linestyle": (0, (5, 3))},
    "phi": {"color": "#D55E00", "linewidth": 1.2, "linestyle": ":", "marker": "o", "markerfacecolor": "white"},
    "kl_fixed": {"color": "#009E73", "linewidth": 1.6, "linestyle": "-.", "marker": "s"},
    "kl_adaptive": {"color": "#CC79A7", "linewidth": 1.6, "marker": "^"},
}
# The rest are a row each, or few in a panel: eight looks are enough.
OTHERS = [
    {"color": color, "linewidth": 1.6, "linestyle": dashes, "marker": marker}
    for color, dashes, marker in zip(
        ("#0072B2", "#E69F00", "#D55E00", "#555555") * 2, ["-"] * 4 + ["--"] * 4, "DvPp*<>h"
    )
]
SETS = {"in": r"$I_\mathrm{in}$", "kill": r"$I_\mathrm{kill}$", "pass": r"$I_\mathrm{pass}$"}


def style(variant):
    """The same look wherever a variant is drawn, whatever else is."""
    others = [v for v in stats.ORDER if v not in STYLES]
    look = others.index(variant) if variant in others else zlib.crc32(variant.encode())
    return {"zorder": 3, **(STYLES.get(variant) or OTHERS[look % len(OTHERS)])}


def grid(rows, columns, height, **options):
    figure = Figure((7.2, height * rows + 0.9), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def finish(figure, note, variants=(), handles=()):
    """A legend above, of the variants or of handles; a note below."""
    handles = handles or [Line2D([], [], label=v, **style(v)) for v in variants]
    if handles:
        figure.legend(handles=handles, loc="outside upper center", ncols=5, columnspacing=1.2)
    width = int(figure.get_figwidth() * 15)
    figure.supxlabel(textwrap.fill(note, width), fontsize=9, x=0.01, ha="left", color="0.25")
    return figure


def steps_axis(ax, label=True, ticks=3):
    if not np.isfinite(ax.dataLim.x1):  # every value to be drawn was NaN
        ax.text(0.5, 0.5, "no episode ended", transform=ax.transAxes, ha="center", color="0.4")
        ax.set(xticks=[], yticks=[])
        return
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 5, 10]))
    ax.set_xlim(left=0)
    ax.set_xlabel("steps" if label else "")


def row_title(row, text):
    """A title that may be wider than the leftmost panel of a row: the layout makes room for its height only."""
    for ax in row:
        ax.set_title(" ")
    row[0].text(0, 1.06, text, transform=row[0].transAxes).set_in_layout(False)


def seeds(runs, task, width=200):
    """How many seeds stand behind a task's curves, and which variants are missing or diverged."""
    of_task = runs[runs["env_id"] == task]
    counts = {
        v: int((of_task["variant"] == v).sum()) for v in stats.in_order([*stats.MAIN, *of_task["variant"]], stats.ORDER)
    }
    having = {}
    for variant, count in counts.items():
        having.setdefault(count, []).append(variant)
    parts = [f"{plural(n) if n else 'missing'}: {', '.join(having[n])}" for n in sorted(having, reverse=True)]
    parts = parts if len(parts) > 1 else [plural(*having)]
    diverged = of_task.loc[of_task["diverged"], "variant"].value_counts()
    parts += [
        f"{variant}: {diverged[variant]} of {counts[variant]} diverged" for variant in counts if variant in diverged
    ]
    return textwrap.fill("; ".join(parts), width)


def seeds_of(runs, task):
    """How many seeds a task's variants have: a number or a range."""
    counts = runs.loc[runs["env_id"] == task, "variant"].value_counts()
    return plural(counts.min(), counts.max())


def plural(low, high=None):
    """A number of seeds, or a range of numbers."""
    span = f"{low} to {high}" if high and high > low else f"{low}"
    return span + (" seeds" if max(low, high or 0) > 1 else " seed")


def drawn(runs):
    return stats.in_order(runs["variant"], stats.ORDER)


def wide(curves, task, variant, column, smooth=True, points=160):
    """A column of the curves, an index of steps by a column a seed. Iterations in which no episode ended are bridged;
    smoothing is a rolling mean over a fiftieth of the run. A run that diverged ends early."""
    cell = curves[(curves["env_id"] == task) & (curves["variant"] == variant)]
    table = cell.pivot(index="global_step", columns="seed", values=column).astype(float)
    if not smooth:
        return table
    ended = table.index.to_numpy()[:, None] > cell.groupby("seed")["global_step"].max()[table.columns].to_numpy()
    thin = max(1, len(table) // points)  # fewer points keep the SVG small
    table = table.interpolate().rolling(max(1, len(table) // 50), min_periods=1).mean()
    return table.mask(ended)[(len(table) - 1) % thin :: thin]


SMOOTHED = "rolling mean over a fiftieth of the run"
CROSS = "Crosses at the foot: a seed diverged there; means go on over the others."


def marks(variant, points):
    """Which of the points carry a marker: eight, at other places for each variant."""
    step = max(1, points // 8)
    return step * (1 + list(STYLES).index(variant)) // 7 if variant in STYLES else 0, step


def draw_mean(ax, table, variant):
    ax.plot(table.index, table.mean(axis=1), **{**style(variant), "markevery": marks(variant, len(table))})


def draw_seeds(ax, table, look, diverged):
    """Every seed as a thin line, with a cross at the foot of the panel where it diverged."""
    thin = {"linewidth": min(look["linewidth"] / 4, 0.6), "linestyle": look.get("linestyle", "-"), "alpha": 0.7}
    ax.plot(table.index, table, color=look["color"], zorder=2, **thin)
    for seed in table.columns.intersection(diverged):
        last = table[seed].last_valid_index()
        cross = {"color": look["color"], "markersize": 7, "markeredgecolor": "black", "zorder": 4}
        ax.plot(last, 0.06, "X", transform=ax.get_xaxis_transform(), **cross)


def diverged(runs, task, variant):
    """The seeds that diverged."""
    return runs.loc[(runs["env_id"] == task) & (runs["variant"] == variant) & runs["diverged"], "seed"]


FEWER = "klip and phi are not drawn where clip has more seeds: their mean would part from its."


def fewer(runs, task):
    """Which of klip and phi lack seeds that clip has."""
    having = runs[runs["env_id"] == task].groupby("variant")["seed"].agg(set)
    return [v for v in stats.FORMS[1:] if v in having and having[v] < having.get("clip", set())]


def draw_returns(ax, runs, curves, task, variants):
    for variant in variants:
        table = wide(curves, task, variant, "episodic_return")
        if table.empty or variant in fewer(runs, task):
            continue
        mean, std, look = table.mean(axis=1), table.std(axis=1, ddof=0), style(variant)
        ax.fill_between(table.index, mean - std, mean + std, color=look["color"], alpha=0.1, linewidth=0, zorder=1)
        draw_seeds(ax, table, look, diverged(runs, task, variant))
        draw_mean(ax, table, variant)


def learning_curves(runs, curves):
    tasks, variants = stats.in_order(runs["env_id"], stats.TASKS), drawn(runs)
    columns = min(len(tasks), 3)
    figure, axes = grid(-(-len(tasks) // columns), columns, 2.4 if columns > 1 else 3.2)
    for ax, task in zip(axes.flat, tasks):
        draw_returns(ax, runs, curves, task, variants)
        ax.set_title(f"{task}\n{seeds(runs, task, 30 if columns > 1 else 90)}", loc="left")
        steps_axis(ax)
    for ax in axes.flat[len(tasks) :]:
        ax.remove()
    for row in axes:
        row[0].set_ylabel("episodic return")
    note = f"Wide lines: mean over seeds; bands: ± one standard deviation; thin lines: every seed ({SMOOTHED}). "
    note += CROSS + " " if runs["diverged"].any() else ""
    note += FEWER if any(fewer(runs, task) for task in tasks) else ""
    return finish(figure, note, variants)


def differences(runs, curves, task, form):
    """Returns of a form minus those of clip, steps by seed, and the seeds that ended with clip's hash, with another,
    and without one."""
    ours, clip = (wide(curves, task, v, "episodic_return", smooth=False) for v in (form, "clip"))
    hashes = runs[runs["env_id"] == task].pivot(index="seed", columns="variant", values="params_sha256")
    equal, other, unknown = [], [], []
    for seed in ours.columns.intersection(clip.columns):
        pair = hashes.loc[seed, [form, "clip"]]
        (unknown if "" in set(pair) else equal if pair.nunique() == 1 else other).append(seed)
    return (ours - clip).dropna(axis=1, how="all"), equal, other, unknown


def forms_of(runs, task):
    """Which of klip and phi share a seed with clip."""
    of_task = runs[runs["env_id"] == task].groupby("variant")["seed"].agg(set)
    return [v for v in ("klip", "phi") if v in of_task and of_task[v] & of_task.get("clip", set())]


def hash_lines(form, *matches):
    """Which seeds of a form ended with the hash of clip, with another, and without one."""
    for sign, found in zip(("=", "≠", "?"), matches):
        whole = len(found) > 2 and found == list(range(found[0], found[-1] + 1))
        numbers = f"{found[0]}–{found[-1]}" if whole else " ".join(map(str, found))
        if found:
            yield f"{form} {sign} clip: seed{'s' * (len(found) > 1)} {numbers}"


def draw_differences(ax, table, form):
    """Every seed's difference, which overlaid curves could hide."""
    ax.plot(table.index, table, **STYLES[form], markevery=marks(form, len(table)))


def set_difference_limits(ax):
    values = np.abs(np.concatenate([[np.nan], *(line.get_ydata() for line in ax.lines)]))
    if np.isnan(values).all():
        return ""
    largest = np.nanmax(values)
    ax.set_ylim(*(np.array([-1.2, 1.2]) * (largest or 1 / 1.2)))
    return f"differ by up to {largest:.3g}" if largest else "differ nowhere"


def identity(runs, curves):
    tasks = [task for task in stats.in_order(runs["env_id"], stats.TASKS) if forms_of(runs, task)]
    if not tasks:
        return None
    columns = min(len(tasks), 3)
    bands = -(-len(tasks) // columns)
    figure, axes = grid(2 * bands, columns, 1.9, height_ratios=[1.7, 1] * bands)
    for spare in range(len(tasks), bands * columns):
        for ax in axes[2 * (spare // columns) :][:2, spare % columns]:
            ax.remove()
    for i, task in enumerate(tasks):
        above, below = axes[2 * (i // columns) :][:2, i % columns]
        lines, forms = [], ["clip", *forms_of(runs, task)]
        tables = [wide(curves, task, variant, "episodic_return") for variant in forms]
        common = set.intersection(*(set(table.columns) for table in tables))
        for variant, table in zip(forms, tables):
            draw_mean(above, table[sorted(common)], variant)
        for form in forms[1:]:
            table, *matches = differences(runs, curves, task, form)
            draw_differences(below, table, form)
            lines += hash_lines(form, *matches)
        above.set_title("\n".join([task, *lines]), loc="left")
        below.set_title(set_difference_limits(below), loc="left")
        steps_axis(above, label=False)
        steps_axis(below)
        if i % columns == 0:
            above.set_ylabel("episodic return")
            below.set_ylabel("minus clip")
    note = (
        "Titles: the seeds whose params_sha256 after training equals (=) or differs from (≠) that of clip, or was not "
        f"logged (?). Above: mean over the seeds that all have ({SMOOTHED}). Below: return minus that of clip, every "
        "seed and iteration, as logged."
    )
    return finish(figure, note, ["clip", "klip", "phi"])


def partition(runs, curves):
    tasks, variants = stats.in_order(runs["env_id"], stats.TASKS), drawn(runs)
    figure, axes = grid(len(tasks), 3, 1.75)
    for row, task in zip(axes, tasks):
        for ax, (name, label) in zip(row, SETS.items()):
            for variant in variants:
                table = wide(curves, task, variant, name)
                if len(table):
                    draw_mean(ax, table, variant)
            ax.set_ylabel(f"share in {label}")
            ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
            ax.yaxis.set_major_locator(MaxNLocator(4))
            ax.set_ylim(*((None, 1) if name == "in" else (0, None)))
            steps_axis(ax, task == tasks[-1])
        row_title(row, f"{task}, {seeds(runs, task)}")
    note = f"Shares of all samples of an iteration's minibatches, mean over seeds ({SMOOTHED})."
    return finish(figure, note, variants)


def beta(runs, curves):
    titles = {task: f"{task}, {seeds(runs, task)}" for task in stats.in_order(runs["env_id"], stats.TASKS)}
    runs, names = stats.merged(runs)
    tasks, variants = list(titles), drawn(runs)
    figure, axes = grid(len(tasks), len(variants), 1.75, sharey="row")
    for row, task in zip(axes, tasks):
        for ax, variant in zip(row, variants):
            p01, p10, p50, p90, p99 = (
                wide(curves, task, variant, f"beta_p{p}").mean(axis=1) for p in ("01", "10", "50", "90", "99")
            )
            ax.text(0.04, 0.97, names.get(variant, variant), transform=ax.transAxes, va="top", zorder=4)
            if p50.empty:
                ax.text(0.04, 0.45, "missing", transform=ax.transAxes, color="0.4")
                ax.set_axis_off()
                continue
            color = style(variant)["color"]
            ax.fill_between(p50.index, p01, p99, color=color, alpha=0.3, linewidth=0)
            ax.fill_between(p50.index, p10, p90, color=color, alpha=0.6, linewidth=0)
            for edge in (p01, p99):
                ax.plot(edge.index, edge, color=color, linewidth=0.8)
            ax.plot(p50.index, p50, color="black", linewidth=1.2)
            ax.margins(y=0.25)
            steps_axis(ax, task == tasks[-1])
        row[0].set_ylabel(r"$\beta_t$")
        if np.ptp(row[0].get_ylim()) > 50:
            row[0].set_yscale("symlog", linthresh=1)
            row[0].yaxis.set_major_formatter("{x:,g}")
        row_title(row, titles[task])
    note = (
        "What a clip implies, β_t = −wÂ on I_kill and 0 elsewhere, whichever variant trains: "
        f"percentiles over an iteration's samples, mean over seeds ({SMOOTHED}). The median is 0 wherever fewer than "
        "half of the samples are killed, and so is each percentile where too few are on its side. "
        "Logarithmic beyond ±1 where an axis goes beyond 50."
    )
    handles = [
        Line2D([], [], color="black", label="median"),
        Patch(color="0.5", alpha=0.9, label="10 to 90 %"),
        Patch(color="0.5", alpha=0.4, label="1 to 99 %"),
    ]
    return finish(figure, note, handles=handles)


def aggregate(runs):
    results, names, tasks, counts = stats.aggregates(runs)
    if not results:
        return None
    figure, ((left, right),) = grid(1, 2, 0.5 + 0.36 * len(results), sharey=True)
    for y, (variant, both) in enumerate(results.items()):
        for ax, result in zip((left, right), both):
            if result is None:
                continue
            value, low, high = result
            look = {
                "color": style(variant)["color"],
                "linewidth": 7,
                "alpha": 0.8,
                "solid_capstyle": "butt",
                "zorder": 2,
            }
            ax.plot([low, high], [y, y], **look)
            ax.plot(value, y, color="black", marker="d", markersize=6, zorder=3)
            label = stats.number(value, 2)
            ax.annotate(label, (value, y), (0, 7), textcoords="offset points", ha="center", fontsize=9)
    left.set_yticks(range(len(results)), [names.get(variant, variant) for variant in results])
    left.set_ylim(len(results) - 0.5, -0.7)
    left.set_xlabel("interquartile mean score")
    right.set_xlabel("probability of improvement")
    right.axvline(0.5, color="0.4", linewidth=1, linestyle=":")
    right.set_xlim(-0.05, 1.05)
    note = (
        f"{', '.join(tasks)}; {plural(counts[0], counts[-1])} each, those that every variant has. {stats.SCORE_NOTE} Bars: "
        "95 % bootstrap intervals, stratified by task (none with a single seed). Right: probability that a run of a "
        "variant returns more than one of clip, averaged over tasks, a tie counting half. Tasks without runs of every "
        "variant here, or without these anchors, are left out."
    )
    return finish(figure, note)


# Of small_multiples: column or a function of the curves, name, scale.
MULTIPLES = {
    "learning_curves": (lambda c: c["episodic_return"], "episodic return", "linear"),
    "kl": (lambda c: c["approx_kl"], "approximate KL of an iteration's last epoch", "log"),
    "outside": (lambda c: 1 - c["in"], "share of samples outside the band", "linear"),
}


def small_multiples(runs, curves, which):
    """A row a variant, a column a task, and clip in each panel: many variants in one panel could not be told apart."""
    column, name, scale = MULTIPLES[which]
    curves = curves.assign(value=column(curves))
    tasks, variants = stats.in_order(runs["env_id"], stats.TASKS), [v for v in drawn(runs) if v != "clip"]
    figure, axes = grid(len(variants), len(tasks), 1.15, sharex="col", sharey="col")
    for column, task in zip(axes.T, tasks):
        clip, values = wide(curves, task, "clip", "value", points=80), []
        for ax, variant in zip(column, variants):
            table, crossed = wide(curves, task, variant, "value", points=80), diverged(runs, task, variant)
            draw_seeds(ax, clip, {**STYLES["clip"], "linestyle": "-"}, diverged(runs, task, "clip"))
            ax.plot(clip.index, clip.mean(axis=1), color=STYLES["clip"]["color"], linewidth=3, zorder=1.8)
            draw_seeds(ax, table, {**style(variant), "linestyle": "-"}, crossed)
            ax.plot(table.index, table.mean(axis=1), color=style(variant)["color"], linewidth=1.6, zorder=3)
            values += [clip.to_numpy().ravel(), table.to_numpy().ravel()]
            count = f", {len(crossed)} of {(runs['variant'][runs['env_id'] == task] == variant).sum()} diverged"
            text = variant + (count if len(crossed) else "" if len(table) else ", missing")
            ax.text(0, 1.04, text, transform=ax.transAxes, fontsize=9).set_in_layout(False)
            ax.set_title(" ", fontsize=9)  # the layout makes room for a line of any width
            steps_axis(ax, variant == variants[-1])
        values = np.concatenate(values)
        values = values[np.isfinite(values) & (values > 0 if scale == "log" else True)]
        column[0].set_yscale(scale)
        if scale == "log":
            column[0].yaxis.set_major_locator(LogLocator(numticks=4))
        if which == "outside":
            column[0].set_ylim(-0.03, 1)
        elif len(values):
            # A run that is about to diverge would set the scale.
            low, high = np.percentile(values, (0 if scale == "log" else 0.5, 99.5))
            room = (high / low) ** 0.1 if scale == "log" else (high - low) * 0.1
            column[0].set_ylim(*((low / room, high * room) if scale == "log" else (low - room, high + room)))
        column[0].set_title(f"{task}\n{seeds_of(runs, task)}\n", loc="left")
    figure.supylabel(name, fontsize=10)
    note = f"Light blue: clip, wide its mean. Other colours: the method, thick its mean. Thin lines: every seed ({SMOOTHED}). "
    return finish(figure, note + (CROSS if runs["diverged"].any() else ""))


def final_returns(runs):
    """Every run's final return, a panel a task, and beside them what the paper has."""
    if runs.empty:
        return None
    runs, names = stats.merged(runs)
    tasks, variants = stats.in_order(runs["env_id"], stats.TASKS), drawn(runs)
    columns = min(len(tasks), 2)
    figure, axes = grid(-(-len(tasks) // columns), columns, 0.6 + 0.26 * len(variants), sharey=True)
    for ax in axes.flat[len(tasks) :]:
        ax.remove()
    for ax, task in zip(axes.flat, tasks):
        for y, variant in enumerate(variants):
            cell, color = runs[(runs["env_id"] == task) & (runs["variant"] == variant)], style(variant)["color"]
            returns, count = cell["final_return"].dropna(), int(cell["diverged"].sum())
            ax.plot(returns, [y] * len(returns), "o", color=color, markersize=5, alpha=0.8, zorder=2)
            ax.plot(returns.mean(), y, color="black", marker="d", markersize=6, zorder=3)
            if variant == "clip":
                ax.axvline(returns.mean(), color=color, linewidth=2, zorder=1.8)
            if task in stats.PAPER.index and f"{variant}_mean" in stats.PAPER:
                mean, std = (stats.PAPER.loc[task, f"{variant}_{name}"] for name in ("mean", "std"))
                ax.errorbar(mean, y + 0.3, xerr=std, color="0.5", marker="d", markerfacecolor="white", linewidth=1.2)
            if count or cell.empty:
                x = 0.98 if returns.mean() < np.mean(ax.get_xlim()) else 0.02
                box = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1}
                where = {"transform": ax.get_yaxis_transform(), "ha": "right" if x > 0.5 else "left", "va": "center"}
                ax.text(x, y, f"{count} of {len(cell)} diverged" if count else "missing", bbox=box, **where, zorder=4)
        ax.set_yticks(range(len(variants)), [names.get(variant, variant) for variant in variants])
        ax.set_ylim(len(variants) - 0.4, -0.6)
        ax.set_title(f"{task}, {seeds_of(runs, task)}", loc="left")
        ax.xaxis.set_major_locator(MaxNLocator(4))
    for ax in axes.flat[: len(tasks)][-columns:]:
        ax.set_xlabel("final return")
    note = (
        "Dots: every seed that finished; diamonds: their mean; line: that of clip. Grey: the paper's mean ± standard "
    )
    return finish(figure, note + "deviation over 5 seeds.")


def paper_curves(runs, curves):
    """Our curves and the paper's, a row a task, a column a variant, of runs as long as the paper's; None without any."""
    variants = [stats.MAIN[0], *stats.MAIN[3:]]
    runs = runs[runs["variant"].isin(variants) & (runs["steps"] == runs["env_id"].map(stats.PAPER["steps"]))]
    curves = curves[curves["run"].isin(runs["run"])]
    tasks = stats.in_order(runs["env_id"], stats.TASKS)
    if not tasks:
        return None
    figure, axes = grid(len(tasks), len(variants), 1.05, sharex="row", sharey="row")
    for row, task in zip(axes, tasks):
        for ax, variant in zip(row, variants):
            table, color = wide(curves, task, variant, "episodic_return", points=80), style(variant)["color"]
            mean, std = table.mean(axis=1), table.std(axis=1, ddof=0)
            ax.fill_between(table.index, mean - std, mean + std, color=color, alpha=0.25, linewidth=0)
            ax.plot(table.index, mean, color=color, linewidth=2.5)
            published = stats.PAPER_CURVES[
                (stats.PAPER_CURVES["task"] == task) & (stats.PAPER_CURVES["variant"] == variant)
            ]
            ax.plot(published["global_step"], published["episodic_return"], color="black", linewidth=1, zorder=3)
            final, spread = (stats.PAPER.loc[task, f"{variant}_{name}"] for name in ("mean", "std"))
            ax.errorbar(
                1.04 * stats.PAPER.loc[task, "steps"],
                final,
                spread,
                color="black",
                marker="d",
                markersize=3.5,
                zorder=3,
            )
            steps_axis(ax, task == tasks[-1])
        row_title(row, f"{task}, {seeds_of(runs, task)}")
    figure.supylabel("episodic return", fontsize=10)
    handles = [Line2D([], [], color=style(v)["color"], linewidth=2.5, label=v) for v in variants]
    handles.append(Line2D([], [], color="black", linewidth=1, label="paper"))
    note = f"Ours: mean ± one standard deviation ({SMOOTHED}). Paper: mean over 5 seeds, every few iterations; "
    note += "diamonds: its final return ± one standard deviation."
    return finish(figure, note, handles=handles)


def knobs(runs, points):
    if points.empty:
        return None
    names, tasks = sorted(set(points["knob"])), stats.in_order(points["task"], stats.TASKS)
    figure, axes = grid(len(names), len(tasks), 2.1 if len(tasks) > 1 else 3.0)
    clip, reference = runs[runs["variant"] == "clip"], []
    for row, knob in zip(axes, names):
        for ax, task in zip(row, tasks):
            place = points[(points["knob"] == knob) & (points["task"] == task)]
            if place.empty:
                ax.remove()
                continue
            draw_knob(ax, place)
            if "clip" not in set(place["variant"]):
                level = clip[(clip["env_id"] == task) & clip["seed"].isin(place["seed"])]["final_return"].mean()
                reference = [
                    ax.axhline(level, color=STYLES["clip"]["color"], linewidth=3, zorder=1.8, label="clip, same seeds")
                ]
            counts = place.groupby(["variant", "value"]).size()
            ax.set_title(f"{task}\n{plural(counts.min(), counts.max())} a point", loc="left")
            ax.set_xlabel(f"--{knob.replace('_', '-')}")
        next(ax for ax in row if ax.figure).set_ylabel("final return")
    note = "Lines: mean over seeds that finished; dots: every seed. All other arguments as in the other pictures. "
    note += "A cross at the foot: a seed diverged." if points["diverged"].any() else ""
    handles = [Line2D([], [], label=variant, **knob_style(variant)) for variant in drawn(points)]
    return finish(figure, note, handles=handles + reference)


def knob_style(variant):
    return {"marker": "o", **style(variant), "linewidth": 1.6}


def draw_knob(ax, place):
    """Final returns over the values of one argument, on one task."""
    values, texts = stats.values_of(place)
    for variant, cell in place.groupby("variant"):
        look, at = knob_style(variant), cell["value"].map(values.index)
        means = cell["final_return"].groupby(at).mean()
        ax.plot(means.index, means, **look)
        ax.plot(at, cell["final_return"], ".", color=look["color"], markersize=5, alpha=0.7)
        crosses = at[cell["diverged"]]
        ax.plot(crosses, [0.03] * len(crosses), "x", color=look["color"], transform=ax.get_xaxis_transform())
    ax.set_xticks(range(len(values)), texts)


THEORY_STYLES = {**{v: STYLES[v] for v in ("clip", "klip", "phi")}, "kl_scalar": STYLES["kl_fixed"]}
RATIOS = np.linspace(0.4, 1.8, 1400)  # misses the kinks


def draw_surrogates(ax, which, advantage, variants=THEORY_STYLES):
    """The objective (which 0) or its gradient (1) over w, at one advantage."""
    for variant in variants:
        look = THEORY_STYLES[variant]
        values = theory.objective_and_gradient(variant, RATIOS, advantage)[which]
        ax.plot(RATIOS, values, zorder=3, markevery=marks(variant, len(RATIOS)), **look)
    ax.axvspan(1 - theory.CLIP_COEF, 1 + theory.CLIP_COEF, color="0.93", zorder=0, linewidth=0)
    ax.set_xlabel("$w$")
    ax.set_xlim(RATIOS[0], RATIOS[-1])


def draw_plane(ax):
    """The (w, Â) plane: β_t from klip's surrogate, and the three sets."""
    eps = theory.CLIP_COEF
    ratio, advantage = np.meshgrid(RATIOS[::2], np.linspace(-2, 2, 400))
    beta = theory.implied_beta("klip", ratio.ravel(), advantage.ravel()).reshape(ratio.shape)
    killed = np.abs(beta) > 1e-9  # the difference of two floats
    beta = np.where(killed, beta, np.nan)
    image = ax.pcolormesh(ratio, advantage, beta, cmap="PuOr", vmin=-3.6, vmax=3.6, rasterized=True)
    for at, levels in ((1.35, (-2, -1)), (0.68, (0.5, 1))):
        lines = ax.contour(ratio, advantage, beta, levels, colors="black", linewidths=0.7, linestyles="-")
        ax.clabel(lines, fmt="%g", fontsize=9, manual=[(at, -level / at) for level in levels])
    passed = ~killed & (np.abs(ratio - 1) > eps)
    ax.contourf(ratio, advantage, np.where(passed, 1.0, np.nan), [0.5, 1.5], colors="0.92")
    for w, a, name in ((1, 1, "in"), (1.62, 1, "kill"), (0.54, -0.45, "kill"), (1.5, -1, "pass"), (0.6, 1, "pass")):
        box = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1.5}
        ax.text(w, a, SETS[name], ha="center", va="center", bbox=box)
    ax.grid(False)
    ax.set_xlabel("$w$")
    ax.set_ylabel(r"$\hat{A}$")
    return image


BAND_NOTE = f"Grey band: 1 ± ε with ε = {theory.CLIP_COEF:g}. "


def theory_sheet():
    figure, axes = grid(3, 2, 2.3)
    for column, advantage in enumerate((1, -1)):
        for which, name in enumerate(("objective", r"its derivative in $w$")):
            draw_surrogates(axes[which, column], which, advantage)
            axes[which, 0].set_ylabel(name)
        axes[0, column].set_title(rf"$\hat{{A}} = {advantage:+d}$")
    spec = axes[2, 0].get_gridspec()
    for ax in axes[2]:
        ax.remove()
    plane = figure.add_subplot(spec[2, :])
    figure.colorbar(draw_plane(plane), ax=plane, label=r"$\beta_t$, 0 where white or grey")
    note = (
        "By autograd from the scripts' own surrogates, with log π_old = 0. "
        f"{BAND_NOTE}kl_scalar: β = {theory.BETA:g}, KL as k3. "
        "Where the clip acts, klip's objective has another value than clip's and phi's, and the same derivative."
    )
    handles = [Line2D([], [], label=v, **look) for v, look in THEORY_STYLES.items()]
    return finish(figure, note, handles=handles)


def overview(runs, curves):
    """One wide strip: what the theorem says, and that the runs agree."""
    figure = Figure((13, 3.9), layout="constrained")
    gradient, plane, returns, difference = figure.subplots(1, 4)
    draw_surrogates(gradient, 1, 1, stats.FORMS)
    gradient.set_title(r"Derivative of the objective in $w$, $\hat{A} = 1$", loc="left")
    draw_plane(plane)
    plane.set_title(r"The clip as a penalty: $\beta_t(w, \hat{A})$", loc="left")

    variants, tasks = drawn(runs), stats.in_order(runs["env_id"], stats.TASKS)
    # Of the bimodal task a mean says little, and where klip and phi are drawn they are seen to lie on clip.
    task = max(tasks, key=lambda t: (t != stats.BIMODAL, not fewer(runs, t), (runs["env_id"] == t).sum()))
    draw_returns(returns, runs, curves, task, variants)
    returns.set_title(f"{task}: episodic return\n{seeds(runs, task, 44)}", loc="left")
    steps_axis(returns)

    counts = {}
    for place in tasks:
        for form in forms_of(runs, place):
            table, equal, other, unknown = differences(runs, curves, place, form)
            table.index = table.index / table.index[-1]
            draw_differences(difference, table, form)
            counts[form] = counts.get(form, np.zeros(3, int)) + [len(equal), len(other), len(unknown)]
    set_difference_limits(difference)
    lines = []
    for form, (equal, other, unknown) in counts.items():
        lines.append(f"{form}: {equal} of {equal + other + unknown} runs end with clip's bits")
    difference.set_title("Return minus that of clip\n" + "\n".join(lines or ["no run to compare"]), loc="left")
    difference.set_xlabel("share of the run")
    difference.set_xlim(0, 1.02)
    note = (
        f"{BAND_NOTE}Returns: mean over seeds, ± one standard deviation, thin lines every seed ({SMOOTHED}). "
        "Difference: every iteration of every task and seed that clip has too. "
    )
    note += FEWER if fewer(runs, task) else ""
    return finish(figure, note, stats.in_order([*stats.FORMS, *variants], stats.ORDER))
