# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb "demo": real traffic through the card, then its latency and rate beside virtio-net's."""
import contextlib
import json
import os
import random
import re
import shlex
import sys
import textwrap
import time
from pathlib import Path

from svio_tool import host, latency, transfer, ui
from svio_tool.latency import BASELINE, SIZES, TX_SIZE
from svio_tool.ui import SvioError

ROUNDS, QUICK_ROUNDS = 5, 2


def add_arguments(parser):
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE, - for standard output")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds in place of {ROUNDS}")
    parser.add_argument("--rounds", type=int, metavar="N", help="number of rounds")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the order in which NICs take turns")
    parser.add_argument("--idle", action="store_true",
                        help="measure, too, what the card costs a VM that does nothing (80 s more)")


# --- the host ------------------------------------------------------------------------------------

def _first(path, pattern):
    try:
        found = re.search(pattern, Path(path).read_text(), re.M)
    except OSError:
        return None
    return found[1].strip() if found else None


def host_facts(command):
    """What the figures depend on; "command" is QEMU's command line."""
    accel = command[command.index("-accel") + 1].split(",")[0]
    qemu = host.qemu_version()
    return {"cores": host.cores(), "cpu": _first("/proc/cpuinfo", r"^model name\s*:\s*(.*)$"),
            "kernel": os.uname().release, "distribution": host.os_release().get("PRETTY_NAME"),
            "qemu": ".".join(map(str, qemu)) if qemu else None, "accel": accel,
            "guest_kernel": _guest_kernel(command),
            "max_dgram_qlen": _first("/proc/sys/net/unix/max_dgram_qlen", r"(\d+)")}


def _guest_kernel(command):
    return re.sub(r"^vmlinuz-", "", Path(command[command.index("-kernel") + 1]).name)


class Noise:
    """How much CPU everybody but the bench used since the start, in cores."""

    def __init__(self, bench):
        self.bench = bench
        self.begin, self.busy, self.own = time.monotonic(), self._busy(), self._ours()

    def _ours(self):
        peer = self.bench.peer.ask("counters")["cpu_s"]
        return self.bench.vm.process_cpu_seconds() + peer + sum(os.times()[:2])

    @staticmethod
    def _busy():
        with open("/proc/stat") as handle:
            fields = [int(word) for word in handle.readline().split()[1:]]
        # user nice system idle iowait irq softirq steal
        return (sum(fields[:3]) + sum(fields[5:8])) / os.sysconf("SC_CLK_TCK")

    def others(self):
        spent = self._busy() - self.busy - (self._ours() - self.own)
        return max(0.0, spent / (time.monotonic() - self.begin))


class ManyNoise(Noise):
    """Of a bench that has several VMs and what they need: it says the CPU seconds of all of them."""

    def _ours(self):
        return sum(self.bench.cpu_s().values()) + sum(os.times()[:2])


# --- the JSON ------------------------------------------------------------------------------------

class Writer:
    """The JSON file is whole at any moment: it is replaced, never written into."""

    def __init__(self, name):
        self.name = name

    def write(self, value):
        if self.name in (None, "-"):
            return
        try:
            ui.replace_file(self.name, json.dumps(value, indent=1) + "\n")
        except OSError as error:
            raise SvioError(f"Cannot write {self.name}: {error.strerror}.") from error


@contextlib.contextmanager
def figures(name, result):
    """Figures for a program go to standard output ("-") alone, after the block; what people read makes
    way."""
    with contextlib.redirect_stdout(sys.stderr) if name == "-" else contextlib.nullcontext():
        yield
    if name == "-":
        print(json.dumps(result, indent=1))


UNSTEADY = 1.25     # times as slow


def noise_text(facts):
    text = (f"Other programs used {facts['others_cores']:.2f} cores meanwhile"
            + (": a noisy run, repeat it." if facts["others_cores"] > 0.2 else "."))
    if (facts.get("speed_spread") or 1) > UNSTEADY:
        text += (f" The host itself was {facts['speed_spread']:.1f} times as slow at one time as at "
                 "another (a chain of reads beside each measurement; its slowest and quickest tenth): others "
                 "share its caches. Ratios within a round bear it, single figures do not.")
    return text


def finish(result, writer, begin, tables, reading):
    """All is measured: the file says so, and people read the tables and what they mean."""
    result["complete"] = True
    result["seconds"] = time.monotonic() - begin
    writer.write(result)
    for one in tables:
        one(result)
    ui.say("\n" + reading(result))
    say_done(result, writer.name)


