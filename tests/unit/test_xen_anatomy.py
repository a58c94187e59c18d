# SPDX-License-Identifier: GPL-2.0-or-later
"""What is counted of Xen's machine: out of its own trace, and of netback's copies by grants."""
import contextlib
import sys
import types
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from svio_tool import xen_anatomy, xen_trace  # noqa: E402 (the path comes first)
from svio_tool.ui import SvioError  # noqa: E402

# As xenalyze of Xen 4.17 says it, shortened.
SUMMARY = """\
Using SVM hardware-assisted virtualization.
Creating domain 0
First schedule for d0v0 doesn't take us into a running state; leaving INIT
Total time: {seconds} seconds (using cpu speed 2.40 GHz)
--- Log volume summary ---
 - cpu 0 -
 sched :     164532
 pv    :     100676
|-- Domain 0 --|
 Runstates:
   blocked:     185  0.87s 11250586 {{2808728|237799822|238222894}}
  full run:     191  0.15s 1873193 {{805194|2778126|13107706}}
 Grant table ops:
  Done by:
  Done for:
-- v0 --
 Runstates:
   running:     {dom0}  0.15s 1873193 {{805194|2778126|13107706}}
  runnable:     185  0.06s 777540 {{552734|1357408|8527948}}
        wake:     185  0.06s 777540 {{552734|1357408|8527948}}
 cpu affinity:       1 2563243685 {{2563243685|2563243685|2563243685}}
   [0]:       1 2563243685 {{2563243685|2563243685|2563243685}}
PV events:
  page_fault  2
  math state restore  10
  hypercall  1812
    mmu_update                   [ 1]:      3
    grant_table_op               [20]:    {grants}
    evtchn_op                    [32]:    147
Emulate eip list
|-- Domain 1 --|
-- v0 --
 Runstates:
   running:     160  0.16s 2443773 {{1333488|2989870|26302250}}
PV events:
  page_fault  3
  emulate privop  {emulated}
  hypercall  74
    evtchn_op                    [32]:     74
Emulate eip list
|-- Domain 32767 --|
-- v0 --
 Runstates:
   running:      55  0.76s 33135078 {{9586928|105793454|238058522}}
Emulate eip list
"""
BUSY = SUMMARY.format(seconds="4.00", dom0=191, grants=147, emulated=2104)
IDLE = SUMMARY.format(seconds="2.00", dom0=11, grants=0, emulated=2)

PROBED = """\
# tracer: nop
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
    <idle>-0    [000] .Ns1. 55.484865: svio_copies: (gnttab_batch_copy+0x4/0xe0) count=1 l0=128 l1=0
 vif1.0-q0-261  [000] ..... 55.497617: svio_copies: (gnttab_batch_copy+0x4/0xe0) count=2 l0=1414 l1=86
"""


class Trace(unittest.TestCase):
    def test_summary(self):
        self.assertEqual(xen_trace.parse(BUSY), {
            "seconds": 4.0, "runs": 351, "emulated": 2104,
            "hypercalls": {"mmu_update": 3, "grant_table_op": 147, "evtchn_op": 221}})
        for text in ("", "Total time: 1.08 seconds (using cpu speed 2.40 GHz)\n", "xenalyze: not found"):
            with self.assertRaisesRegex(SvioError, "trace says nothing"):
                xen_trace.parse(text)

    def test_for_each_message(self):
        """The idle trace is half as long: twice of it is taken away, and never more than there is."""
        found = xen_trace.per_message(xen_trace.parse(BUSY), xen_trace.parse(IDLE), 10)
        self.assertEqual({name: round(value, 6) for name, value in found.items()},
                         {"hypercalls": 14.7, "grants": 14.7, "events": 0, "emulated": 210.0,
                          "switches": 0.9})

    def machine(self, rc=0):
        said = []

        def run(command, **_):
            said.append(command)
            return types.SimpleNamespace(out=BUSY)

        def spawn(command):
            said.append(command)
            return types.SimpleNamespace(pid=77, wait=lambda timeout: types.SimpleNamespace(rc=rc, err="no"))
        return types.SimpleNamespace(run=run, spawn=spawn), said

    def test_begin_and_end(self):
        machine, said = self.machine()
        with xen_trace.XenTrace(machine) as trace:
            said.append("traffic")
        self.assertEqual(trace.found["seconds"], 4.0)
        self.assertNotIn("rm -f", said[-2])
        words = [command.split()[1] if command.startswith("exec") else command.split()[0] for command in said]
        self.assertEqual(words, ["xentrace", "until", "traffic", "kill", "xenalyze"])
        self.assertIn("kill -INT 77", said)

    def test_a_failure_is_said(self):
        machine, said = self.machine(rc=1)
        with self.assertRaisesRegex(SvioError, "xentrace does not run"), xen_trace.XenTrace(machine):
            pass
        # That of the traffic is not hidden by that of the trace.
        with self.assertRaisesRegex(SvioError, "^traffic"), xen_trace.XenTrace(machine):
            raise SvioError("traffic")
        self.assertEqual(said[-1], f"rm -f {xen_trace.FILE}")


