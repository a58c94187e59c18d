# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures of "svio bench" from its cells: medians with intervals, distributions, the summary."""
import itertools
import random
import statistics

from svio_tool import lab
from svio_tool.lab import KINDS, NAMES, SCHEDULED, SIZES, STEPS
from svio_tool.latency import HEADERS

RESAMPLES = 1000
BASE = {"guest": "virtio", "xen": "xen-split", "xen-emulated": "xen-emulated-virtio"}


def bootstrap(values, resamples=RESAMPLES, seed=1):
    """{"value", "low", "high", "rounds"}: the median over the rounds and its 95 % bootstrap interval. Of one
    round there is no interval (None), of two or three it is their range."""
    values = list(values)
    if len(values) < 2:
        return {"value": statistics.median(values), "low": None, "high": None, "rounds": len(values)}
    shuffle = random.Random(seed)
    medians = sorted(statistics.median(shuffle.choices(values, k=len(values))) for _ in range(resamples))
    edge = round(0.025 * resamples)
    return {"value": statistics.median(values), "low": medians[edge], "high": medians[-1 - edge],
            "rounds": len(values)}


def merged(histograms):
    """One histogram of several; steps are numbers, also where JSON made texts of them."""
    total = {}
    for histogram in histograms:
        for step, count in histogram.items():
            total[int(step)] = total.get(int(step), 0) + count
    return dict(sorted(total.items()))


def middle(step):
    """Microseconds in the middle of a step (geometrically): 1/16 of a doubling wide, so right to 2.2 %."""
    return 2 ** ((step + 0.5) / STEPS)


def quantile(histogram, part):
    """Microseconds below which that part of the messages was answered."""
    left = part * sum(histogram.values())
    for step, count in histogram.items():
        left -= count
        if left <= 0:
            return middle(step)
    return None


def tail(histogram):
    """[(microseconds, part of the messages that took at least as long)]: a curve with a logarithmic tail."""
    total, points = sum(histogram.values()), []
    left = total
    for step, count in histogram.items():
        points.append((2 ** (step / STEPS), left / total))
        left -= count
    return points


# Of the board's histograms (SPEC.md 14.1), and their names in tables.
STAGES = {"send/picked_up": "picked up", "send/switched": "switched", "send/delivered": "on the wire",
          "send/signalled": "sender signalled", "receive/delivered": "delivered to guest",
          "receive/signalled": "guest signalled"}


def stage_quantile(histogram, part):
    """Nanoseconds: the middle of the bucket (a quarter of a power of two wide) where that part of the
    messages ends; None of an empty histogram. Buckets are numbers, also where JSON made texts of them."""
    counts = sorted((int(least), count) for least, count in histogram.items())
    left = part * sum(count for _, count in counts)
    for least, count in counts:
        left -= count
        if left <= 0:
            return least if least < 4 else least + (1 << (least.bit_length() - 3)) / 2
    return None


FIGURES = {"rtt": ("p50_us", "p90_us", "p99_us"), "loaded": ("p50_us", "p99_us"),
           "tx": ("per_s", "mbit_per_s"), "rx": ("per_s", "mbit_per_s"),
           "packets": ("per_s",), "tcp_tx": ("stream_mbit_per_s",), "tcp_rx": ("stream_mbit_per_s",),
           "both": ("per_s", "mbit_per_s", "tx_per_s", "rx_per_s")}
CPU = ("vcpu", "qemu_other", "on_board", "peer")


def group(cells):
    """{approach: {"rtt_64" and the like: [its cells]}} in the order of their appearance."""
    found = {}
    for cell in cells:
        load = f"{cell['kind']}_{cell['size']}"
        found.setdefault(cell["approach"], {}).setdefault(load, []).append(cell)
    return found


def base_of(approach):
    """The approach that this one stands beside, in the same machine."""
    for where in ("xen-emulated", "xen"):       # the names in a machine begin with its own
        if approach.startswith(f"{where}-"):
            return BASE[where]
    return BASE["guest"]


