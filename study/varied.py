"""The arguments that the study varied: which runs show one, and pictures and tables of them."""

from functools import partial

import compare
import figures
import numpy as np
import pandas as pd
import paper
import tables
from compare import flags, ordered, present, shared
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter
from style import STYLES, finish, panel_each, panels, style

EPSILON = "--clip-coef"  # the argument of the surrogate that all scripts have
# A number beside a point, with a white edge, or the lines that it crosses would run through it.
LABEL = {
    "textcoords": "offset points",
    "fontsize": 8,
    "zorder": 4,
    "path_effects": [withStroke(linewidth=1.3, foreground="white")],
}


def compared(every_run):
    """Of typed runs those of one setting a variant and task: that with most runs, after which the variant is called."""
    if "ended" not in every_run:  # which of the first study is not known
        every_run = every_run.assign(ended="")
    named, _ = compare.comparison(every_run)
    runs = named[named["variant"].astype(str) == named["method"].astype(str)]
    runs = runs.assign(variant=ordered(runs["method"].astype(str), paper.VARIANTS)).drop(columns="method")
    return runs.sort_values(["env_id", "variant"], kind="stable")


def runs_of(runs, variant):
    """The runs of a variant; those of clip also where it is merged with its other forms."""
    return runs[runs["variant"].astype(str).map(compare.first_name) == variant]


def once(runs):
    """The runs without klip and phi, where all three forms are identical: those of clip stand for them."""
    same = compare.identical_triples(runs)
    if same.empty or not same.all():
        return runs
    return runs[~runs["variant"].isin(compare.FORMS[1:])]


def knob_points(runs, every_run):
    """The runs in which one argument alone differs from those that are compared, and of these the ones with the same
    seeds; beside the columns of runs

    knob: the argument; value: its value as an ordered categorical of text.
    """
    points = []
    for place, chosen in runs.groupby(["env_id", "variant"], observed=True):
        task, variant = place
        alike = every_run[(every_run["env_id"] == task) & (every_run["variant"] == variant)]
        differs = alike[flags(alike)] != chosen[flags(alike)].iloc[0]
        alone = differs.sum(axis=1) == 1
        for knob in differs.columns[differs[alone].any()].drop("--total-timesteps", errors="ignore"):
            swept = alike[alone & differs[knob]]
            default = chosen[chosen["seed"].isin(swept["seed"])]
            points += [part.assign(knob=knob, value=part[knob]) for part in (swept, default)]
    if not points:
        return every_run.iloc[:0].assign(knob="", value="")
    points = pd.concat(points).drop_duplicates(["knob", "env_id", "variant", "value", "seed"], keep="last")
    words = [isinstance(value, (str, bool)) for value in points["value"]]
    numbers = points["value"][~np.array(words)]
    texts = [*map(str, sorted(set(numbers))), *sorted(set(points["value"][words].map(str)))]
    return points.assign(value=pd.Categorical(points["value"].map(str), texts, ordered=True))


def settings(runs, every_run):
    """The runs that are compared (of the three forms clip's) and those in which arguments of the surrogate differ:
    ε, or what the variant alone has. Beside the columns of runs

    knob and value: those arguments and their values as text, empty for the runs that are compared; setting: the variant
    with both, an ordered categorical.
    """
    compared = once(runs)
    of_all = shared(every_run)
    points = [compared.assign(setting=compared["variant"].astype(str), knob="", value="")]
    for (task, variant), chosen in compared.groupby(["env_id", "variant"], observed=True):
        alike = every_run[(every_run["env_id"] == task) & (every_run["variant"] == variant)]
        differs = alike[flags(alike)] != chosen[flags(alike)].iloc[0]
        of_surrogate = [name for name in differs if name == EPSILON or name not in of_all]
        others_agree = ~differs.drop(columns=of_surrogate).any(axis=1)
        is_swept = differs[of_surrogate].any(axis=1) & others_agree
        in_order = alike[is_swept].sort_values(of_surrogate, key=partial(pd.to_numeric, errors="coerce"))
        for index in in_order.index:
            changed = differs.loc[index, of_surrogate]
            names = sorted(changed.index[changed])
            values = [str(alike.loc[index, name]) for name in names]
            words = [word for pair in zip(names, values, strict=True) for word in pair]
            labels = {"setting": " ".join([variant, *words]), "knob": " ".join(names), "value": " ".join(values)}
            points.append(alike.loc[[index]].assign(**labels))
    points = pd.concat(points).drop_duplicates(["env_id", "setting", "seed"], keep="last")
    points = points.sort_values(["variant", "knob"], kind="stable")
    return points.assign(setting=ordered(points["setting"], points["setting"].unique()))


def knob_tables(points, entry):
    """A table an argument, a column a value, of what entry says of the runs of a cell."""
    found = []
    for knob, of_knob in points.groupby("knob"):
        labels = of_knob["value"].cat.remove_unused_categories()
        of_knob = of_knob.assign(value=labels.cat.rename_categories(lambda value, knob=knob: f"`{knob} {value}`"))
        found.append(tables.crossed(of_knob, ["env_id", "variant"], "value", entry, ["task", "variant"]))
    return "\n\n".join(found)


def knob_style(variant):
    """A variant's look in the pictures of knobs, where every point has a marker."""
    return {"marker": "o", **style(variant), "linewidth": 1.6}


def draw_knob(ax, place):
    """Draws final returns over the values of one argument, on one task."""
    values = present(place["value"])
    for variant, cell in place.groupby("variant", observed=True):
        look = knob_style(variant)
        at = cell["value"].astype(str).map(values.index)
        means = cell["final_return"].groupby(at).mean()
        ax.plot(means.index, means, **look)
        ax.plot(at, cell["final_return"], ".", color=look["color"], markersize=5, alpha=0.7)
        crosses = at[cell["diverged"]]
        ax.plot(crosses, [0.03] * len(crosses), "x", color=look["color"], transform=ax.get_xaxis_transform())
    ax.set_xticks(range(len(values)), values, fontsize=9)


