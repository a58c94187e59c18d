# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/svio compare: what two results of the same measurement say of each other."""
import argparse
import json
import math
import statistics
import sys

from svio_tool import lab_stats, ui
from svio_tool.bench import TRIP_PAIRS
from svio_tool.demo import figures, table
from svio_tool.bench_features import SETTINGS
from svio_tool.latency import BASELINE
from svio_tool.stats import write_json
from svio_tool.ui import SvioError

# What tells one cell of a round from another; figures of cells, and whether more is better.
IDENTITY = ("kind", "feature", "setting", "wire", "approach", "nic", "port", "path", "peer", "guests", "way",
            "vms", "vifs", "load", "size")
FIGURES = {"p50_us": False, "p99_us": False, "per_s": True, "stream_mbit_per_s": True}
# Of the machine: results are of the same kind of host when these agree.
HOST_FACTS = ("cores", "cpu", "accel", "qemu", "guest_kernel", "xen")
SURE = 0.95
TOLERANCE = 10  # per cent

EPILOG = """\
Both files are of the same measurement, each with --json: demo, bench, bench scaling, bench features or
xen demo|bench.

By default each figure is first divided by that of the alternative it stands beside, in the same round
(virtio-net, Xen's split driver, one VIF, the load without its flood, a hub of QEMU's, offloads turned off),
since a host's speed is another every hour; --absolute compares the figures themselves, and needs the same
quiet host.
The figures are geometric means over the rounds, and the interval is Welch's for the ratio of two of them
(95 %, Student's t of the logarithms): honest for few rounds, where it is wide. Of one round there is none,
and nothing is decided. Many figures are looked at, and of twenty without a difference one would lie outside
of its interval by chance: so a verdict wants more (Holm's correction over all figures of the table).
Of two results of bench it also says how many of the headline intervals overlap: each approach's ratios for
the 64-byte round trip, sending and receiving, as bench and its report print them. It decides nothing.

Exit status
  0   nothing is worse
  1   something is worse: it is beyond chance, and its change is larger than --tolerance
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
    if "setting" in cell:
        other["setting"] = SETTINGS.get(cell.get("feature"), [cell["setting"]])[0]
    elif "approach" in cell:
        other["approach"] = lab_stats.base_of(cell["approach"])
    elif "nic" in cell:
        other["nic"], other["port"] = BASELINE
    elif "path" in cell:
        other["path"] = "split"
    elif "way" in cell:
        other["way"] = "dgram-hub"
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
    units = {"vifs": "VIF", "guests": "guest", "vms": "VM"}
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

def student_tail(value, freedom):
    """Probability that Student's t with so many (not only whole) degrees of freedom is further from 0."""
    # t = sqrt(freedom) tan(angle) makes the density cos(angle)^(freedom - 1): smooth, and on a finite range.
    angle, steps = math.atan(abs(value) / math.sqrt(freedom)), 400
    width = (math.pi / 2 - angle) / steps
    if width <= 0:
        return 0.0
    parts = [max(0.0, math.cos(angle + n * width)) ** (freedom - 1) for n in range(steps + 1)]
    area = width / 3 * (parts[0] + parts[-1] + 4 * sum(parts[1:-1:2]) + 2 * sum(parts[2:-1:2]))
    whole = math.sqrt(math.pi) / 2 * math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2))
    return min(1.0, area / whole)


def student_quantile(freedom, sure=SURE):
    """The t that is exceeded, in either direction, with probability 1 - sure."""
    low, high = 0.0, 1.0
    while student_tail(high, freedom) > 1 - sure:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if student_tail(middle, freedom) > 1 - sure else (low, middle)
    return high


def interval(before, after):
    """Ratio of the geometric means, its 95 % interval, and how likely so large a difference is by chance:
    (value, low, high, chance). Of a single round only the value is known, the rest is None."""
    logs = [[math.log(value) for value in values] for values in (before, after)]
    mean = statistics.fmean(logs[1]) - statistics.fmean(logs[0])
    value = math.exp(mean)
    if min(map(len, logs)) < 2:
        return value, None, None, None
    parts = [statistics.variance(one) / len(one) for one in logs]
    if sum(parts) < 1e-20:              # rounds that agree to the last digit: synthetic, and without doubt
        return value, value, value, 1.0 if abs(mean) < 1e-9 else 0.0
    # Welch and Satterthwaite: the two results need not wander equally.
    freedom = sum(parts) ** 2 / sum(part ** 2 / (len(one) - 1) for part, one in zip(parts, logs))
    error = math.sqrt(sum(parts))
    reach = student_quantile(freedom) * error
    return value, math.exp(mean - reach), math.exp(mean + reach), student_tail(mean / error, freedom)


