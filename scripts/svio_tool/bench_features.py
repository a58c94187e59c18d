# SPDX-License-Identifier: GPL-2.0-or-later
""""bench features": what the card's offloads and its queue pairs bring to TCP, of the same VIF with and
without them, in turns.

Offloads are turned on and off with ethtool in one VM, on a TAP and on a wire of datagram sockets, both of
which the on-board core owns. For the queue pairs two VMs stand beside each other on TAPs of their own: one
with one vCPU and one pair, one with two vCPUs and four. TCP is iperf3's, to a host behind the wire's peer.
"""
import contextlib
import random
import shlex
import textwrap
import time
from dataclasses import replace

from svio_tool import setup, ui
from svio_tool.demo import ManyNoise, Writer, both, figures, finish, host_facts, noise_text, ratio_text, table
from svio_tool.lab import FIND_SH, KINDS, TCP, Lab
from svio_tool.latency import ratio
from svio_tool.paths import DEFAULT_KERNEL
from svio_tool.scaling import in_rounds
from svio_tool.scaling_stats import pick, spread
from svio_tool.ui import SvioError

ROUNDS, QUICK_ROUNDS = 5, 2
SECONDS = 2
WIRES = {"svio-tap": "TAP", "svio-native": "datagram sockets"}
STREAMS = 4                     # at once, where queue pairs are compared
# {feature: (the setting that others are compared with, the other)}
SETTINGS = {"offloads": ("off", "on"), "pairs": ("1 pair, 1 vCPU", "4 pairs, 2 vCPUs")}
TITLES = {"offloads": "offloads", "pairs": f"queue pairs, {STREAMS} streams"}
DIRECTIONS = {"tcp_tx": "out of the guest", "tcp_rx": "into the guest"}
SWITCHED = ("rx", "tx", "sg", "tso", "gso", "gro")
SEGMENTS = "tcp-segmentation-offload"
# What was measured before may leave frames and neighbours in another state: the first packet finds its way.
SWITCH_SH = r"""
dev=$(find_dev {mac}) || {{ echo "no interface has {mac}" >&2; exit 1; }}
ethtool -K $dev {words} || exit 1
ping -c 1 -W 5 -q {peer} >/dev/null || {{ echo "no answer from the wire" >&2; exit 1; }}
ethtool -k $dev
"""


class PairsLab(Lab):
    """A VM whose one VIF has so many queue pairs."""

    def __init__(self, pairs, vcpus, seconds):
        super().__init__(("svio-tap",), seconds, name=f"features-{pairs}", tcp=True)
        self.pairs, self.smp, self.streams = pairs, vcpus, STREAMS

    def _rows(self, folder):
        return [replace(row, approach=replace(row.approach, options=f"queues={self.pairs}"))
                for row in super()._rows(folder)]

    def _prepare_guest(self):
        super()._prepare_guest()
        for row in self.rows:
            used = self.vm.run(FIND_SH + f"ls /sys/class/net/$(find_dev {row.mac})/queues | grep -c tx").out
            if int(used) < min(self.pairs, self.smp):
                raise SvioError(f"The guest uses {used.strip()} of {self.pairs} queue pairs")


def switch(lab, row, setting):
    """Offloads of this row's VIF "on" or "off"."""
    words = " ".join(f"{name} {setting}" for name in SWITCHED)
    done = lab.vm.run(FIND_SH + SWITCH_SH.format(mac=row.mac, peer=row.peer_ip, words=words), check=False)
    if done.rc or f"{SEGMENTS}: {setting}" not in done.out.splitlines():
        raise SvioError(f"The offloads of {row.key} cannot be turned {setting}", done.out + done.err)


class Machines:
    """All VMs of a run."""

    def __init__(self, seconds=SECONDS):
        self.seconds, self.stack = seconds, contextlib.ExitStack()
        self.offloads, self.pairs = None, {}

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            with ui.Progress("a VM for the offloads boots"):
                self.offloads = stack.enter_context(Lab(tuple(WIRES), self.seconds, name="features",
                                                        tcp=True))
            self.check(self.offloads)
            with ui.Progress("VMs for the queue pairs boot"):
                for setting, (pairs, vcpus) in zip(SETTINGS["pairs"], ((1, 1), (4, 2))):
                    self.pairs[setting] = stack.enter_context(PairsLab(pairs, vcpus, self.seconds))
                    self.check(self.pairs[setting])
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *what):
        return self.stack.__exit__(*what)

    @staticmethod
    def check(lab):
        """All of it needs TCP, and a TAP."""
        if lab.no_tcp or lab.not_run:
            raise SvioError("What offloads and queue pairs bring cannot be measured here: "
                            + (lab.no_tcp or next(iter(lab.not_run.values()))))

    def labs(self):
        return [self.offloads, *self.pairs.values()]

    def plan(self):
        """[(feature, setting, row, direction)]"""
        found = [("offloads", setting, row, what) for setting in SETTINGS["offloads"]
                 for row in self.offloads.rows for what in TCP]
        return found + [("pairs", setting, lab.rows[0], what) for setting, lab in self.pairs.items()
                        for what in TCP]

    def cell(self, feature, setting, row, what):
        lab = self.offloads
        if feature == "offloads":
            switch(lab, row, setting)
        else:
            lab = self.pairs[setting]
        found = lab.cell(row, what)
        names = ("kind", "size", "stream_mbit_per_s", "retransmits", "messages", "cpu_s", "interrupts",
                 "switches", "wakeups", "board")
        return {"feature": feature, "setting": setting, "wire": row.key,
                **{name: found[name] for name in names}}

    def cpu_s(self):
        """CPU seconds so far."""
        return {"vms": sum(lab.vm.process_cpu_seconds() for lab in self.labs()),
                "peers": sum(lab.peer.ask("counters")["cpu_s"] for lab in self.labs())}

    def problems(self):
        return [line for lab in self.labs() for line in lab.vm.kernel_problems()]


