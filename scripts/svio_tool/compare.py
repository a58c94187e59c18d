# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/svio compare: what two results of the same measurement say of each other."""
import argparse
import json
import math
import random
import statistics
import sys

from svio_tool import ui
from svio_tool.bench import TRIP_PAIRS
from svio_tool.demo import figures, table
from svio_tool.latency import BASELINE
from svio_tool.stats import write_json
from svio_tool.ui import SvioError

# What tells one cell of a round from another; figures of cells, and whether more is better.
IDENTITY = ("kind", "nic", "port", "path", "peer", "guests", "vifs", "load", "size")
FIGURES = {"p50_us": False, "p99_us": False, "per_s": True}
# Of the machine: results are of the same kind of host when these agree.
HOST_FACTS = ("cores", "cpu", "accel", "qemu", "guest_kernel", "xen")
RESAMPLES = 2000
TOLERANCE = 10  # per cent

EPILOG = """\
Both files are of the same measurement: demo, bench scaling or xen demo|bench, each with --json.

By default each figure is first divided by that of the alternative it stands beside, in the same round
(virtio-net, Xen's split driver, one VIF, the load without its flood), since a host's speed is another
every hour; --absolute compares the figures themselves, and needs the same quiet host.
The interval is a bootstrap of the medians over the rounds, 95 %; of three rounds it is about their range.

Exit status
  0   nothing is worse
  1   something is worse: its interval excludes 1, and its change is larger than --tolerance
  2   the files cannot be compared

Example
  scripts/svio demo --json before.json; git switch other; scripts/svio demo --json after.json
  scripts/svio compare before.json after.json"""


def add_arguments(parser):
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("before", metavar="A.json", help="the result to compare with")
    parser.add_argument("after", metavar="B.json", help="the result in question")
    parser.add_argument("--absolute", action="store_true", help="compare microseconds and rates themselves")
    parser.add_argument("--tolerance", type=percent, default=TOLERANCE, metavar="PERCENT",
                        help=f"changes up to this size are none (default {TOLERANCE})")
    parser.add_argument("--json", metavar="FILE",
                        help='write the comparison to FILE, "-" for standard output')


def percent(text):
    value = float(text)
    if not 0 <= value < 1000:
        raise ValueError(text)
    return value


# --- reading ---------------------------------------------------------------------------------------