def beyond_chance(chances):
    """Holm's correction: which of so many figures differ, 5 % for a false alarm in all of them."""
    known = sorted((chance, n) for n, chance in enumerate(chances) if chance is not None)
    found = set()
    for rank, (chance, n) in enumerate(known):
        if chance > (1 - SURE) / (len(known) - rank):
            break
        found.add(n)
    return found


def verdict(value, differs, more_is_better, tolerance):
    """"better", "worse", "same", or "unknown" when "differs" is None; the tolerance in per cent, a change
    by its size in either direction."""
    if differs is None:
        return "unknown"
    if not differs or max(value, 1 / value) <= 1 + tolerance / 100:
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
        value, low, high, chance = interval(mine, other)
        rows.append({"what": label(key), "figure": name, "before": statistics.geometric_mean(mine),
                     "after": statistics.geometric_mean(other), "rounds": [len(mine), len(other)],
                     "ratio": value, "low": low, "high": high, "chance": chance})
    if not rows:
        raise SvioError("The two results have no figure in common: they are of different measurements")
    differing = beyond_chance([row["chance"] for row in rows])
    for n, row in enumerate(rows):
        differs = None if row["chance"] is None else n in differing
        row["verdict"] = verdict(row["ratio"], differs, FIGURES[row["figure"]], tolerance)
    return {"absolute": absolute, "tolerance_percent": tolerance, "rows": rows,
            "only_before": [f"{label(key)} {name}" for key, name in old if (key, name) not in new],
            "only_after": [f"{label(key)} {name}" for key, name in new if (key, name) not in old]}


def headline_overlap(before, after):
    """{"overlap": how many, "apart": [labels]} of two results of bench; None of others."""
    if not all(result.get("measurement") == "bench" for result in (before, after)):
        return None
    try:
        good, apart = lab_stats.overlaps(before["summary"], after["summary"])
    except (KeyError, TypeError, AttributeError) as error:
        raise SvioError(f"The summary is not that of svio bench ({error}).") from error
    return {"overlap": len(good), "apart": [" ".join(key) for key in apart]}


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


def interval_text(row):
    return "unknown" if row["low"] is None else f"{row['low']:.2f}..{row['high']:.2f}"


def say(before, after, found):
    kind = "figures" if found["absolute"] else "figures, each as a ratio to the alternative beside it"
    ui.say(f"B against A: means of {kind}; ratio B/A with its 95 % interval")
    table(("what", "figure", "A", "B", "B/A", "interval", "rounds", ""), [
        (row["what"], row["figure"], figure_text(row["before"]), figure_text(row["after"]),
         f"{row['ratio']:.2f}", interval_text(row), "{}, {}".format(*row["rounds"]),
         row["verdict"]) for row in found["rows"]])
    for line in remarks(before, after, found):
        ui.say(line)
    headlines = found.get("headlines")
    if headlines and headlines["overlap"] + len(headlines["apart"]):
        total = headlines["overlap"] + len(headlines["apart"])
        ui.say(f"{headlines['overlap']} of {total} headline intervals overlap"
               + (f"; apart: {', '.join(headlines['apart'])}." if headlines["apart"] else "."))
    count = {word: sum(row["verdict"] == word for row in found["rows"])
             for word in ("better", "same", "worse", "unknown")}
    ui.say("{better} better, {same} the same, {worse} worse".format(**count)
           + (f", {count['unknown']} unknown: a figure of one round decides nothing"
              if count["unknown"] else "")
           + f" (changes up to {found['tolerance_percent']:g} % are none).")


def main(args):
    try:
        before, after = load(args.before), load(args.after)
        found = compare(before, after, args.absolute, args.tolerance)
        found["headlines"] = headline_overlap(before, after)
    except SvioError as error:
        print(f"svio: {error.sentence}", file=sys.stderr)
        return 2
    with figures(args.json, found):
        say(before, after, found)
        if args.json and args.json != "-":
            write_json(found, args.json)
    return int(any(row["verdict"] == "worse" for row in found["rows"]))