def say_done(result, name):
    ui.say(f"\nDone in {result['seconds']:.0f} s."
           + (f" The figures are in {name}." if name not in (None, "-") else ""))


def empty_result(rounds, seed):
    return {"latency": [], "ratio": {}, "tx": [], "counters": {}, "host": {}, "rounds": rounds, "seed": seed,
            "complete": False, "rtt": "full round trip, microseconds", "transfer": None, "cells": []}


def fill(result, cells):
    """The figures of the whole rounds so far."""
    result["cells"] = cells
    result["latency"] = [
        {name: cell[name] for name in ("nic", "port", "size", "p50_us", "p90_us", "p99_us", "round")}
        for cell in cells if cell["kind"] == "rtt"]
    result["tx"] = [
        {name: cell[name] for name in ("nic", "port", "size", "per_s", "datagrams", "sent", "lost", "seconds",
                                       "longest_gap_ms", "round")}
        for cell in cells if cell["kind"] == "tx"]
    result["ratio"] = latency.ratios(cells)
    result["counters"] = latency.counters(cells)


# --- the tables ----------------------------------------------------------------------------------

def table(head, rows):
    """Aligned columns; the first two are text."""
    rows = [head, *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        cells = [cell.ljust(width) if column < 2 else cell.rjust(width)
                 for column, (cell, width) in enumerate(zip(row, widths))]
        ui.say("  " + "  ".join(cells).rstrip())


# Of {"value", "min", "max"}, or None.
def range_text(found, form):
    return f"{found['min']:{form}}..{found['max']:{form}}" if found else "-"


def value_text(found, form):
    return f"{found['value']:{form}}" if found else "-"


def both(found, form):
    return [value_text(found, form), range_text(found, form)]


def spread_text(found, form):
    return "{} ({})".format(*both(found, form))


def ratio_text(value):
    """Of the alternative itself: 1."""
    return both(value, ".2f") if value else ["1", ""]


def latency_table(result):
    ui.say("\nRound trip of a UDP message, microseconds, medians over the rounds\n"
           "(netdev: QEMU's dgram netdev; native: the card's own port, which an on-board core polls)")
    rows = []
    for size in SIZES:
        for key in latency.keys_of(result["cells"]):
            cells = latency.pick(result["cells"], key, "rtt", size)
            rows.append(key.split("/") + [f"{size} B"]
                        + [f"{latency.median(cells, name):.1f}" for name in ("p50_us", "p90_us", "p99_us")]
                        + ratio_text(result["ratio"].get(key, {}).get(f"p50_{size}")))
    table(["NIC", "wire", "size", "p50", "p90", "p99", "p50 ratio", "single rounds"], rows)


def tx_table(result):
    ui.say(f"\n{TX_SIZE}-byte UDP datagrams that the guest sends and the peer receives")
    rows = []
    for key in latency.keys_of(result["cells"]):
        cells = latency.pick(result["cells"], key, "tx", TX_SIZE)
        rate = latency.median(cells, "per_s")
        lost = sum(cell["lost"] for cell in cells.values())
        gap = max(cell["longest_gap_ms"] for cell in cells.values())
        rows.append(key.split("/") + [f"{rate:,.0f}", f"{rate * TX_SIZE * 8 / 1e6:,.0f}", f"{lost}",
                                      f"{gap:.1f}"]
                    + ratio_text(result["ratio"].get(key, {}).get("tx")))
    table(["NIC", "wire", "per second", "Mbit/s", "lost", "longest pause ms", "ratio", "single rounds"], rows)


def counter_table(result):
    ui.say("\nWhat one message cost (a round trip, or a datagram sent), medians over the rounds")
    loads = [(f"rtt_{size}", f"{size} B trip") for size in SIZES] + [(f"tx_{TX_SIZE}", "sending")]
    rows = []
    for load, text in loads:
        for key, found in result["counters"].items():
            one = found[load]
            rows.append(key.split("/") + [text]
                        + [f"{one[name]:.3f}" if name in one else "-"
                           for name in ("doorbells", "interrupts", "sleeps", "empty_polls")]
                        + [f"{one[f'cpu_us_{name}']:.1f}"
                           for name in ("vcpu", "qemu_other", "on_board", "peer")])
    table(["NIC", "wire", "load", "doorbells", "interrupts", "sleeps", "empty polls", "vCPU us", "I/O us",
           "board us", "peer us"], rows)
    ui.say("  (CPU time of the guest's processor, QEMU's other threads, the on-board cores, the peer)")


def idle_text(found):
    return (f"\nIdle, percent of one core: {_median(found['with']):.2f} with the card, "
            f"{_median(found['without']):.2f} without, a difference of {found['difference']['value']:+.2f} "
            f"({found['difference']['min']:+.2f}..{found['difference']['max']:+.2f}) percentage points.")


def _median(values):
    return sorted(values)[len(values) // 2]


def reading(result):
    """The tables in words."""
    facts, cells = result["host"], result["cells"]
    base = latency.median(latency.pick(cells, "/".join(BASELINE), "rtt", 64), "p50_us")
    cpu = "TCG, which emulates the guest's CPU" if facts["accel"] == "tcg" else facts["accel"].upper()
    parts = [f"How to read this: on {facts['cores']} cores with {cpu}, a 64-byte round trip takes "
             f"{base:.0f} us through virtio-net-pci with its defaults."]
    for key, words in (("svio-nic/netdev", "Through the card on the same kind of netdev"),
                       ("svio-nic/native", "With the wire in the hands of the on-board core")):
        both = result["ratio"].get(key)
        if both:
            mine = latency.median(latency.pick(cells, key, "rtt", 64), "p50_us")
            parts.append(f"{words} it takes {mine:.0f} us, {both['p50_64']['value']:.2f} of that, and the "
                         f"guest sends {both['tx']['value']:.2f} times as many datagrams.")
    parts.append("What the NIC decides is how often one thread hands over to another: virtio-net's trip "
                 "passes QEMU's I/O thread twice, a polling on-board core spares that and pays with its own "
                 "CPU time (board us). The rest is the guest's own work (vCPU us), whatever the NIC. "
                 "A ratio holds for this host only; "
                 "its spread over the rounds is beside it. "
                 + noise_text(facts))
    return textwrap.fill(" ".join(parts), 100)


# --- the verb ------------------------------------------------------------------------------------

def rounds_of(args, usual, quick):
    rounds = getattr(args, "rounds", None)
    if rounds is None:
        return quick if getattr(args, "quick", False) else usual
    if not 1 <= rounds <= 1000:
        raise SvioError("--rounds wants a number from 1 to 1000.")
    return rounds


def _measure_latency(result, writer):
    """Fills the result round by round; what is there when it ends early stays."""
    with contextlib.ExitStack() as stack:
        with ui.Progress("a VM with all the NICs boots"):
            bench = stack.enter_context(latency.Bench())
        command = bench.vm.command()
        result["qemu_lines"]["latency"] = shlex.join(command)
        result["host"] = host_facts(command)
        result["host"]["guest_clocksource"] = bench.vm.run(
            "cat /sys/devices/system/clocksource/clocksource0/current_clocksource").out.strip()
        noise = Noise(bench)

        def on_round(cells):
            fill(result, cells)
            result["host"].update(others_cores=noise.others(), speed_spread=latency.speed_spread(cells))
            writer.write(result)

        latency.measure(bench, result["rounds"], result["seed"], on_round)
        problems = bench.vm.kernel_problems()
    if problems:
        raise SvioError("The guest's kernel complained during the measurement", "\n".join(problems))


def _run(args, result, writer):
    begin = time.monotonic()
    writer.write(result)        # says now, not after a minute, that a file cannot be written
    ui.say("1. Real traffic: a random file through the card and QEMU's user network, and back")
    result["transfer"] = transfer.measure()
    result["qemu_lines"]["transfer"] = shlex.join(result["transfer"].pop("qemu"))
    transfer.show(result["transfer"])
    writer.write(result)
    ui.say(f"\n2. Latency and rate beside virtio-net: {result['rounds']} rounds in one VM, each NIC on\n"
           "   its own wire to the same peer process, in an order shuffled with seed "
           f"{result['seed']}")
    _measure_latency(result, writer)
    if getattr(args, "idle", False):
        ui.say("\n3. What the card costs a VM that does nothing")
        result["idle"] = latency.idle_cost()
    finish(result, writer, begin, (latency_table, tx_table, counter_table, say_idle), reading)


def say_idle(result):
    if "idle" in result:
        ui.say(idle_text(result["idle"]))


def main(args, ctx=None):
    """The verb; "ctx" is not needed so far."""
    args.json = getattr(args, "json", None)
    seed = getattr(args, "seed", None)
    result = empty_result(rounds_of(args, ROUNDS, QUICK_ROUNDS),
                          random.randrange(1 << 32) if seed is None else seed)
    result["qemu_lines"] = {}
    with figures(args.json, result):
        _run(args, result, Writer(args.json))
    return 0
