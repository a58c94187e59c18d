# SPDX-License-Identifier: GPL-2.0-or-later
"""The arithmetic of "bench scaling": plain functions of what was counted."""
import statistics

from svio_tool.latency import ratio
from svio_tool.ui import SvioError


def spread(values):
    """Median with the smallest and the largest; None of nothing."""
    values = list(values)
    if not values:
        return None
    return {"value": statistics.median(values), "min": min(values), "max": max(values)}


def pick(cells, **wanted):
    """{round: cell} with these properties."""
    return {cell["round"]: cell for cell in cells if all(cell[key] == value for key, value in wanted.items())}


def jain(rates):
    """Jain's fairness index: 1 when all are equal, 1/n when one has everything."""
    squares = sum(rate * rate for rate in rates)
    if not squares:
        raise SvioError("Nothing was sent, so there is no fairness of it")
    return sum(rates) ** 2 / (len(rates) * squares)


def shares(values):
    total = sum(values)
    if not total:
        raise SvioError("Nothing was sent, so there are no shares of it")
    return [value / total for value in values]


def share_errors(amounts, weights):
    """How far each share is off the one that its weight gives it: 0.05 is 5 % too much."""
    return [share / wanted - 1 for share, wanted in zip(shares(amounts), shares(weights), strict=True)]


def worst(errors):
    return max(abs(error) for error in errors)


def vif_difference(before, after, counter):
    """{slot: increase of this counter} in the order of slots, which QEMU's dictionaries do not keep; "before"
    and "after" are the board's counters."""
    return {int(slot): after["vifs"][slot][counter] - before["vifs"].get(slot, {}).get(counter, 0)
            for slot in sorted(after["vifs"], key=int)}


def spread_flows(flows, vifs):
    """{flow: VIF}: flow 1 on VIF 1, flow 2 on VIF 2 and so on, around and around."""
    return {flow: (flow - 1) % vifs + 1 for flow in range(1, flows + 1)}


def unsent(text):
    """{local port: bytes that wait in the kernel} of /proc/net/udp."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) > 4 and words[0].rstrip(":").isdigit():
            found[int(words[1].split(":")[1], 16)] = int(words[4].split(":")[0], 16)
    return found


def backlog(text, ports, placed):
    """{VIF: bytes that its flows wait to send}; ports: {flow: port}, placed: {flow: VIF}."""
    waiting, found = unsent(text), {}
    for flow, vif in placed.items():
        found[vif] = found.get(vif, 0) + waiting.get(ports[flow], 0)
    return found


def by(cells, name):
    """{value of this field: {round: cell}}"""
    found = {}
    for cell in cells:
        found.setdefault(cell[name], {})[cell["round"]] = cell
    return found


# --- the parts of the result ---------------------------------------------------------------------

def total_rate(cells):
    """{VIFs: rate with its spread, ratio to the smallest number of VIFs}"""
    rounds = by(cells, "vifs")
    found = {}
    for vifs in sorted(rounds):
        base = rounds[min(rounds)]
        found[vifs] = {"per_s": spread(cell["per_s"] for cell in rounds[vifs].values()),
                       "mbit_per_s": spread(cell["mbit_per_s"] for cell in rounds[vifs].values()),
                       "ratio": ratio(rounds[vifs], base, "per_s")}
    return found


def fairness(cells):
    """Jain's index where weights are equal, the worst share where they are not."""
    found = {}
    for load, rounds in by(cells, "load").items():
        one = {"cells": len(rounds),
               "not_backlogged": sum(not cell["backlogged"] for cell in rounds.values()),
               "port_used": spread(cell["port_used"] for cell in rounds.values())}
        weights = next(iter(rounds.values()))["weights"]
        amounts = [list(cell["bytes"].values()) for cell in rounds.values()]
        one["weights"] = weights
        one["shares"] = [spread(column) for column in zip(*(shares(row) for row in amounts))]
        one["worst_error"] = spread(worst(share_errors(row, weights)) for row in amounts)
        if len(set(weights)) == 1:
            one["jain"] = spread(jain(row) for row in amounts)
        found[load] = one
    return found


def round_trips(cells, pairs):
    """Per load the percentiles; for each (name, load, load to compare with) the ratios."""
    rounds = by(cells, "load")
    found = {"loads": {}, "ratio": {}}
    for load in sorted(rounds):
        found["loads"][load] = {name: spread(cell[name] for cell in rounds[load].values())
                                for name in ("p50_us", "p90_us", "p99_us", "dropped")}
    for name, mine, base in pairs:
        if mine in rounds and base in rounds:
            found["ratio"][name] = {part: ratio(rounds[mine], rounds[base], part)
                                    for part in ("p50_us", "p99_us")}
    return found