class Copies(unittest.TestCase):
    def test_granted(self):
        self.assertEqual(xen_anatomy.granted(PROBED), 128 + 1414 + 86)
        self.assertEqual(xen_anatomy.granted(""), 0)
        most = xen_anatomy.MOST_COPIES
        with self.assertRaisesRegex(SvioError, f"{most + 1} copies in one call"):
            xen_anatomy.granted(f" x: svio_copies: (f) count={most + 1} l0=1 l1=2\n")

    def test_probe(self):
        """A length of each struct gnttab_copy: 40 bytes, and the length is its 33rd and 34th."""
        words = xen_anatomy.probe_words()
        self.assertIn(" l0=+32(%di):u16 l1=+72(%di):u16 ", words)
        self.assertEqual(words.count("(%di)"), xen_anatomy.MOST_COPIES)


class Windows(unittest.TestCase):
    def window(self, counts=(), failure=""):
        ran, answers = [], iter(counts)

        def run(guests, name, wait=None):
            ran.append(name)
            if name == xen_anatomy.UNANSWERED:
                raise SvioError("Measuring failed", failure)
            wait(0.01)
        guest = types.SimpleNamespace(spec=types.SimpleNamespace(wire_address="10.88.0.1"))
        peer = types.SimpleNamespace(ask=lambda word: {"wires": {"w": {"udp_echo": next(answers)}}})
        xen = types.SimpleNamespace(
            vm=None, peer=peer, rows=lambda: [], guests={"vif": [guest], "split": [guest]}, run=run,
            trips_program=lambda target, port=11111: f"{target} {port}", hold_programs=ran.append)
        return xen_anatomy.Window(xen), ran

    def test_amid(self):
        """What is counted lies in the block, and so do both looks at the messages."""
        window, ran = self.window([100, 160])
        events, values = [], iter([7, 10])

        @contextlib.contextmanager
        def block():
            events.append("begin")
            yield
            events.append("end")

        def look():
            events.append("look")
            return next(values)
        row = xen_anatomy.Row("vif", "w", "0000:01:10.0")
        self.assertEqual(window.amid(row, block(), look), [60, 3])
        self.assertEqual(events, ["begin", "look", "look", "end"])
        self.assertEqual(ran, ["trips"])

    def test_what_is_held(self):
        """Round trips of each approach; and those without answers, as long as nobody has traced them."""
        window, ran = self.window()
        rows = [(xen_anatomy.Row(path, "w", ""), "64") for path in ("split", "vif")]
        for idle, names in ((None, ["trips", "trips", "unanswered"]), ({}, ["trips", "trips"])):
            window.idle = idle
            window.arm(rows)
            self.assertEqual([name for _, name, _ in ran[-1]], names)
        self.assertEqual([program for *_, program in ran[0]], ["10.88.0.1 11111"] * 2 + ["10.88.0.1 9"])

    def test_nobody_answers(self):
        """That is what sockperf is to find; any other failure is one."""
        row = xen_anatomy.Row("vif", "w", "")
        self.window(failure="sockperf: No messages were received from the server. Is the")[0].unanswered(row)
        with self.assertRaisesRegex(SvioError, "Measuring failed"):
            self.window(failure="sockperf: command not found")[0].unanswered(row)

    def test_no_message(self):
        window, _ = self.window([100, 100])
        with self.assertRaisesRegex(SvioError, "vif: no message while"):
            window.amid(xen_anatomy.Row("vif", "w", ""), contextlib.nullcontext())


if __name__ == "__main__":
    unittest.main()
