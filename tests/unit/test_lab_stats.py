# SPDX-License-Identifier: GPL-2.0-or-later
"""What svio bench computes, on data whose answer is known, and what it refuses before it starts."""
import argparse
import contextlib
import functools
import io
import json
import math
import os
import socket
import sys
import tempfile
import threading
import time
import types
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from svio_tool import anatomy, bench, cli, lab, lab_bench  # noqa: E402 (the path comes first)
from svio_tool import lab_stats, latency  # noqa: E402
from svio_tool.ui import SvioError  # noqa: E402

TRACE = """\
memory_region_ops_write cpu 0 mr 0x55d0 addr 0xd080 value 0x0 size 2 name 'pcnet-io'
memory_region_ops_read cpu 0 mr 0x55d0 addr 0xd082 value 0x0 size 2 name 'pcnet-io'
memory_region_ops_write cpu 0 mr 0x55d1 addr 0xfee000b0 value 0x0 size 4 name 'apic-msi'
virtio_queue_notify vdev 0x1 n 1 vq 0x5
virtio_queue_notify vdev 0x1 n 1 vq 0x5
virtio_queue_notify vdev 0x2 n 0 vq 0x6
"""
STRACE = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000300           3       100         7 futex
 40.00    0.000200           2        50           ppoll
------ ----------- ----------- --------- --------- ----------------
100.00    0.000500           3       150         7 total
"""
SNMP = "Ip: Forwarding\nIp: 1\nUdp: InDatagrams NoPorts InErrors OutDatagrams\nUdp: 10 20 3 99\n"


def cell(number, approach, p50, **more):
    return {"round": number, "approach": approach, "kind": "rtt", "size": 64, "p50_us": p50,
            "p99_us": 2 * p50, "messages": 1000, "interrupts": 2000,
            "cpu_s": {"vcpu": 0.5, "qemu_other": 0.1, "peer": 0.2},
            "switches": {"vcpu": 3000}, "wakeups": {"vcpu": 2000}, "histogram": {}, **more}


class Figures(unittest.TestCase):
    def test_bootstrap(self):
        self.assertEqual(lab_stats.bootstrap([5.0] * 9), {"value": 5, "low": 5, "high": 5, "rounds": 9})
        self.assertEqual(lab_stats.bootstrap([1.0, 4.0, 2.0]), {"value": 2, "low": 1, "high": 4, "rounds": 3})
        self.assertEqual(lab_stats.bootstrap([7.0]), {"value": 7, "low": None, "high": None, "rounds": 1})

    def test_quantiles_of_a_histogram(self):
        step = int(math.log2(100) * lab_stats.STEPS)
        whole = lab_stats.merged([{step: 98}, {str(step + 32): 2}, {step: 0}])      # 100 us, and 400 us
        self.assertAlmostEqual(lab_stats.quantile(whole, 0.5) / 100, 1, delta=0.05)
        self.assertAlmostEqual(lab_stats.quantile(whole, 0.98) / 100, 1, delta=0.05)
        self.assertAlmostEqual(lab_stats.quantile(whole, 0.999) / 400, 1, delta=0.05)
        self.assertEqual([part for _, part in lab_stats.tail(whole)], [1.0, 0.02])

    def test_summary(self):
        guest = [cell(n, name, p50 * n) for n in (1, 2, 3) for name, p50 in (("virtio", 100), ("e1000", 300))]
        xen = [cell(1, "xen-split", 1000), cell(1, "xen-vif", 250)]
        found = lab_stats.summary({"guest": guest, "xen": xen})
        self.assertEqual(found["e1000"]["rtt_64"]["ratio"]["p50_us"],
                         {"value": 3, "low": 3, "high": 3, "rounds": 3})
        self.assertEqual(found["e1000"]["rtt_64"]["p50_us"]["value"], 600)
        self.assertEqual(found["xen-vif"]["rtt_64"]["ratio"]["p50_us"]["value"], 0.25)
        emulated = [cell(1, "xen-emulated-virtio", 100), cell(1, "xen-emulated-net", 150)]
        found = lab_stats.summary({"guest": guest, "xen": xen, "xen-emulated": emulated})
        self.assertEqual(found["xen-emulated-net"]["rtt_64"]["ratio"]["p50_us"]["value"], 1.5)
        # What was measured in another machine is not the fastest of this one.
        self.assertFalse(lab_stats.fastest(found, "rtt_64", "p50_us", False)["approach"].startswith("xen-"))
        self.assertEqual(found["virtio"]["rtt_64"]["per_message"],
                         {"interrupts": 2, "cpu_us_vcpu": 500, "cpu_us_qemu_other": 100, "cpu_us_peer": 200,
                          "switches_vcpu": 3, "wakeups_vcpu": 2})
        best = lab_stats.fastest(found, "rtt_64", "p50_us", False)
        self.assertEqual((best["approach"], best["second"], best["apart"]), ("virtio", "e1000", False))

    def test_headlines(self):
        """Ratios of what verdicts are made of; a base has none, nor has what was measured once."""
        cells = [cell(n, name, p50) for n in (1, 2) for name, p50 in
                 (("virtio", 100), ("e1000", 200 + n), ("svio-native", 50))]
        cells += [cell(1, name, 100, kind="tx", size=1400, per_s=5) for name in ("virtio", "e1000")]
        found = lab_stats.headlines(lab_stats.summary({"guest": cells}))
        self.assertEqual({key: (one["low"], one["high"]) for key, one in found.items()},
                         {("e1000", "rtt_64", "p50_us"): (2.01, 2.02),
                          ("svio-native", "rtt_64", "p50_us"): (0.5, 0.5)})

    def test_overlap_of_headlines(self):
        def run(*ratios):
            return lab_stats.summary({"guest": [cell(n, name, p50) for n, p50s in enumerate(ratios, 1) for
                                                name, p50 in zip(("virtio", "e1000", "pcnet"), (1, *p50s))]})
        first = run((2, 5), (3, 6))
        self.assertEqual(lab_stats.overlaps(first, run((3, 7), (4, 8))),
                         ([("e1000", "rtt_64", "p50_us")], [("pcnet", "rtt_64", "p50_us")]))
        self.assertEqual(lab_stats.overlaps(run((3, 7), (4, 8)), first)[1], [("pcnet", "rtt_64", "p50_us")])

    def test_stages(self):
        # Of a bucket from 96 on, the next of which begins at 112; three in four messages are in it.
        self.assertEqual(lab_stats.stage_quantile({"1792": 1, "96": 3}, 0.5), 104)
        self.assertEqual(lab_stats.stage_quantile({96: 3, 1792: 1}, 0.99), 1920)
        self.assertEqual(lab_stats.stage_quantile({3: 1}, 0.5), 3)
        self.assertIsNone(lab_stats.stage_quantile({}, 0.5))

    def test_cpu_of_a_gigabit(self):
        one = cell(1, "virtio", 1, kind="tx", size=1208, per_s=1, mbit_per_s=1, messages=100000)
        # 100,000 frames of 1,250 bytes are a gigabit.
        self.assertAlmostEqual(lab_stats.costs([one])["cpu_s_per_gbit_vcpu"], 0.5)


class Reading(unittest.TestCase):
    def test_accesses(self):
        self.assertEqual(anatomy.count_accesses(TRACE, [(0xd080, 0xd09f)]), {"reads": 1, "writes": 1})
        self.assertEqual(anatomy.count_accesses(TRACE, []), {"reads": 0, "writes": 0})
        self.assertEqual(anatomy.count_notifies(TRACE), 2)

    def test_strace(self):
        self.assertEqual(anatomy.parse_strace(STRACE), {"futex": 100, "ppoll": 50})

    def test_stage_difference(self):
        def board(*counts):
            cores = {str(n): {"polls": 9, "stage_times": {"send": {"picked_up": {"96": count, "8": 1}}}}
                     for n, count in enumerate(counts)}
            return {"cores": cores, "port": {"unclaimed": 1}}
        self.assertEqual(lab.stage_difference(board(1, 2), board(4, 2)), {"send/picked_up": {96: 3}})
        self.assertEqual(lab.stage_difference(board(1, 2), board(4, 7)), {"send/picked_up": {96: 8}})
        self.assertEqual(lab.stage_difference({"cores": {}}, {"cores": {}}), {})
        self.assertEqual(latency.board_difference(board(1), board(4)), {"polls": 0, "unclaimed": 0},
                         "buckets are no counters")

    def test_a_flood_is_counted_from_outside_of_it(self):
        """A flood can leave a guest no time for a program: what is counted from within loses what came before
        the program could look, and of a starved guest saw nothing at all."""
        said = []
        counts = iter((1000, 1700))

        def get(name):
            if name == "/proc/interrupts":
                return b" 24: 5 0 MSI\n"
            said.append("look")
            return f"Udp: InDatagrams NoPorts InErrors\nUdp: 0 {next(counts)} 0\n".encode()

        def ask(words):
            said.append(words.split()[-1] if words.startswith("flood") else words)
            return {"wires": {"w": {"flood_sent": 900}}, "cpu_s": 1.0}
        one = lab.Lab(("virtio",))
        row = types.SimpleNamespace(key="virtio", wire="w", mac="m", guest_ip="i", on_board=False,
                                    port="netdev", on_tap=False)
        one.device_irqs = {"virtio": {"24"}}
        one.peer = types.SimpleNamespace(ask=ask)
        one.vm = types.SimpleNamespace(get=get, pid=os.getpid(), thread_cpu_seconds=lambda: {})
        found = one.cell(row, "rx", wait=lambda seconds: said.append("window"))
        self.assertEqual([word for word in said if word != "counters"],
                         ["reset", "look", str(lab.BIG), "window", "off", "look"])
        self.assertEqual(found["messages"], 700)
        self.assertAlmostEqual(found["per_s"] * found["seconds"], 700)

    def counter(self, *lines):
        """A socket that says these lines, one to each who connects."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(listener.close)
        listener.bind(f"{folder.name}/instructions")
        listener.listen(4)

        def serve():
            for line in lines:
                link, _ = listener.accept()
                link.sendall(line.encode())
                link.close()
        thread = threading.Thread(target=serve)
        thread.start()
        self.addCleanup(thread.join)
        return f"{folder.name}/instructions"

    def test_anatomy_of_a_nic_that_stalls(self):
        """It gets further tries, alone; one that fails in each is a reason, and no end of the others."""
        rows = [types.SimpleNamespace(key=key) for key in ("good", "slow", "bad", "gone")]
        armed, tried = [], []
        one = types.SimpleNamespace(rows=rows, not_run={"gone": "x"}, vm=types.SimpleNamespace(
            check_alive=lambda: None), arm=lambda plan: armed.append([row.key for row, _ in plan]))

        def window(_, row, found):
            tried.append(row.key)
            if row.key == "bad" or (row.key == "slow" and tried.count("slow") < 2):
                raise SvioError("It stalled.")
            found["count"] = 1
        found, gone = {}, {}
        anatomy.each(one, "copies", window, found, gone, lambda text: None,
                     last=lambda lab, row, found: window(lab, row, found) or found.update(last=1))
        self.assertEqual(armed, [["good", "slow", "bad"], ["slow", "bad"], ["bad"]])
        self.assertEqual((found["good"], found["slow"]), ({"count": 1}, {"count": 1}))
        self.assertEqual(gone, {"copies of bad": "It stalled."})

    def partly(self, messages, instructions=()):
        """A NIC of which the peer sees these numbers of messages, look by look."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        trace, looks, killed = Path(folder.name) / "trace", iter(messages), []

        def qmp(_, name, enable):
            if enable:
                trace.write_text(TRACE)     # of which two are the NIC's

        def ask(word):
            return {"wires": {"w": {"udp_echo": next(looks, messages[-1])}}} if word == "counters" else {}
        row = types.SimpleNamespace(key="pcnet", wire="w", nic="pcnet", port="netdev")
        place = self.counter(*instructions)
        one = types.SimpleNamespace(
            seconds=60, resources={"pcnet": [(0xd080, 0xd09f)]}, trace_path=lambda: trace,
            counts_instructions=lambda: bool(instructions), peer=types.SimpleNamespace(ask=ask),
            instructions_path=lambda: place, vm=types.SimpleNamespace(
                qmp=qmp, spawn=lambda words: types.SimpleNamespace(kill=lambda: killed.append(words))))
        found = {}
        anatomy._counted_until_it_stalls(one, row, found)
        self.assertEqual(len(killed), 1)
        self.assertIn("w-64.pid", killed[0])
        return found

    def test_anatomy_until_it_stalls(self):
        """The messages until none comes any more, and what was executed from the first look on to the last
        that brought one."""
        self.assertEqual(self.partly([0, 10, 10, 40], ["1000\n", "7000\n"]),
                         {"accesses": {"reads": 1 / 40, "writes": 1 / 40}, "doorbells": 0,
                          "instructions": 200})
        self.assertNotIn("instructions", self.partly([10, 40]))
        for looks, number in (([5, 5], 5), ([5, 24], 24)):
            with self.assertRaisesRegex(SvioError, f"pcnet: it stalls after {number} messages"):
                self.partly(looks)

    def test_doorbells(self):
        """By their registers; pcnet's data port is one with the bit for it only."""
        def trace(*writes):
            return "".join(f"memory_region_ops_write cpu 0 mr 0x1 addr {address:#x} value {value:#x} size 4 "
                           "name 'x'\n" for address, value in writes)
        count = anatomy.count_doorbells
        pcnet = trace((0xd090, 0x48), (0xd090, 0x40), (0xd094, 0x8), (0xe090, 0x8))
        self.assertEqual(count(pcnet, [(0xd080, 0xd09f)], "pcnet"), 1)
        e1000 = trace((0xfeb02818, 0), (0xfeb03818, 7), (0xfeb000d0, 7)) + TRACE
        for nic in ("e1000", "e1000e", "igb"):
            self.assertEqual(count(e1000, [(0xfeb00000, 0xfeb1ffff), (0xd000, 0xdfff)], nic), 2)
        vmxnet3 = trace((0xfe600, 1), (0xfe800, 1), (0xfe000, 1))
        self.assertEqual(count(vmxnet3, [(0xfe000, 0xfefff)], "vmxnet3"), 2)
        self.assertEqual(count(TRACE, [], "virtio-net-pci"), 2)
        self.assertIsNone(count(e1000, [], "svio-nic"))

    def test_vhosts_doorbells(self):
        found, row = {}, types.SimpleNamespace(key="vhost", nic="virtio-net-pci", port="vhost")
        anatomy._keep_accesses(types.SimpleNamespace(resources={"vhost": [(0, 9)]}), row, TRACE, 1, found)
        self.assertEqual(found, {})
        row.port = "tap"
        anatomy._keep_accesses(types.SimpleNamespace(resources={"vhost": [(0, 9)]}), row, TRACE, 1, found)
        self.assertEqual(found, {"accesses": {"reads": 0, "writes": 2}, "doorbells": 2})

    def held(self, *failures):
        """Programs of two VMs that share a CPU, of which these attempts fail at this step of that VM."""
        said, failures = [], list(failures)

        def run(number, command, timeout, check, stdin=None):
            step = command.rpartition("&& ")[2]
            said.append((number, step))
            fails = bool(failures) and failures[0] == (number, step)
            if fails:
                failures.pop(0)
            return types.SimpleNamespace(rc=int(fails), out="./a.out", err="")
        vms = [types.SimpleNamespace(run=functools.partial(run, number)) for number in (1, 2)]
        with mock.patch.object(latency, "PAUSE", 0):
            latency.arm_each({Named(vm): "a sockperf\n" for vm in vms})
        return said

    def test_programs_that_start_together(self):
        """All are launched, then all looked at; from the beginning where one was not held in time."""
        whole = [(1, "launch"), (2, "launch"), (1, "held"), (2, "held")]
        self.assertEqual(self.held(), whole)
        self.assertEqual(self.held((2, "held")), whole * 2)
        self.assertEqual(self.held((2, "launch"), (1, "held")), whole[:2] + whole[:3] + whole)
        with self.assertRaisesRegex(SvioError, "could not be started in time 3 times"):
            self.held(*[(1, "held")] * 3)

    def test_instructions(self):
        path = self.counter("1000 50\n", "9000 50\n", "9000\n", "nonsense\n")
        echoed = iter((10, 30, 30))
        peer = types.SimpleNamespace(ask=lambda word: {"wires": {"w": {"udp_echo": next(echoed)}}})
        counter = anatomy.Instructions(types.SimpleNamespace(peer=peer, instructions_path=lambda: path),
                                       types.SimpleNamespace(wire="w", key="virtio"))
        counter.wait(0.01)
        self.assertEqual(counter.per_message(), 400)
        counter.samples.pop(0)
        counter.sample()
        with self.assertRaisesRegex(SvioError, "no message between two looks"):
            counter.per_message()
        for where in (path, path + "-missing"):
            with self.assertRaisesRegex(SvioError, "counter of instructions does not answer"):
                anatomy.read_instructions(where)

    def test_scheduled(self):
        """Who waits is woken up: that is one of its switches, and it counts up."""
        before = lab.scheduled(os.getpid())
        time.sleep(0.001)
        after = lab.scheduled(os.getpid())
        self.assertGreater(sum(after["wakeups"].values()), sum(before["wakeups"].values()))
        self.assertEqual(after["switches"].keys(), after["wakeups"].keys())
        for name, count in after["wakeups"].items():
            self.assertLessEqual(count, after["switches"][name])

    def test_nothing_to_hold(self):
        with mock.patch.object(latency.time, "sleep") as sleep:
            latency.arm_each({})
        sleep.assert_not_called()

    def test_guest(self):
        self.assertEqual(lab.udp_received(SNMP), 33)
        self.assertEqual(lab.ranges("0xd080 0xd09f 0x40101\n0x0 0x0 0x0\n"), [(0xd080, 0xd09f)])