def load(name):
    """The result in a file; its cells as one list under "cells", each with its kind."""
    try:
        with open(name, encoding="utf-8") as file:
            result = json.load(file)
    except OSError as error:
        raise SvioError(f"{name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SvioError(f"{name} is not JSON, or it was cut off: {error}") from error
    cells = result.get("cells") if isinstance(result, dict) else None
    try:
        if isinstance(cells, dict):
            cells = [{"kind": kind, **cell} for kind, group in cells.items() for cell in group]
        good = bool(cells) and isinstance(result.get("host", {}), dict) and all(
            isinstance(value, (str, int)) for cell in cells
            for value in (cell["round"], *dict(identity(cell)).values()))
    except (TypeError, KeyError):
        good = False
    if not good:
        raise SvioError(f"{name} holds no rounds of a measurement: make it with --json")
    return {**result, "cells": cells}


def identity(cell):
    return tuple((key, cell[key]) for key in IDENTITY if key in cell)


def base_of(cell, cells):
    """Identity of the cell that this one stands beside in its round; None if there is none."""
    other = dict(identity(cell))
    if "nic" in cell:
        other["nic"], other["port"] = BASELINE
    elif "path" in cell:
        other["path"] = "split"
    elif "vifs" in cell:
        other["vifs"] = min(one["vifs"] for one in cells if "vifs" in one)
    else:
        bases = {mine: base for _, mine, base in TRIP_PAIRS}
        other["load"] = bases.get(cell.get("load"))
    base = tuple(other.items())
    return None if base == identity(cell) else base


def number(cell, name):
    value = cell[name]
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or value <= 0:
        raise SvioError(f"{name} of {label(identity(cell))}, round {cell['round']}, is {value}: "
                        "no ratio can be made of it")
    return value


def label(key):
    units = {"vifs": "VIF", "guests": "guest"}
    return " ".join(f"{value} B" if name == "size" else
                    f"{value} {units[name]}{'' if value == 1 else 's'}" if name in units else str(value)
                    for name, value in key)


def values(result, absolute=False):
    """{(identity, figure): [one value for each round]}"""
    cells = result["cells"]
    rounds = {(identity(cell), cell["round"]): cell for cell in cells}
    found = {}
    for cell in cells:
        base = None if absolute else rounds.get((base_of(cell, cells), cell["round"]))
        for name in FIGURES:
            if name in cell and (absolute or base is not None):
                value = number(cell, name) / (1 if absolute else number(base, name))
                found.setdefault((identity(cell), name), []).append(value)
    return found


# --- statistics ------------------------------------------------------------------------------------

def interval(before, after, resamples=RESAMPLES, seed=1):
    """Ratio of the medians and its 95 % bootstrap interval (Efron's percentiles): (value, low, high)."""
    shuffle = random.Random(seed)
    ratios = sorted(statistics.median(shuffle.choices(after, k=len(after)))
                    / statistics.median(shuffle.choices(before, k=len(before))) for _ in range(resamples))
    edge = round(0.025 * resamples)
    return statistics.median(after) / statistics.median(before), ratios[edge], ratios[-1 - edge]


def verdict(value, low, high, more_is_better, tolerance):
    """"better", "worse" or "same"; the tolerance in per cent, a change by its size in either direction."""
    if low <= 1 <= high or max(value, 1 / value) <= 1 + tolerance / 100:
        return "same"
    return "better" if (value > 1) == more_is_better else "worse"


def compare(before, after, absolute=False, tolerance=TOLERANCE):
    """{"rows": [...], "only_before": [...], "only_after": [...]}"""
    old, new = values(before, absolute), values(after, absolute)
    rows = []
    for key, name in old:
        if (key, name) not in new:
            continue
        mine, other = old[key, name], new[key, name]
        value, low, high = interval(mine, other)
        rows.append({"what": label(key), "figure": name, "before": statistics.median(mine),
                     "after": statistics.median(other), "rounds": [len(mine), len(other)], "ratio": value,
                     "low": low, "high": high,
                     "verdict": verdict(value, low, high, FIGURES[name], tolerance)})
    if not rows:
        raise SvioError("The two results have no figure in common: they are of different measurements")
    return {"absolute": absolute, "tolerance_percent": tolerance, "rows": rows,
            "only_before": [f"{label(key)} {name}" for key, name in old if (key, name) not in new],
            "only_after": [f"{label(key)} {name}" for key, name in new if (key, name) not in old]}


# --- what is said ----------------------------------------------------------------------------------

def remarks(before, after, found):
    """What a reader must know before believing the table."""
    for name, result in (("A", before), ("B", after)):
        host = result.get("host", {})
        if not result.get("complete", False):
            yield f"{name} ended early: it has the rounds until then."
        if host.get("others_cores", 0) > 0.2:
            yield (f"Other programs used {host['others_cores']:.2f} cores while {name} was measured: "
                   "repeat it.")
    hosts = [{key: result.get("host", {}).get(key) for key in HOST_FACTS} for result in (before, after)]
    for key in HOST_FACTS:
        if hosts[0][key] != hosts[1][key]:
            yield f"Different {key}: {hosts[0][key]} in A, {hosts[1][key]} in B."
    for name, key in (("A", "only_before"), ("B", "only_after")):
        if found[key]:
            yield f"Only in {name}: {', '.join(found[key])}."


def figure_text(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def say(before, after, found):
    kind = "figures" if found["absolute"] else "figures, each as a ratio to the alternative beside it"
    ui.say(f"B against A: medians of {kind}; ratio B/A with its 95 % interval")
    table(("what", "figure", "A", "B", "B/A", "interval", "rounds", ""), [
        (row["what"], row["figure"], figure_text(row["before"]), figure_text(row["after"]),
         f"{row['ratio']:.2f}", f"{row['low']:.2f}..{row['high']:.2f}", "{}, {}".format(*row["rounds"]),
         row["verdict"]) for row in found["rows"]])
    for line in remarks(before, after, found):
        ui.say(line)
    count = {word: sum(row["verdict"] == word for row in found["rows"])
             for word in ("better", "same", "worse")}
    ui.say("{better} better, {same} the same, {worse} worse".format(**count)
           + f" (changes up to {found['tolerance_percent']:g} % are none).")


def main(args):
    try:
        before, after = load(args.before), load(args.after)
        found = compare(before, after, args.absolute, args.tolerance)
    except SvioError as error:
        print(f"svio: {error.sentence}", file=sys.stderr)
        return 2
    with figures(args.json, found):
        say(before, after, found)
        if args.json and args.json != "-":
            write_json(found, args.json)
    return int(any(row["verdict"] == "worse" for row in found["rows"]))