# --- figures --------------------------------------------------------------------------------------

def fill(result, cells):
    """{"ratio": {"offloads svio-tap tcp_tx": ...}}: of the second setting to the first."""
    result["cells"] = list(cells)
    for feature, (base, other) in SETTINGS.items():
        for wire in WIRES:
            for kind in DIRECTIONS:
                found = [pick(cells, feature=feature, wire=wire, kind=kind, setting=setting)
                         for setting in (other, base)]
                if all(found):
                    result["ratio"][f"{feature} {wire} {kind}"] = ratio(*found, "stream_mbit_per_s")


def keys(result):
    """[(feature, wire, kind)] that were measured."""
    return [(feature, wire, kind) for feature in SETTINGS for wire in WIRES for kind in DIRECTIONS
            if f"{feature} {wire} {kind}" in result["ratio"]]


def tables(result):
    rows = []
    for feature, wire, kind in keys(result):
        for setting in SETTINGS[feature]:
            cells = pick(result["cells"], feature=feature, wire=wire, kind=kind, setting=setting)
            found = spread(cell["stream_mbit_per_s"] for cell in cells.values())
            other = setting != SETTINGS[feature][0]
            rows.append([f"{TITLES[feature]}, {WIRES[wire]}, {DIRECTIONS[kind]}", setting,
                         *both(found, ",.0f"),
                         *ratio_text(result["ratio"][f"{feature} {wire} {kind}"] if other else None)])
    ui.say("\nTCP (iperf3) of the same VIF, Mbit/s that were received: medians over the rounds")
    table(["", "", "median", "single rounds", "ratio", "single rounds"], rows)


def reading(result):
    facts, found = result["host"], result["ratio"]
    accel = "TCG, which emulates the guest's CPU" if facts["accel"] == "tcg" else facts["accel"].upper()
    tap, pairs_out, pairs_in = (found[key]["value"] for key in (
        "offloads svio-tap tcp_tx", "pairs svio-tap tcp_tx", "pairs svio-tap tcp_rx"))
    parts = [f"How to read this: on {facts['cores']} cores with {accel}, TCP leaves a guest on a TAP "
             f"{tap:.1f} times as fast when the card takes segments of up to 64 KiB whole and leaves "
             "checksums to others. On datagram sockets the on-board core cuts each segment into frames, so "
             "that the guest's part alone gets cheaper. Four queue pairs and two vCPUs carry "
             f"{pairs_out:.2f} times what one pair and one vCPU do ({pairs_in:.2f} into the guest); vCPUs, "
             "on-board core, peer and iperf3's server share the host's cores. " + noise_text(facts)]
    return textwrap.fill(" ".join(parts), 100)


# --- the verb -------------------------------------------------------------------------------------

def measure(result, writer):
    with Machines() as machines:
        for lab in machines.labs():
            result["qemu_lines"][lab.name] = shlex.join(lab.vm.command())
        result["host"] = host_facts(machines.offloads.vm.command())
        noise, shuffle, plan = ManyNoise(machines), random.Random(result["seed"]), machines.plan()

        def one(report):
            found = []
            for feature, setting, row, what in shuffle.sample(plan, len(plan)):
                report(f"{TITLES[feature]}, {setting}, {DIRECTIONS[KINDS[what]]}")
                found.append(("cells", machines.cell(feature, setting, row, what)))
            return found

        def on_round(cells):
            fill(result, cells["cells"])
            result["host"]["others_cores"] = noise.others()
            writer.write(result)
        in_rounds(result["rounds"], "TCP", one, on_round)
        problems = machines.problems()
    if problems:
        raise SvioError("A guest's kernel complained during the measurement", "\n".join(problems))


def run(args, rounds, seed):
    result = {"host": {}, "rounds": rounds, "seed": seed, "complete": False, "qemu_lines": {}, "cells": [],
              "window_s": SECONDS, "streams": STREAMS, "ratio": {}}
    begin, writer = time.monotonic(), Writer(args.json)
    with figures(args.json, result):
        writer.write(result)        # says now that a file cannot be written
        setup.ensure([*setup.for_vm(DEFAULT_KERNEL), "packages-bench"])
        ui.say(f"{rounds} rounds in an order shuffled with seed {seed}: TCP with and without offloads, and "
               "with one and four queue pairs.")
        measure(result, writer)
        finish(result, writer, begin, (tables,), reading)
    return 0
