"""The pictures. Each function draws one, from runs.csv and curves.csv.gz alone, and returns a figure."""

import json
import textwrap

import matplotlib
import numpy as np
import pandas as pd
import stats
import theory
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, MaxNLocator

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
OTHERS = [{"color": c, "linewidth": 1.6, "marker": m} for c, m in zip(("#666666", "#E69F00", "#0072B2"), "DvP")]
SETS = {"in": r"$I_\mathrm{in}$", "kill": r"$I_\mathrm{kill}$", "pass": r"$I_\mathrm{pass}$"}


def style(variant, variants=()):
    others = [v for v in variants if v not in STYLES]
    return {"zorder": 3, **(STYLES.get(variant) or OTHERS[others.index(variant) % len(OTHERS)])}


def grid(rows, columns, height, **options):
    figure = Figure((7.2, height * rows + 0.9), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def finish(figure, note, variants=(), handles=()):
    """A legend above, of the variants or of handles; a note below."""
    handles = handles or [Line2D([], [], label=v, **style(v, variants)) for v in variants]
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
    """How many seeds stand behind a task's curves, and which variants are missing."""
    of_task = runs[runs["env_id"] == task]
    having = {}
    for variant in stats.expected(runs, task):
        having.setdefault(int((of_task["variant"] == variant).sum()), []).append(variant)
    parts = [f"{plural(n) if n else 'missing'}: {', '.join(having[n])}" for n in sorted(having, reverse=True)]
    return textwrap.fill("; ".join(parts), width) if len(parts) > 1 else plural(*having)


def plural(low, high=None):
    """A number of seeds, or a range of numbers."""
    span = f"{low} to {high}" if high and high > low else f"{low}"
    return span + (" seeds" if max(low, high or 0) > 1 else " seed")


def drawn(runs):
    return stats.in_order(runs["variant"], stats.VARIANTS)


def wide(curves, task, variant, column, smooth=True):
    """A column of curves.csv, an index of steps by a column a seed. Iterations in which no episode ended are bridged;
    smoothing is a rolling mean over a fiftieth of the run."""
    cell = curves[(curves["env_id"] == task) & (curves["variant"] == variant)]
    table = cell.pivot(index="global_step", columns="seed", values=column).astype(float)
    if not smooth:
        return table
    table, thin = table.interpolate().rolling(max(1, len(table) // 50), min_periods=1).mean(), max(1, len(table) // 160)
    return table[(len(table) - 1) % thin :: thin]  # fewer points keep the SVG small


SMOOTHED = "rolling mean over a fiftieth of the run"


def marks(variant, points):
    """Which of the points carry a marker: eight, at other places for each variant."""
    step = max(1, points // 8)
    return step * (1 + list(STYLES).index(variant)) // 7 if variant in STYLES else 0, step


def draw_mean(ax, table, variant, variants):
    look = {**style(variant, variants), "markevery": marks(variant, len(table))}
    ax.plot(table.index, table.mean(axis=1, skipna=False), **look)


def draw_returns(ax, runs, curves, task, variants):
    for variant in variants:
        table = wide(curves, task, variant, "episodic_return")
        if table.empty:
            continue
        mean, std, look = table.mean(axis=1, skipna=False), table.std(axis=1, skipna=False), style(variant, variants)
        ax.fill_between(table.index, mean - std, mean + std, color=look["color"], alpha=0.1, linewidth=0, zorder=1)
        thin = {"linewidth": look["linewidth"] / 4, "linestyle": look.get("linestyle", "-"), "alpha": 0.7, "zorder": 2}
        ax.plot(table.index, table, color=look["color"], **thin)
        draw_mean(ax, table, variant, variants)


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
    note = f"Wide lines: mean over seeds; bands: ± one standard deviation; thin lines: every seed ({SMOOTHED})."
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
            draw_mean(above, table[sorted(common)], variant, ())
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
                    draw_mean(ax, table, variant, variants)
            ax.set_ylabel(f"share in {label}")
            ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
            ax.yaxis.set_major_locator(MaxNLocator(4))
            ax.set_ylim(*((None, 1) if name == "in" else (0, None)))
            steps_axis(ax, task == tasks[-1])
        row_title(row, f"{task}, {seeds(runs, task)}")
    note = f"Shares of all samples of an iteration's minibatches, mean over seeds ({SMOOTHED})."
    return finish(figure, note, variants)


def beta(runs, curves):
    tasks, variants = stats.in_order(runs["env_id"], stats.TASKS), drawn(runs)
    columns = stats.in_order(np.concatenate([stats.expected(runs, task) for task in tasks]), stats.VARIANTS)
    figure, axes = grid(len(tasks), len(columns), 1.75, sharey="row")
    for row, task in zip(axes, tasks):
        for ax, variant in zip(row, columns):
            p01, p10, p50, p90, p99 = (
                wide(curves, task, variant, f"beta_p{p}").mean(axis=1) for p in ("01", "10", "50", "90", "99")
            )
            ax.text(0.04, 0.97, variant, transform=ax.transAxes, va="top", zorder=4)
            if p50.empty:
                reason = "missing" if variant in stats.expected(runs, task) else "no script"
                ax.text(0.04, 0.45, reason, transform=ax.transAxes, color="0.4")
                ax.set_axis_off()
                continue
            color = style(variant, variants)["color"]
            ax.fill_between(p50.index, p01, p99, color=color, alpha=0.3, linewidth=0)
            ax.fill_between(p50.index, p10, p90, color=color, alpha=0.6, linewidth=0)
            for edge in (p01, p99):
                ax.plot(edge.index, edge, color=color, linewidth=0.8)
            ax.plot(p50.index, p50, color="black", linewidth=1.2)
            ax.margins(y=0.25)
            steps_axis(ax, task == tasks[-1], ticks=2)
        row[0].set_ylabel(r"$\beta_t$")
        row_title(row, f"{task}, {seeds(runs, task)}")
    note = (
        "What a clip implies, β_t = −wÂ on I_kill and 0 elsewhere, whichever variant trains: "
        f"percentiles over an iteration's samples, mean over seeds ({SMOOTHED}). The median is 0 wherever fewer than "
        "half of the samples are killed, and so is each percentile where too few are on its side."
    )
    handles = [
        Line2D([], [], color="black", label="median"),
        Patch(color="0.5", alpha=0.9, label="10 to 90 %"),
        Patch(color="0.5", alpha=0.4, label="1 to 99 %"),
    ]
    return finish(figure, note, handles=handles)


def aggregate(runs):
    cells, tasks = stats.scores(runs)
    if not cells:
        return None
    variants = list(cells)
    figure, ((left, right),) = grid(1, 2, 0.5 + 0.36 * len(variants), sharey=True)
    for y, variant in enumerate(variants):
        results = [(left, stats.interval(stats.iqm, cells[variant]))]
        if variant != "clip" and "clip" in cells:
            results.append((right, stats.interval(stats.improvement, [*cells[variant], *cells["clip"]])))
        look = style(variant, variants)
        for ax, (value, low, high) in results:
            ax.plot([low, high], [y, y], color=look["color"], linewidth=7, alpha=0.8, solid_capstyle="butt", zorder=2)
            ax.plot(value, y, color="black", marker="d", markersize=6, zorder=3)
            ax.annotate(f"{value:.2f}", (value, y), (0, 7), textcoords="offset points", ha="center", fontsize=9)
    left.set_yticks(range(len(variants)), variants)
    left.set_ylim(len(variants) - 0.5, -0.7)
    left.set_xlabel("interquartile mean score")
    right.set_xlabel("chance to beat clip")
    right.axvline(0.5, color="0.4", linewidth=1, linestyle=":")
    right.set_xlim(-0.05, 1.05)
    counts = [len(sample) for samples in cells.values() for sample in samples]
    note = (
        f"{', '.join(tasks)}; {plural(min(counts), max(counts))} each. A score is a final return scaled so that of a "
        "task's runs here the lowest is 0 and the highest is 1. Bars: 95 % bootstrap intervals, stratified by task "
        "(none with a single seed). Right: probability that a run of a variant returns "
        "more than one of clip, averaged over tasks, a tie counting half. Tasks without runs of every variant here are "
        "left out."
    )
    return finish(figure, note)


def knob_points(runs, every_run):
    """The runs in which one argument differs from those of the other pictures, and those it differs from, for each such
    argument: knob, task, variant, value, seed, return."""
    points = []
    for (task, variant), chosen in runs.groupby(["env_id", "variant"]):
        alike = every_run[(every_run["env_id"] == task) & (every_run["variant"] == variant)].to_dict("records")
        args = [json.loads(run["shared"]) | json.loads(run["own"]) for run in alike]
        main = json.loads(chosen["shared"].iloc[0]) | json.loads(chosen["own"].iloc[0])
        changed = [[k for k in {**main, **a} if main.get(k) != a.get(k)] for a in args]
        for knob in sorted({names[0] for names in changed if len(names) == 1} - {"total_timesteps"}):
            for run, a, names in zip(alike, args, changed):
                if names in ([], [knob]):
                    points.append((knob, task, variant, a.get(knob), run["seed"], run["final_return"]))
    points = pd.DataFrame(points, columns=["knob", "task", "variant", "value", "seed", "return"])
    return points.dropna(subset="return").drop_duplicates(["knob", "task", "variant", "value", "seed"], keep="last")


def knobs(runs, every_run):
    points = knob_points(runs, every_run)
    if points.empty:
        return None
    variants, places = drawn(points), list(points.groupby(["knob", "task"]))
    columns = min(len(places), 3)
    figure, axes = grid(-(-len(places) // columns), columns, 2.3 if columns > 1 else 3.0)
    for ax in axes.flat[len(places) :]:
        ax.remove()
    for ax, ((knob, task), place) in zip(axes.flat, places):
        values = sorted(set(place["value"]), key=lambda value: (isinstance(value, str), value))
        numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
        for variant, cell in place.groupby("variant"):
            at = cell["value"] if numbers else cell["value"].map(values.index)
            means = cell["return"].groupby(at.astype(float)).mean()
            ax.plot(means.index, means, **{"marker": "o", **style(variant, variants), "linewidth": 1.6})
            ax.plot(at, cell["return"], ".", color=style(variant, variants)["color"], markersize=5, alpha=0.7)
        if not numbers:
            ax.set_xticks(range(len(values)), map(str, values))
        elif values[0] > 0 and values[-1] >= 10 * values[0]:
            ax.set_xscale("log")
            ax.set_xticks(values, [f"{value:g}" for value in values])
            ax.minorticks_off()
        counts = place.groupby(["variant", "value"]).size()
        ax.set_title(f"{task}\n{plural(counts.min(), counts.max())} a point", loc="left")
        ax.set_xlabel(f"--{knob.replace('_', '-')}")
    for row in axes:
        row[0].set_ylabel("final return")
    note = "Lines: mean over seeds; dots: every seed. All other arguments as in the other pictures."
    return finish(figure, note, variants)


THEORY_STYLES = {**{v: STYLES[v] for v in ("clip", "klip", "phi")}, "kl_scalar": STYLES["kl_fixed"]}
RATIOS = np.linspace(0.4, 1.8, 1400)  # misses the kinks


def draw_surrogates(ax, which, advantage):
    """The objective (which 0) or its gradient (1) over w, at one advantage."""
    for variant, look in THEORY_STYLES.items():
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


THEORY_NOTE = f"Grey band: 1 ± ε with ε = {theory.CLIP_COEF:g}. kl_scalar: β = {theory.BETA:g}, KL as k3. "


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
        + THEORY_NOTE
        + "Where the clip acts, klip's objective has another value than clip's and phi's, and the same derivative."
    )
    handles = [Line2D([], [], label=v, **look) for v, look in THEORY_STYLES.items()]
    return finish(figure, note, handles=handles)


def overview(runs, curves):
    """One wide strip: what the theorem says, and that the runs agree."""
    figure = Figure((13, 3.9), layout="constrained")
    gradient, plane, returns, difference = figure.subplots(1, 4)
    draw_surrogates(gradient, 1, 1)
    gradient.set_title(r"Derivative of the objective in $w$, $\hat{A} = 1$", loc="left")
    draw_plane(plane)
    plane.set_title(r"The clip as a penalty: $\beta_t(w, \hat{A})$", loc="left")

    variants, tasks = drawn(runs), stats.in_order(runs["env_id"], stats.TASKS)
    task = max(tasks, key=lambda t: (runs["env_id"] == t).sum())
    draw_returns(returns, runs, curves, task, variants)
    returns.set_title(f"{task}: episodic return\n{seeds(runs, task, 44)}", loc="left")
    steps_axis(returns)

    counts = {}
    for task in tasks:
        for form in forms_of(runs, task):
            table, equal, other, unknown = differences(runs, curves, task, form)
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
        THEORY_NOTE.replace("kl_scalar:", "The squares on the left, kl_scalar:")
        + f"Returns: mean over seeds, ± one standard deviation, thin lines every seed ({SMOOTHED}). "
        "Difference: every iteration of every task and seed that clip has too."
    )
    return finish(figure, note, stats.in_order([*stats.VARIANTS[:4], *variants], stats.VARIANTS))