def costs(cells):
    """What one message (a round trip, or a datagram) cost: medians over the rounds of CPU microseconds,
    interrupts and context switches."""
    found = {"interrupts": statistics.median(cell["interrupts"] / cell["messages"] for cell in cells)}
    for part in CPU:
        if all(part in cell["cpu_s"] for cell in cells):
            found[f"cpu_us_{part}"] = statistics.median(cell["cpu_s"][part] * 1e6 / cell["messages"]
                                                        for cell in cells)
            if all("mbit_per_s" in cell for cell in cells):
                # Seconds of CPU for a gigabit of frames.
                found[f"cpu_s_per_gbit_{part}"] = statistics.median(
                    cell["cpu_s"][part] * 1e9 / (cell["messages"] * (cell["size"] + HEADERS) * 8)
                    for cell in cells)
    for name, part in itertools.product(SCHEDULED, CPU[:3]):
        if all(part in cell.get(name, {}) for cell in cells):
            found[f"{name}_{part}"] = statistics.median(cell[name][part] / cell["messages"] for cell in cells)
    for name in ("bells", "signals", "sleeps", "empty_polls"):
        values = [cell["board"][name] / cell["messages"] for cell in cells if name in cell.get("board", {})]
        if values:
            found[name] = statistics.median(values)
    return found


def switched(cost, name="switches"):
    """Context switches of all of QEMU's threads for a message, of its costs(); or their "wakeups"."""
    return sum(cost.get(f"{name}_{part}", 0) for part in CPU[:3])


def against(cells, base, name):
    """Ratio to the base in the same round: its median and interval."""
    old = {cell["round"]: cell[name] for cell in base if cell.get(name)}
    values = [cell[name] / old[cell["round"]] for cell in cells if cell["round"] in old and cell.get(name)]
    return bootstrap(values) if values else None


def summary(groups):
    """{approach: {load: {figure: median and interval, "ratio": {figure: ...}, "per_message": {...}}}} of
    {"guest": cells, "xen": cells, "xen-emulated": cells}; ratios are to virtio-net in the same guest, and of
    Xen's rows to its split driver."""
    total = {}
    for where, cells in groups.items():
        found = group(cells)
        base = found.get(BASE[where], {})
        # The order of the table, not that in which the first round happened to visit them.
        for approach in sorted(found, key=lambda name: NAMES.index(name) if name in NAMES else len(NAMES)):
            for load, own in found[approach].items():
                names = [name for name in FIGURES[own[0]["kind"]] if name in own[0]]
                one = {name: bootstrap(cell[name] for cell in own) for name in names}
                one["ratio"] = {name: against(own, base.get(load, []), name) for name in names}
                one["per_message"] = costs(own)
                if any(cell.get("histogram") for cell in own):
                    whole = merged(cell["histogram"] for cell in own)
                    one["quantiles_us"] = {str(part): quantile(whole, part)
                                           for part in (0.5, 0.9, 0.99, 0.999)}
                total.setdefault(approach, {})[load] = one
    return total


# (load, figure) of what is in every round.
HEADLINES = tuple((f"{KINDS[what]}_{SIZES[what]}", FIGURES[KINDS[what]][0]) for what in lab.HEADLINES)


def headlines(found):
    """{(approach, load, figure): interval} of a summary: ratios to the approach that each stands beside."""
    total = {}
    for approach, own in found.items():
        for load, name in HEADLINES:
            ratio = own.get(load, {}).get("ratio", {}).get(name)
            if ratio and ratio["low"] is not None and approach not in BASE.values():
                total[approach, load, name] = ratio
    return total


def overlaps(one, other):
    """Of two results' headline intervals: ([those that overlap], [those that are apart])."""
    mine, theirs = headlines(one), headlines(other)
    found = ([], [])
    for key in mine.keys() & theirs.keys():
        a, b = mine[key], theirs[key]
        found[a["high"] < b["low"] or b["high"] < a["low"]].append(key)
    return tuple(sorted(group) for group in found)


def fastest(found, load, name, more):
    """(approach, its figures, whether its interval is apart from the second's): the best here, by ratio."""
    rows = sorted(((loads[load][name]["value"], approach) for approach, loads in found.items()
                   if load in loads and not approach.startswith("xen-")), reverse=more)
    if not rows:
        return None
    best = found[rows[0][1]][load][name]
    apart = None
    if len(rows) > 1 and best["low"] is not None:
        other = found[rows[1][1]][load][name]
        apart = other["low"] is not None and (best["low"] > other["high"] if more else
                                              best["high"] < other["low"])
    return {"approach": rows[0][1], "figure": best, "ratio": found[rows[0][1]][load]["ratio"][name],
            "second": rows[1][1] if len(rows) > 1 else None, "apart": apart}
