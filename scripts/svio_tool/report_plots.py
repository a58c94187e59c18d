# SPDX-License-Identifier: GPL-2.0-or-later
"""The plots of "svio report": SVG texts by matplotlib, to stand inside of the page."""
import io
import re

import matplotlib
from matplotlib import pyplot
from matplotlib.patches import FancyBboxPatch

from svio_tool import lab_stats

matplotlib.use("svg")
INK = "#010203"             # becomes the page's text colour, light or dark
COLOURS = {"full emulation": "#c8641b", "paravirtual": "#2f7fd1", "direct access": "#8d5bd0",
           "self-virtualizing": "#1c9a68"}
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (7, 2)))
MARKS = ("o", "s", "^", "D", "v", "P", "X")
STYLE = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10, "text.color": INK,
         "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
         "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}


def svg(figure, name, title):
    """The figure as one <svg> element; its ids begin with the name, so that several fit on one page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg"):].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    return text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def _bars(rows, name, title, label, form):
    """rows: [(text, family, figure with value, low, high)]; a bar with its interval each."""
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(5.4, 0.42 * len(rows) + 0.9))
        widest = max(one["high"] or one["value"] for _, _, one in rows)
        for at, (_, family, one) in enumerate(rows):
            axes.barh(at, one["value"], color=COLOURS[family], height=0.62)
            if one["low"] is not None:
                axes.plot([one["low"], one["high"]], [at, at], color=INK, marker="|", linewidth=1.2)
            axes.text((one["high"] or one["value"]) + widest * 0.015, at, format(one["value"], form),
                      va="center")
        axes.set_yticks(range(len(rows)), [text for text, _, _ in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, widest * 1.15)
        axes.set_xlabel(label)
        return svg(figure, name, title)


def bars(result, load, figure, name, title, label, form=",.0f"):
    rows = [(result["approaches"][key]["title"], result["approaches"][key]["family"], loads[load][figure])
            for key, loads in result["summary"].items() if figure in loads.get(load, {})]
    return _bars(rows, name, title, label, form) if rows else None


def tails(result, load, name, title):
    """Which part of the messages took longer than so many microseconds, both axes logarithmic."""
    curves = {}
    for cell in result["cells"].get("guest", []):
        if f"{cell['kind']}_{cell['size']}" == load and cell.get("histogram"):
            curves.setdefault(cell["approach"], []).append(cell["histogram"])
    if not curves:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(5.4, 4.4))
        seen = {}
        for key, histograms in curves.items():
            family = result["approaches"][key]["family"]
            seen[family] = seen.get(family, -1) + 1
            points = lab_stats.tail(lab_stats.merged(histograms))
            axes.step([at for at, _ in points], [part for _, part in points], where="post",
                      color=COLOURS[family], linestyle=DASHES[seen[family] % len(DASHES)],
                      label=result["approaches"][key]["title"])
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_yticks([1, 0.1, 0.01, 0.001], ["all", "1 in 10", "1 in 100", "1 in 1,000"])
        axes.minorticks_off()
        axes.set_xticks([50, 100, 200, 500, 1000, 2000, 5000, 10000],
                        ["50", "100", "200", "500", "1 ms", "2 ms", "5 ms", "10 ms"])
        axes.set_xlabel("microseconds, round trip")
        axes.set_ylabel("messages that took longer")
        axes.grid(alpha=0.25, color=INK)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=2, fontsize=9)
        return svg(figure, name, title)


def lines(series, name, title, label):
    """A figure over the number of guests; series: {name: {"title", "family", "points": {guests: {"value",
    "min", "max"}}}}. Both axes are logarithmic."""
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(5.4, 4.0))
        seen, counts = {}, set()
        for one in series.values():
            family, points = one["family"], one["points"]
            number = seen[family] = seen.get(family, -1) + 1
            values = [point["value"] for point in points.values()]
            reach = [[point["value"] - point["min"] for point in points.values()],
                     [point["max"] - point["value"] for point in points.values()]]
            axes.errorbar(list(points), values, yerr=reach, color=COLOURS[family], label=one["title"],
                          linestyle=DASHES[number % len(DASHES)], marker=MARKS[number % len(MARKS)],
                          markersize=5, capsize=2, linewidth=1.4)
            counts |= points.keys()
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(sorted(counts), [str(count) for count in sorted(counts)])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:,.0f}" if f"{value:e}"[0] in "25" else "")
        axes.set_xlabel("guests")
        axes.set_ylabel(label)
        axes.grid(alpha=0.25, color=INK)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=9)
        return svg(figure, name, title)


PARTS = (("vcpu", "the guest's CPU", "#c8641b"), ("qemu_other", "QEMU's other threads", "#2f7fd1"),
         ("on_board", "on-board cores", "#1c9a68"), ("peer", "peer on the wire", "#8a8f98"))


def cpu(result, load, name, title):
    """CPU seconds for a gigabit, split by who spent them."""
    rows = [(result["approaches"][key]["title"], loads[load]["per_message"])
            for key, loads in result["summary"].items()
            if "cpu_s_per_gbit_vcpu" in loads.get(load, {}).get("per_message", {})]
    if not rows:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(5.4, 0.42 * len(rows) + 1.3))
        left = [0.0] * len(rows)
        for part, text, colour in PARTS:
            values = [cost.get(f"cpu_s_per_gbit_{part}", 0) for _, cost in rows]
            axes.barh(range(len(rows)), values, left=left, color=colour, label=text, height=0.62)
            left = [one + other for one, other in zip(left, values)]
        axes.set_yticks(range(len(rows)), [text for text, _ in rows])
        axes.invert_yaxis()
        axes.set_xlabel("CPU seconds for a gigabit")
        axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.9 / (0.42 * len(rows) + 1.3) * 0.75 - 0.05),
                    ncol=2, fontsize=9)
        return svg(figure, name, title)


def journey(boxes, arrows, family, name, title):
    """Three boxes one below the other, with the figures beside the arrows that join them.

    boxes: three texts; arrows: ((down, up), (down, up)) texts."""
    with matplotlib.rc_context({**STYLE, "font.size": 8.5}):
        figure, axes = pyplot.subplots(figsize=(4.2, 3.9))
        axes.set_axis_off()
        axes.set_xlim(0, 10)
        axes.set_ylim(0, 11)
        for at, text in zip((9.2, 4.7, 0.2), boxes):
            axes.add_patch(FancyBboxPatch((0.6, at), 8.8, 1.5, boxstyle="round,pad=0.1", facecolor="none",
                                          edgecolor=COLOURS[family], linewidth=1.8))
            axes.text(5, at + 0.75, text, ha="center", va="center")
        for top, (down, up) in zip((9.0, 4.5), arrows):
            for x, begin, end, text, side, off in ((4.6, top, top - 2.6, down, "right", -0.25),
                                                   (5.4, top - 2.6, top, up, "left", 0.25)):
                axes.annotate("", (x, end), (x, begin), arrowprops={"arrowstyle": "->", "color": INK})
                axes.text(x + off, top - 1.3, text, ha=side, va="center")
        return svg(figure, name, title)


STAGE_COLOURS = ("#c8641b", "#2f7fd1", "#1c9a68", "#8d5bd0", "#b58a00", "#c2437f")
SHORTEST_US = 0.01          # a logarithmic axis has no 0


def stages(result, name, title):
    """Median microseconds of each stage, a group of bars for each of our modes."""
    rows = [(key, one["stage_times"]) for key, one in result["anatomy"].items() if one.get("stage_times")]
    if not rows:
        return None
    height = 0.8 / len(lab_stats.STAGES)
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(5.4, 1.15 * len(rows) + 1.4))
        for number, (stage, label) in enumerate(lab_stats.STAGES.items()):
            values = [lab_stats.stage_quantile(one.get(stage, {}), 0.5) for _, one in rows]
            at = [row + (number - (len(lab_stats.STAGES) - 1) / 2) * height
                  for row, value in enumerate(values) if value is not None]
            axes.barh(at, [max(value / 1000, SHORTEST_US) for value in values if value is not None],
                      height=height * 0.9, color=STAGE_COLOURS[number], label=label)
        axes.set_yticks(range(len(rows)), [result["approaches"][key]["title"] for key, _ in rows])
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlabel("microseconds after the stage before, median")
        axes.grid(axis="x", alpha=0.25, color=INK)
        axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.8 / (1.15 * len(rows) + 1.4) - 0.05), ncol=2,
                    fontsize=9)
        return svg(figure, name, title)
