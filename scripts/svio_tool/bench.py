# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb "bench": every approach side by side (lab_bench.py). "bench scaling": what many VIFs cost, how
fairly they share, and whether one disturbs another. "bench features": see bench_features.py."""
import argparse
import contextlib
import random
import shlex
import textwrap
import time

from svio_tool import bench_features, lab_bench, paths, scaling, scaling_stats, setup, ui, vms_bench
from svio_tool.demo import Noise, Writer, both, figures, finish, host_facts, noise_text, range_text, \
    rounds_of, spread_text, table, value_text
from svio_tool.scaling import Lab, Settings
from svio_tool.ui import SvioError

ROUNDS, QUICK_ROUNDS = 5, 2

# (name of the ratio, load, the load it is compared with)
ISOLATION = ("isolation", "flood-here", "flood-elsewhere")
TRIP_PAIRS = (ISOLATION, ("vifs_64", "vifs-64", "hub-64"), ("vifs_1400", "vifs-1400", "hub-1400"))


def add_arguments(parser):
    _common(parser, None, lab_bench.ROUNDS, lab_bench.QUICK_ROUNDS)
    lab = [parser.add_argument("--only", metavar="A,B",
                               help="these approaches: " + ", ".join(lab_bench.NAMES)),
           parser.add_argument("--report", metavar="DIR", help="write the report there, as svio report does"),
           parser.add_argument("--no-xen", action="store_true", help="without Xen's machine")]
    parser.set_defaults(lab_only=[one.dest for one in lab])
    kinds = parser.add_subparsers(dest="bench", metavar="scaling|features")
    line = "rate over 1 to 32 VIFs, fairness, isolation, and the latency from VIF to VIF (--vms: VM to VM)"
    verb = kinds.add_parser("scaling", help=line, description=line[0].upper() + line[1:] + ".")
    # What is said before "scaling" counts as well.
    _common(verb, argparse.SUPPRESS, ROUNDS, QUICK_ROUNDS)
    verb.add_argument("--vms", action="store_true",
                      help="in place of it: 1 to 8 VMs on one svio-board, beside QEMU's own ways to join VMs")
    line = "what offloads (segmentation, checksums) and queue pairs bring to TCP, of the same VIF"
    verb = kinds.add_parser("features", help=line, description=line[0].upper() + line[1:] + ".")
    _common(verb, argparse.SUPPRESS, bench_features.ROUNDS, bench_features.QUICK_ROUNDS)


def _common(parser, default, rounds, quick):
    parser.add_argument("--json", metavar="FILE", default=default,
                        help="write the figures to FILE, - for standard output")
    parser.add_argument("--quick", action="store_true", default=default,
                        help=f"{quick} rounds in place of {rounds}")
    parser.add_argument("--rounds", type=int, metavar="N", default=default, help="number of rounds")
    parser.add_argument("--seed", type=int, metavar="N", default=default,
                        help="seed of the order in which things take turns")


# --- measuring -----------------------------------------------------------------------------------

def empty_result(settings, rounds, seed):
    return {"host": {}, "rounds": rounds, "seed": seed, "complete": False, "qemu_lines": {},
            "flows": settings.flows, "size": settings.size, "window_s": settings.seconds,
            "cells": {}, "total_rate": {}, "trips": {}, "fairness": {}}


def fill(result, cells):
    """The figures of the whole rounds so far."""
    result["cells"].update(cells)
    if "rate" in cells:
        result["total_rate"] = scaling_stats.total_rate(cells["rate"])
        result["trips"] = scaling_stats.round_trips(cells["trip"], TRIP_PAIRS)
    if "share" in cells:
        result["fairness"].update(scaling_stats.fairness(cells["share"]))


@contextlib.contextmanager
def _lab(result, name, title, *args, **options):
    """The VM, and what is to be said of it; after each round its noise is noted as well."""
    with contextlib.ExitStack() as stack:
        with ui.Progress(title):
            lab = stack.enter_context(Lab(*args, name=f"scaling-{name}", **options))
        command = lab.vm.command()
        result["qemu_lines"][name] = shlex.join(command)
        result["host"].update(host_facts(command))
        yield lab, Noise(lab)
        problems = lab.vm.kernel_problems()
    if problems:
        raise SvioError("The guest's kernel complained during the measurement", "\n".join(problems))


def _collector(result, noise, writer):
    def on_round(cells):
        fill(result, cells)
        noisiest = max(result["host"].get("others_cores", 0), noise.others())
        result["host"]["others_cores"] = noisiest
        writer.write(result)
    return on_round


def measure(settings, result, writer):
    """Fills the result round by round; what is there when it ends early stays."""
    with _lab(result, "rate", "a VM with two boards and a hub boots", settings) as (lab, noise):
        scaling.measure(lab, result["rounds"], result["seed"], _collector(result, noise, writer))
    # With half of the least that any window carried the guest always has more to send than may go: the
    # scheduler decides. An emulated guest is twice as fast in one window as in another.
    least = min(rate["mbit_per_s"]["min"] for rate in result["total_rate"].values())
    limit = max(1, round(least / 2))
    result["fairness"]["port_mbps"] = limit
    with _lab(result, "fairness", f"a VM whose port is limited to {limit} Mbit/s boots", settings, limit,
              others=False) as (lab, noise):
        scaling.measure_fairness(lab, result["rounds"], result["seed"], _collector(result, noise, writer))


# --- the tables ----------------------------------------------------------------------------------

def rate_table(result):
    ui.say(f"\n1. {result['flows']} flows of {result['size']}-byte datagrams from one guest, which arrive at "
           "the peer, medians over the rounds")
    rows = [[str(vifs), f"{found['per_s']['value']:,.0f}", range_text(found["per_s"], ",.0f"),
             f"{found['mbit_per_s']['value']:,.0f}", *both(found["ratio"], ".2f")]
            for vifs, found in result["total_rate"].items()]
    table(["VIFs", "per second", "single rounds", "Mbit/s", "ratio to 1 VIF", "single rounds"], rows)


def fairness_table(result):
    found = result["fairness"]
    equal, weighted = found["equal"], found["weighted"]
    ui.say(f"\n2. The same flows against a port of {found['port_mbps']} Mbit/s, shares by the board's "
           "counters")
    total = sum(weighted["weights"])
    rows = [[f"VIF {vif}", str(weight), f"{weight / total:.4f}", *both(share, ".4f")]
            for vif, (weight, share) in enumerate(zip(weighted["weights"], weighted["shares"]), 1)]
    table(["", "weight", "textbook share", "share", "single rounds"], rows)
    ui.say(f"  largest deviation from the textbook's share: {spread_text(weighted['worst_error'], '.1%')}")
    ui.say(f"  Jain's index over {len(equal['weights'])} VIFs of the same weight: "
           f"{spread_text(equal['jain'], '.4f')}")


def trip_table(result):
    ui.say("\n3. Round trip of a quiet VIF to the peer, and 4. between two VIFs of the board or two\n"
           "   virtio-net NICs on a QEMU hub, microseconds, medians over the rounds")
    words = {"alone": ("quiet VIF", "alone"), "flood-here": ("quiet VIF", "another VIF flooded"),
             "flood-elsewhere": ("quiet VIF", "another board flooded"), "vifs-64": ("two VIFs", "64 B"),
             "hub-64": ("virtio-net on a hub", "64 B"), "vifs-1400": ("two VIFs", "1400 B"),
             "hub-1400": ("virtio-net on a hub", "1400 B")}
    loads = result["trips"]["loads"]
    rows = []
    for load, names in words.items():
        one = loads[load]
        rows.append([*names, *(value_text(one[name], ".1f") for name in ("p50_us", "p90_us", "p99_us")),
                     range_text(one["p99_us"], ".1f"), value_text(one["dropped"], ".0f"),
                     _flood(result, load)])
    table(["", "", "p50", "p90", "p99", "p99 of single rounds", "lost", "flood/s, taken"], rows)
    for name, text in ((TRIP_PAIRS[0][0], "flooded VIF beside it, to flooded board beside it"),
                       ("vifs_64", "two VIFs to virtio-net on a hub, 64 B"),
                       ("vifs_1400", "two VIFs to virtio-net on a hub, 1400 B")):
        found = result["trips"]["ratio"][name]
        p50, p99 = (spread_text(found[name], ".2f") for name in ("p50_us", "p99_us"))
        ui.say(f"  ratio, {text}: p50 {p50}, p99 {p99}")


def _flood(result, load):
    cells = [cell for cell in result["cells"]["trip"] if cell["load"] == load and "flood_sent_per_s" in cell]
    if not cells:
        return ""
    sent, taken = (scaling_stats.spread(cell[f"flood_{name}_per_s"] for cell in cells)
                   for name in ("sent", "delivered"))
    return f"{sent['value']:,.0f}, {taken['value']:,.0f}"


def reading(result):
    """The tables in words, and nothing that they do not say."""
    facts, rates, fair = result["host"], result["total_rate"], result["fairness"]
    trips = result["trips"]["ratio"]
    most = max(rates)
    windows = fair["equal"]["cells"] + fair["weighted"]["cells"]
    accel = "TCG, which emulates the guest's CPU" if facts["accel"] == "tcg" else facts["accel"].upper()
    late = fair["equal"]["not_backlogged"] + fair["weighted"]["not_backlogged"]
    parts = [
        f"How to read this: on {facts['cores']} cores with {accel}, {result['flows']} flows over {most} VIFs "
        f"together reach {rates[most]['ratio']['value']:.2f} of what they reach over {min(rates)}.",
        f"With the port limited, so that the scheduler decides, Jain's index is "
        f"{fair['equal']['jain']['value']:.3f} (1 is perfect), no weighted share is further than "
        f"{fair['weighted']['worst_error']['value']:.1%} from its weight's, and the port is used to "
        f"{min(fair[load]['port_used']['value'] for load in ('equal', 'weighted')):.0%}."
        + (f" In {late} of {windows} of these windows a VIF had "
           "nothing to send at the beginning or the end, so the guest and not the scheduler may have decided."
           if late else ""),
        f"While another VIF of its board is flooded a quiet VIF's p99 is "
        f"{trips['isolation']['p99_us']['value']:.2f} times what it is while the same guest's other board "
        "is.",
        f"A 64-byte round trip between two VIFs takes {trips['vifs_64']['p50_us']['value']:.2f} of one "
        "between two virtio-net NICs on a QEMU hub.",
        "A ratio holds for this host only; its spread over the rounds is beside it. " + noise_text(facts)]
    return textwrap.fill(" ".join(parts), 100)


# --- the verb ------------------------------------------------------------------------------------

def run(args, settings, result):
    begin, writer = time.monotonic(), Writer(args.json)
    writer.write(result)        # says now that a file cannot be written
    ui.say(f"{result['rounds']} rounds in an order shuffled with seed {result['seed']}: rate over "
           f"{', '.join(map(str, settings.counts))} VIFs, a quiet VIF beside a\nflooded one, and VIF to VIF; "
           "then, in a second VM with a limited port, how VIFs share it.")
    measure(settings, result, writer)
    finish(result, writer, begin, (rate_table, fairness_table, trip_table), reading)


def main(args):
    if args.bench is None:
        return lab_bench.main(args)
    for name in args.lab_only:
        if getattr(args, name):
            raise SvioError(f"--{name.replace('_', '-')} is for bench alone, not for bench {args.bench}.")
    seed = random.randrange(1 << 32) if args.seed is None else args.seed
    if args.bench == "features":
        rounds = rounds_of(args, bench_features.ROUNDS, bench_features.QUICK_ROUNDS)
        return bench_features.run(args, rounds, seed)
    setup.ensure(setup.for_vm(paths.DEFAULT_KERNEL))
    rounds = rounds_of(args, ROUNDS, QUICK_ROUNDS)
    if args.vms:
        return vms_bench.run(args, rounds, seed)
    settings = Settings()
    result = empty_result(settings, rounds, seed)
    with figures(args.json, result):
        run(args, settings, result)
    return 0