class Named:
    """A VM that can be a key, as those of the lab can."""

    def __init__(self, vm):
        self.run = vm.run


class Options(unittest.TestCase):
    def parse(self, *words):
        parser = argparse.ArgumentParser()
        bench.add_arguments(parser)
        return parser.parse_args(words)

    def test_options_before_and_after_scaling(self):
        for words in (("--json", "F", "scaling"), ("scaling", "--json", "F")):
            args = self.parse(*words, *(["--seed", "3"] if words[0] == "scaling" else []))
            self.assertEqual((args.bench, args.json), ("scaling", "F"))
        self.assertEqual(self.parse("--rounds", "2", "scaling").rounds, 2)

    def test_options_that_scaling_has_not(self):
        for words in (["--only", "virtio"], ["--no-xen"]):
            error = io.StringIO()
            with contextlib.redirect_stderr(error):
                self.assertEqual(cli.main(["bench", *words, "scaling"]), 1)
            self.assertIn("not for bench scaling", error.getvalue())

    def test_only(self):
        self.assertEqual(lab_bench.chosen("virtio, pcnet"), ("pcnet", "virtio"))
        self.assertEqual(lab_bench.chosen(None), lab.NAMES)
        quick = lab_bench.chosen(None, True)
        self.assertEqual(set(lab.NAMES) - set(quick), {"virtio-tap", "svio-tap"})
        self.assertEqual(lab_bench.chosen("svio-tap", True), ("svio-tap",))
        for text in ("virtio,nonsense", "", ","):
            with self.assertRaisesRegex(SvioError, "--only wants names"):
                lab_bench.chosen(text)

    def test_loads_of_rounds(self):
        """Every load in each round; a quick run has the headlines in each, and some others once."""
        self.assertEqual([set(lab_bench.loads(n, False)) for n in (1, 9)], [set(lab.WHATS)] * 2)
        quick = [lab_bench.loads(n, True) for n in range(1, lab_bench.QUICK_ROUNDS + 1)]
        self.assertTrue(all(set(lab.HEADLINES) <= set(loads) for loads in quick))
        self.assertEqual(sorted(sum(quick, ())), sorted(lab.HEADLINES * len(quick) + lab_bench.QUICK_OTHERS))

    def test_places(self):
        with tempfile.TemporaryDirectory() as folder:
            lab_bench.check_places(types.SimpleNamespace(json=f"{folder}/a.json", report=f"{folder}/out"))
            with self.assertRaisesRegex(SvioError, "Cannot write .*missing/a.json"):
                lab_bench.check_places(types.SimpleNamespace(json=f"{folder}/missing/a.json", report=None))

    def test_full_disk(self):
        usage = lab_bench.shutil.disk_usage
        lab_bench.shutil.disk_usage = lambda folder: types.SimpleNamespace(free=1 << 20)
        try:
            with self.assertRaisesRegex(SvioError, "its disk is full"):
                lab_bench.check_places(types.SimpleNamespace(json="a.json", report=None))
        finally:
            lab_bench.shutil.disk_usage = usage

    def test_a_failing_xen_machine_is_a_reason(self):
        """Even when its clean-up fails in turn."""
        cause = SvioError("The guest did not boot.")

        def broken(*ignored):
            try:
                raise cause
            finally:
                raise KeyError("exited")
        result = lab_bench.empty_result(("virtio",), 1, 2, 1)
        kept = lab_bench.measure_xen, lab_bench.setup.ensure
        lab_bench.measure_xen, lab_bench.setup.ensure = broken, lambda names: 0
        try:
            lab_bench.run_xen(result, lab_bench.Writer(None), 1)
            lab_bench.run_machine(result, lab_bench.Writer(None), ["xen-emulated-net"], broken)
            cause = KeyboardInterrupt()
            with self.assertRaises(KeyboardInterrupt):
                lab_bench.run_xen(result, lab_bench.Writer(None), 1)
        finally:
            lab_bench.measure_xen, lab_bench.setup.ensure = kept
        names = ("xen-split", "xen-direct", "xen-vif", "xen-emulated-net")
        self.assertEqual(result["not_run"], {name: "The guest did not boot." for name in names})

    def test_a_machine_that_fails_late_is_said(self):
        result = lab_bench.empty_result(("virtio",), 1, 2, 1)

        def late():
            lab_bench.fill(result, "xen", [cell(1, "xen-split", 1000), cell(1, "xen-vif", 250)])
            raise SvioError("It ended.")
        lab_bench.run_machine(result, lab_bench.Writer(None), ("xen-split", "xen-vif"), late)
        self.assertEqual(result["not_run"], {"the rest of xen-split, xen-vif": "It ended."})

    def test_anatomy_of_another_machine(self):
        result = lab_bench.empty_result(("virtio",), 1, 2, 1)
        result["anatomy"] = {"xen-vif": {"accesses": 1}}
        lab_bench.keep_anatomy(result, {"vif": "xen-vif", "split": "xen-split"},
                               {"vif": {"copies": 2}, "split": {"copies": 3}}, {"system calls": "no strace"})
        self.assertEqual(result["anatomy"], {"xen-vif": {"accesses": 1, "copies": 2},
                                             "xen-split": {"copies": 3}})
        self.assertEqual(result["anatomy_not_counted"], {"system calls (xen-vif, xen-split)": "no strace"})

    def test_a_cell_of_the_nic_that_is_the_guests_own(self):
        """The card's board is not what its frames pass."""
        one = {"path": "direct", "kind": "rtt", "size": 64, "messages": 1, "board": {"bells": 1},
               "cpu_s": {"direct1": 1}, "host_cpu_s": {"vcpu": 2}, "interrupts": {"dom0": {}, "direct1": {}}}
        found = lab_bench.xen_cell(one)
        self.assertNotIn("board", found)
        self.assertEqual((found["approach"], found["cpu_s"]), ("xen-direct", {"vcpu": 2}))
        self.assertIn("board", lab_bench.xen_cell({**one, "path": "vif"}))

    def test_copies_by_grants(self):
        copies = {"memory": 0.91, "system_calls": 1.0, "grants": 0.545}
        self.assertEqual(lab_bench.copies_text({"copies": copies}), "0.9 + 1.0 + 0.5 by grants")
        self.assertEqual(lab_bench.copies_text({"copies": {**copies, "grants": 0.0}}), "0.9 + 1.0")
        self.assertEqual(lab_bench.copies_text({}), "-")

    def test_result_is_json(self):
        result = lab_bench.empty_result(("virtio",), 1, 2, 1)
        lab_bench.fill(result, "guest", [cell(1, "virtio", 100)])
        found = json.loads(json.dumps(result))["summary"]["virtio"]
        self.assertEqual(found["rtt_64"]["p50_us"]["value"], 100)


if __name__ == "__main__":
    unittest.main()