def knobs(runs, points):
    """Final return over each argument, a row an argument, a column a task."""
    if points.empty:
        return None
    names = sorted(set(points["knob"]))
    tasks = present(points["env_id"])
    figure, axes = panels(len(names), len(tasks), 1.9 if len(tasks) > 1 else 2.6)
    clip = runs_of(runs, "clip")
    reference = []
    for row, knob in zip(axes, names, strict=True):
        for ax, task in zip(row, tasks, strict=True):
            place = points[(points["knob"] == knob) & (points["env_id"] == task)]
            if place.empty:
                ax.remove()
                continue
            draw_knob(ax, place)
            same = clip[(clip["env_id"] == task) & clip["seed"].isin(place["seed"])]
            if "clip" not in set(place["variant"]) and len(same):
                look = {"color": STYLES["clip"]["color"], "linewidth": 3, "zorder": 1.8}
                label = "clip, ε = 0.2, same seeds"
                reference = [ax.axhline(same["final_return"].mean(), label=label, **look)]
            counts = place.groupby(["variant", "value"], observed=True).size()
            separator = ", " if len(tasks) < 4 else "\n"
            ax.set_title(f"{task}{separator}{figures.plural(counts.min(), counts.max())}", fontsize=9.5)
            ax.set_xlabel(knob)
        next(ax for ax in row if ax.figure).set_ylabel("final return")
    caption = "Lines: mean over seeds that finished; dots: every seed"
    caption += "; a cross at the foot: a seed diverged" if points["diverged"].any() else ""
    entries = [Line2D([], [], label=variant, **knob_style(variant)) for variant in present(points["variant"])]
    return finish(figure, caption + ".", entries + reference)


def setting_points(settings, curves):
    """A row a setting and task: variant, knob, value, the median KL of an iteration, and the final return: mean,
    standard deviation (divisor n), and of how many seeds."""
    rows = []
    for (task, setting), cell in settings.groupby(["env_id", "setting"], observed=True):
        point = {name: cell[name].iloc[0] for name in ("variant", "knob", "value")}
        point |= {"env_id": task, "setting": setting, "kl": tables.median_kl(cell, curves)}
        returns = cell["final_return"].dropna()
        rows.append(point | {"final_return": returns.mean(), "std": returns.std(ddof=0), "seeds": len(returns)})
    return rows


def along_knobs(points):
    """The points of one task as lines: of each variant one along each of its knobs, by KL, or its only point."""
    lines = []
    for variant in dict.fromkeys(point["variant"] for point in points):
        of_variant = [point for point in points if point["variant"] == variant]
        for knob in sorted({point["knob"] for point in of_variant} - {""}) or [""]:
            along = [point for point in of_variant if point["knob"] in ("", knob)]
            lines.append(sorted(along, key=lambda point: point["kl"]))
    return lines


def draw_settings(ax, points):
    """Draws the settings of one task; those of one variant are joined along each knob, and labelled with its value."""
    for line in along_knobs(points):
        look = {"markersize": 6, "marker": "o", **style(line[0]["variant"]), "linewidth": 1, "linestyle": "-"}
        ax.plot([point["kl"] for point in line], [point["final_return"] for point in line], **look)
    for point in points:
        # Below for the adaptive β, whose points lie near those of the other two.
        below = point["variant"] == "kl_adaptive"
        where = {"xytext": (0, -6 if below else 6), "va": "top" if below else "bottom", "ha": "center"}
        color = style(point["variant"])["color"]
        ax.annotate(point["value"], (point["kl"], point["final_return"]), color=color, **where, **LABEL)
    kl_axis(ax, [point["kl"] for point in points])


def kl_axis(ax, kls):
    """Makes the x axis one of KLs, which are these."""
    kls = [kl for kl in kls if 0 < kl < np.inf]
    ax.set_xscale("log")
    if kls:
        ax.set_xlim(min(kls) / 3, max(kls) * 4)  # at least one power of ten is in between, which is a tick
    ax.xaxis.set_major_locator(LogLocator(numticks=6))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.margins(y=0.12)


def write_diverged(ax, runs):
    """Writes into the corner how many of the runs diverged, if any did: they have no final return to draw."""
    count = runs["diverged"].sum()
    if count:
        ax.text(0.03, 0.03, f"runs that diverged: {count}", transform=ax.transAxes, **figures.NOTE)


def return_over_kl(settings, curves):
    """Final return over the median KL of an iteration, a point a setting, a panel a task."""
    if settings.empty:
        return None
    points = setting_points(settings, curves)
    tasks = present(settings["env_id"])
    figure, axes, blank = panel_each(tasks, 2.4, columns=2)
    for task, ax in axes.items():
        draw_settings(ax, [point for point in points if point["env_id"] == task])
        write_diverged(ax, settings[settings["env_id"] == task])
        ax.set_title(task)
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel("final return")
        if task in tasks[-2:]:
            ax.set_xlabel("median KL of an iteration")
    caption = (
        "Mean final return over the median KL of an iteration, of all seeds of a setting, which may be more at the "
        "default. Lines join the values of an argument (of clip ε, of kl_fixed β, of kl_adaptive the target); those "
        "that are not the default are written beside their points."
    )
    swept = {point["variant"] for point in points if point["knob"]}
    entries = [
        Line2D(
            [],
            [],
            label=variant,
            **({"marker": "o"} | style(variant) | {"linewidth": variant in swept, "linestyle": "-"}),
        )
        for variant in present(settings["variant"])
    ]
    return finish(figure, caption, entries, blank)
