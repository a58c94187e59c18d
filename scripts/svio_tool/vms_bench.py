# SPDX-License-Identifier: GPL-2.0-or-later
""""bench scaling --vms": VMs on one board, beside the same VMs on QEMU's own ways to join VMs."""
import shlex
import textwrap
import time

from svio_tool import host, ui, vms_lab
from svio_tool.demo import ManyNoise, Writer, figures, finish, host_facts, noise_text, table
from svio_tool.latency import ratio
from svio_tool.scaling_stats import by, spread
from svio_tool.ui import SvioError
from svio_tool.vms_lab import SVIO, WAYS, Lab, Settings

# {kind of cell: (figure, whether more is better)}
FIGURES = {"trip": ("p50_us", False), "tcp": ("stream_mbit_per_s", True), "rate": ("per_s", True)}
OTHERS = {"ratio": [way for way in WAYS if way is not SVIO and not way.straight],
          "straight": [way for way in WAYS if way.straight]}


def empty_result(settings, rounds, seed):
    return {"host": {}, "rounds": rounds, "seed": seed, "complete": False, "qemu_lines": {},
            "window_s": settings.seconds, "board_cores": settings.cores,
            "ways": {way.name: way.title for way in settings.ways}, "cells": {}, "vms": {}}


# --- figures ------------------------------------------------------------------------------------

def best(rounds, ways, name, more):
    """{round: cell} of whichever of these ways was best in each round; rounds: {way: {round: cell}}."""
    found = {}
    for way in ways:
        for number, cell in rounds.get(way.name, {}).items():
            if number not in found or (cell[name] > found[number][name]) == more:
                found[number] = cell
    return found


def fill(result, cells):
    """{"vms": {N: {"ways": {way: figures}, "ratio": {kind: ...}, "straight": {kind: ...}}}}, both ratios of
    svio: to the best of the ways that join any number of VMs, and of those that join only two, in the same
    round."""
    result["cells"] = cells
    result["vms"] = {}
    for kind, (name, more) in FIGURES.items():
        for count, rounds in sorted(by_count(cells[kind]).items()):
            here = result["vms"].setdefault(count, {"ways": {}, "ratio": {}, "straight": {}})
            for way, one in rounds.items():
                here["ways"].setdefault(way, {})[kind] = {
                    figure: spread(cell[figure] for cell in one.values()) for figure in
                    (("p50_us", "p90_us", "p99_us") if kind == "trip" else (name,))}
            for key, ways in OTHERS.items():
                here[key][kind] = ratio(rounds.get(SVIO.name, {}), best(rounds, ways, name, more), name)


def by_count(cells):
    """{VMs: {way: {round: cell}}}"""
    found = {}
    for cell in cells:
        found.setdefault(cell["vms"], []).append(cell)
    return {count: by(some, "way") for count, some in found.items()}


# --- what is said --------------------------------------------------------------------------------

def tables(result):
    ui.say("\nBetween VMs, medians over the rounds (in brackets: the smallest and the largest of a round).\n"
           f"Round trips of {vms_lab.RTT_SIZE} bytes in microseconds; TCP streams and {vms_lab.TX_SIZE}-byte "
           "datagrams that a program has\nreceived, all pairs of VMs at once. One VM: from one NIC of it to "
           "another.")
    rows = []
    for count, found in result["vms"].items():
        for way in result["ways"]:
            kinds = found["ways"].get(way)
            if not kinds:
                continue        # one VM has nobody to be joined to straight
            rows.append([str(count), result["ways"][way], *_both(kinds["trip"]["p50_us"]),
                         f"{kinds['trip']['p99_us']['value']:,.0f}",
                         *_both(kinds["tcp"]["stream_mbit_per_s"]), *_both(kinds["rate"]["per_s"])])
    table(["VMs", "", "p50", "", "p99", "TCP Mbit/s", "", "datagrams/s", ""], rows)
    ui.say("\nsvio to the best way of QEMU's in the same round")
    table(["VMs", "of those that", "p50", "TCP", "datagrams"],
          [[str(count), words, *(_ratio(found[key][kind]) for kind in FIGURES)]
           for count, found in result["vms"].items()
           for key, words in (("ratio", "join any number"), ("straight", "join two"))])


def _both(found):
    return [f"{found['value']:,.0f}", f"({found['min']:,.0f}..{found['max']:,.0f})"]


def _ratio(found):
    return f"{found['value']:.2f} ({found['min']:.2f}..{found['max']:.2f})" if found else "-"


def reading(result):
    """The tables in words."""
    facts = result["host"]
    accel = "TCG, which emulates the guests' CPUs" if facts["accel"] == "tcg" else facts["accel"].upper()
    few = 2 if 2 in result["vms"] else min(result["vms"])
    ratios = result["vms"][few]["ratio"]
    parts = [f"How to read this: on {facts['cores']} cores with {accel}, a 64-byte round trip between {few} "
             f"VMs on one board takes {ratios['trip']['value']:.2f} of what it takes on the best of QEMU's "
             f"own ways to join any number of VMs, TCP is {ratios['tcp']['value']:.1f} times as fast, and "
             f"programs receive {ratios['rate']['value']:.2f} times as many datagrams.",
             "A segment of TCP goes from VIF to VIF whole (up to 64 KiB); QEMU's sockets carry frames of "
             "1,500 bytes. Who sends datagrams without regard to the receiver keeps a CPU from it: that rate "
             "says who gets the CPU as much as what a NIC can do.",
             f"With more VMs than cores ({facts['cores']}) all wait for a CPU, whatever the NIC.",
             "A ratio holds for this host only. " + noise_text(facts)]
    return textwrap.fill(" ".join(parts), 100)


# --- the verb ------------------------------------------------------------------------------------

def measure(settings, result, writer):
    with Lab(settings) as lab:
        command = lab.fleet.vm(1).command()
        result["qemu_lines"] = {"vm1": shlex.join(command), "hub": shlex.join(lab.hub_line)}
        result["host"].update(host_facts(command))
        noise = ManyNoise(lab)

        def on_round(cells):
            fill(result, cells)
            result["host"]["others_cores"] = noise.others()
            writer.write(result)
        vms_lab.measure(lab, result["rounds"], result["seed"], on_round)
        problems = lab.problems()
    if problems:
        raise SvioError("A guest's kernel complained during the measurement", "\n".join(problems))


def run(args, rounds, seed, settings=Settings()):
    need, free = settings.vms * vms_lab.MEMORY, host.memory_mib()
    if need > free:
        raise SvioError(f"{settings.vms} VMs of {vms_lab.MEMORY} MiB need more memory than is free here "
                        f"({free} MiB).")
    result, begin, writer = empty_result(settings, rounds, seed), time.monotonic(), Writer(args.json)
    with figures(args.json, result):
        writer.write(result)        # says now that a file cannot be written
        ui.say(f"{rounds} rounds in an order shuffled with seed {seed}: VM to VM in {len(settings.ways)} "
               f"ways, with {', '.join(map(str, settings.counts))} VMs.")
        measure(settings, result, writer)
        finish(result, writer, begin, (tables,), reading)
    return 0
