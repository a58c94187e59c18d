# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb "bench", booted and small: an approach that is missing, and a run that is interrupted."""
import contextlib
import io
import json
import os
import signal
import subprocess
import tempfile
import time
import types
import unittest
from pathlib import Path

from svio_tool import compare, lab_bench, lab_stats
from svio_tool.lab import KINDS, WHATS
from svio_tool.paths import GUEST_SLOWNESS

SVIO = Path(__file__).resolve().parents[2] / "scripts" / "svio"


def load(path):
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


@unittest.skipIf(GUEST_SLOWNESS > 1, "it measures, which a guest that is slow on purpose is not for")
class TestLab(unittest.TestCase):
    svio_minutes = 3

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "out.json"

    def test_one_approach_is_missing(self):
        """The kernel refuses vmxnet3's module: a row with its reason, and all others are measured."""
        names = ("e1000", "virtio", "virtio-tap", "vmxnet3", "svio-native", "svio-tap")
        result = lab_bench.empty_result(names, 1, 7, 1)
        args = types.SimpleNamespace(json=str(self.path), report=None, no_xen=True)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            lab_bench.run(args, names, result, append="module_blacklist=vmxnet3")
        found = load(self.path)
        self.assertIs(found["complete"], True)
        self.assertIn("the guest has no driver", found["not_run"]["vmxnet3"])
        self.assertIn("Not run: vmxnet3: ", out.getvalue())
        self.assertIn("--no-xen", found["not_run"]["xen-split"])
        cells = found["cells"]["guest"]
        measured, kinds = set(names) - {"vmxnet3"}, set(KINDS.values())
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            # TAPs depend on it, and TCP's other end
            for name in ("virtio-tap", "svio-tap", "TCP (iperf3)"):
                self.assertIn("/dev/net/tun", found["not_run"][name])
            measured, kinds = measured - {"virtio-tap", "svio-tap"}, kinds - {"tcp_tx", "tcp_rx"}
        self.assertEqual({(cell["approach"], cell["kind"]) for cell in cells},
                         {(name, kind) for name in measured for kind in kinds})
        for cell in cells:
            self.check_cell(cell)
        for name in ("e1000", "virtio", "svio-native"):
            self.assertIn(f"id=nic-{name}", found["qemu_lines"]["guest"])
        self.check_anatomy(found["anatomy"])
        # What it writes, svio compare reads; of one round it decides nothing.
        with contextlib.redirect_stdout(out):
            self.assertEqual(compare.main(types.SimpleNamespace(
                before=str(self.path), after=str(self.path), absolute=False, tolerance=10, json=None)), 0)
        self.assertIn("a figure of one round decides nothing", out.getvalue())

    def check_cell(self, cell):
        self.assertGreater(cell["messages"], 0)
        self.assertGreaterEqual(cell["cpu_s"]["vcpu"], 0)
        if cell["kind"] in ("rtt", "loaded"):
            self.assertEqual(sum(cell["histogram"].values()), cell["samples"])
            self.assertTrue(0 < cell["p50_us"] <= cell["p99_us"], cell)
        elif cell["kind"].startswith("tcp"):
            self.assertGreater(cell["stream_mbit_per_s"], 0)
        else:
            self.assertGreater(cell["per_s"], 0)

    def check_anatomy(self, anatomy):
        """What does not depend on speed: e1000's registers are touched for each message, virtio's doorbell is
        rung, and a polled VIF hardly needs either."""
        self.assertGreater(sum(anatomy["e1000"]["accesses"].values()), 1)
        self.assertGreater(anatomy["virtio"]["accesses"]["writes"], 0.5)
        self.assertLess(sum(anatomy["svio-native"]["accesses"].values()), 0.5)
        for name in ("e1000", "virtio"):        # one for each message sent, and where it is out of buffers
            self.assertTrue(0.5 < anatomy[name]["doorbells"] <= anatomy[name]["accesses"]["writes"],
                            anatomy[name])
        self.assertNotIn("doorbells", anatomy["svio-native"])       # the board's own count is in the rounds
        for name in ("e1000", "virtio", "svio-native"):
            # sockperf, two system calls of the guest's, and a driver: no message takes fewer, or a million.
            self.assertTrue(1000 < anatomy[name]["instructions"] < 1000000, anatomy[name])
        # Once by a system call each way, and once in memory; what virtio-net sends goes from the guest's
        # memory to the kernel at once.
        for name, memory in (("e1000", 1), ("virtio", 0.5), ("svio-native", 1)):
            self.assertAlmostEqual(anatomy[name]["copies"]["memory"], memory, delta=0.1, msg=name)
            self.assertAlmostEqual(anatomy[name]["copies"]["system_calls"], 1, delta=0.1, msg=name)
        stages = anatomy["svio-native"]["stage_times"]
        for stage in lab_stats.STAGES:
            if stage != "send/signalled":       # a driver need not ask for it
                self.assertGreater(sum(stages[stage].values()), 100, stage)
        self.assertNotIn("stage_times", anatomy["virtio"])

    def start(self, *words):
        return subprocess.Popen([SVIO, "bench", "--no-xen", "--json", self.path, *words],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                start_new_session=True)

    def first_round(self, process):
        """Waits for the first whole round in the file: the result."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            found = load(self.path)
            if found and found["cells"]:
                return found
            time.sleep(0.2)
        self.fail(f"no round came: {process.communicate(timeout=5)[0] if process.poll() is not None else ''}")

    def end_of(self, process):
        try:
            return process.communicate(timeout=60)[0]
        finally:
            if process.poll() is None:
                process.kill()

    def wires(self, result):
        """The run's own folder, which each of its processes has on its command line."""
        return result["qemu_lines"]["guest"].split("local.path=", 1)[1].rsplit("/virtio.vm", 1)[0]

    def processes(self, text):
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if text.encode() in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    def test_interrupted_and_killed(self):
        """Asked to end, or its VM gone: the rounds so far are in a valid file, and no process is left."""
        for how in ("asked", "killed VM"):
            with self.subTest(how):
                self.path.unlink(missing_ok=True)
                process = self.start("--only", "virtio", "--rounds", "1000")
                self.addCleanup(self.end_of, process)
                folder = self.wires(self.first_round(process))
                running = self.processes(folder)
                self.assertEqual(len(running), 2)       # QEMU and the peer
                if how == "asked":
                    process.send_signal(signal.SIGTERM)
                else:
                    qemu = [pid for pid in running if "qemu" in os.readlink(f"/proc/{pid}/exe")]
                    os.kill(qemu[0], signal.SIGKILL)
                text = self.end_of(process)
                self.assertEqual(process.returncode, 130 if how == "asked" else 1, text)
                found = load(self.path)
                self.assertIs(found["complete"], False)
                self.assertIn("interrupted" if how == "asked" else "signal 9", found["ended"])
                last = max(cell["round"] for cell in found["cells"]["guest"])
                self.assertEqual(len(found["cells"]["guest"]), len(WHATS) * last)        # whole rounds
                self.assertEqual(self.processes(folder), [])
                self.assertFalse(os.path.exists(folder))


if __name__ == "__main__":
    unittest.main()
