"""What the pictures have in common: fonts, the look of each variant, legends."""

import io
import zlib

import compare
import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from PIL.PngImagePlugin import PngInfo

WIDTH = 7.2  # inches; at 900 pixels a letter of 10 points is then 17 pixels high
NARROWEST = WIDTH / 5  # a panel; with more than five beside each other a picture becomes wider
matplotlib.rcParams.update(
    {
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "legend.fontsize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "0.9",
        "legend.frameon": False,
        "legend.handlelength": 3.2,
        "lines.markersize": 4.5,
        "savefig.dpi": 150,
        "svg.hashsalt": "klip-ppo",  # the ids in an SVG are random without it
    }
)
HOLLOW = {"markerfacecolor": "white"}
# Colours of Okabe & Ito (2008) first. clip, klip and phi coincide: dashes and rings on a wide line show all three.
# Where two have one colour, the second is dashed and hollow.
STYLES = {
    "clip": {"color": "#56B4E9", "linewidth": 4},
    "klip": {"color": "black", "linewidth": 1.5, "linestyle": (0, (5, 3))},
    "phi": {"color": "#D55E00", "linewidth": 1.2, "linestyle": ":", "marker": "o", **HOLLOW},
    "kl_fixed": {"color": "#009E73", "linewidth": 1.6, "linestyle": "-.", "marker": "s"},
    "kl_adaptive": {"color": "#CC79A7", "linewidth": 1.6, "marker": "^"},
    "clip_higher": {"color": "#0072B2", "linewidth": 1.6, "linestyle": "-", "marker": "D"},
    "dual_clip": {"color": "#E69F00", "linewidth": 1.6, "linestyle": "-", "marker": "v"},
    "rollback": {"color": "#D55E00", "linewidth": 1.6, "linestyle": "-", "marker": "P"},
    "spo": {"color": "#555555", "linewidth": 1.6, "linestyle": "-", "marker": "p"},
    "sapo": {"color": "#0072B2", "linewidth": 1.6, "linestyle": "--", "marker": "*", **HOLLOW},
    "cispo": {"color": "#E69F00", "linewidth": 1.6, "linestyle": "--", "marker": "<", **HOLLOW},
    "soft": {"color": "#7F3C8D", "linewidth": 1.6, "linestyle": "-", "marker": ">"},
    "none": {"color": "#555555", "linewidth": 1.6, "linestyle": "--", "marker": "h", **HOLLOW},
    "ano": {"color": "#7F3C8D", "linewidth": 1.6, "linestyle": "--", "marker": "X", **HOLLOW},
    "dpo": {"color": "#8B5A2B", "linewidth": 1.6, "linestyle": "-", "marker": "d"},
    "aband": {"color": "#8B5A2B", "linewidth": 1.6, "linestyle": "--", "marker": "H", **HOLLOW},
    "clip_eps": {"color": "#999933", "linewidth": 1.6, "linestyle": "-", "marker": "o", **HOLLOW},
    "bpo": {"color": "#882255", "linewidth": 1.6, "linestyle": "-", "marker": "D"},
    "r2vpo": {"color": "#117733", "linewidth": 1.6, "linestyle": "-", "marker": "v"},
    "dppo": {"color": "#882255", "linewidth": 1.6, "linestyle": "--", "marker": "p", **HOLLOW},
    "vespo": {"color": "#117733", "linewidth": 1.6, "linestyle": "--", "marker": "P", **HOLLOW},
}
# Any other variant, such as a file of the reader's own in betas/ or another setting, has one of these.
OWN = [
    {"color": "#B00020", "linewidth": 1.6, "linestyle": "-", "marker": "*"},
    {"color": "#004D40", "linewidth": 1.6, "linestyle": "-", "marker": "o"},
    {"color": "#1A237E", "linewidth": 1.6, "linestyle": "-", "marker": "<"},
    {"color": "#E69F00", "linewidth": 1.6, "linestyle": "--", "marker": "s", **HOLLOW},
    {"color": "#6A1B9A", "linewidth": 1.6, "linestyle": "--", "marker": "D", **HOLLOW},
    {"color": "#2E7D32", "linewidth": 1.6, "linestyle": "--", "marker": "^", **HOLLOW},
    {"color": "#5D4037", "linewidth": 1.6, "linestyle": "-.", "marker": "v"},
]


def style(variant):
    """The look of a variant, the same wherever it is drawn; merged forms have that of clip."""
    name = compare.first_name(variant)
    look = STYLES.get(name) or OWN[zlib.crc32(name.encode()) % len(OWN)]
    return {"zorder": 3, **look}


def handles(variants):
    """Entries of a legend, one a variant."""
    return [Line2D([], [], label=variant, **style(variant)) for variant in variants]


def panels(rows, columns, height, **options):
    """A figure, and its panels as an array (rows, columns), each so many inches high."""
    width = max(WIDTH, columns * NARROWEST)
    figure = Figure((width, height * rows + 0.9), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def panel_each(names, height, columns=3):
    """A figure with a panel for each name, the panels by name, and those that are left over, blank."""
    columns = min(len(names), columns)
    figure, axes = panels(-(-len(names) // columns), columns, height if columns > 1 else 3)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    return figure, dict(zip(names, axes.flat, strict=False)), list(axes.flat[len(names) :])


def finish(figure, caption, entries=(), blank=()):
    """Adds the legend with these entries, in a blank panel if there is one, else above; and, as text, the caption."""
    entries = list(entries)
    if entries and blank:
        blank[0].legend(handles=entries, loc="center", ncols=1 + len(entries) // 10, columnspacing=1.2)
    elif entries:
        figure.legend(handles=entries, loc="outside upper center", ncols=min(len(entries), 5), columnspacing=1.2)
    figure.caption = caption
    return figure


def png(figure, source=None):
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
