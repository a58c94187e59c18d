# SPDX-License-Identifier: GPL-2.0-or-later
"""What "xen demo --virtual-time" makes of its flags and of a console, without a machine."""
import argparse
import unittest

from svio_tool import xen, xen_virtual
from svio_tool.ui import SvioError

LINK = '[{"stats64":{"tx":{"packets":%d}},"vfinfo_list":[{"vf":0,"stats":{"tx":{"tx_packets":%d}}}]}]'
# As it comes through a guest's console, its log, and dom0's console.
CONSOLE = "\r\n".join((
    "svio-guest-begin split1", LINK % (7, 0), "[    0.1] Linux\r\r", "svio-figures-begin trips-wire\r\r",
    "30 bytes from 10.88.0.1: icmp_seq=1 ttl=64 time=0.400 ms\r\r", "[    2.0] in between\r",
    "30 bytes from 10.88.0.1: icmp_seq=2 ttl=64 time=0.100 ms\r\r", "svio-figures-end\r\r",
    "svio-figures-begin sent\r", "sockperf: Total of 3000 messages sent in 1.500 sec\r", "svio-figures-end\r",
    LINK % (3010, 0), "svio-guest-end split1",
    "svio-guest-begin vif1", LINK % (3010, 1), "svio-figures-begin trips-wire\r",
    "30 bytes from 10.88.0.1: icmp_seq=1 ttl=64 time=0.050 ms\r", "svio-figures-end\r",
    "svio-figures-begin sent\r", "sockperf: Total of 6000 messages sent in 1.000 sec\r", "svio-figures-end\r",
    LINK % (3010, 6005), "svio-guest-end vif1", ""))


def parsed(*words):
    parser = argparse.ArgumentParser()
    xen.add_arguments(parser)
    return parser.parse_args(words)


class TestFigures(unittest.TestCase):
    def test_rows(self):
        lines = xen_virtual.lines_of(CONSOLE)
        self.assertNotIn("\r", lines)
        self.assertNotIn("\n\n", lines)
        rows = {(row["path"], row["what"]): row
                for row in xen_virtual.rows_of(lines, xen_virtual.guests(1, 2), 2)}
        trips = rows["split", "trips-wire"]
        self.assertEqual([trips[name] for name in ("median_us", "min_us", "max_us", "lost")],
                         [250, 100, 400, 0])
        self.assertEqual(rows["vif", "trips-wire"]["lost"], 1)
        self.assertEqual(rows["split", "sent"]["per_s"], 2000)
        self.assertEqual(rows["split", "sent"]["card_frames"], 3003)
        self.assertEqual(rows["vif", "sent"]["card_frames"], 6004)
        self.assertEqual(xen_virtual.ratios(list(rows.values())), {"trips-wire": 0.2, "sent": 3})

    def test_a_run_that_ended_early(self):
        for console in ("", "svio-guest-begin split1\nKernel panic\n",
                        CONSOLE.replace("svio-guest-end vif1", ""),
                        CONSOLE.replace("svio-figures-end", "")):
            with self.assertRaisesRegex(SvioError, "Guest (split|vif)1 did not come to its figures"):
                xen_virtual.rows_of(xen_virtual.lines_of(console), xen_virtual.guests(1, 2), 2)

    def test_complaints(self):
        xen_virtual.check_quiet(CONSOLE)
        with self.assertRaisesRegex(SvioError, "complained"):
            xen_virtual.check_quiet(CONSOLE + "\n[ 1.0] WARNING: CPU: 0 PID: 1\n")


class TestPlan(unittest.TestCase):
    def test_pairs(self):
        plan = xen_virtual.guests(2, 50)
        self.assertEqual([(guest.name, guest.slot, what) for guest, what in plan],
                         [("split1", 0, "serves"), ("split2", 0, "measures"),
                          ("vif1", 1, "serves"), ("vif2", 2, "measures")])
        for (serves, _), (measures, _) in (plan[:2], plan[2:]):
            self.assertNotIn("guest.to=", serves.xl_config())
            self.assertIn(f"guest.to=wire:10.88.0.1,guest:{serves.address} ", measures.xl_config())
            self.assertNotIn("guest.agent", measures.xl_config())
        self.assertEqual(len({guest.mac for guest, _ in plan}), 4)

    def test_flags(self):
        xen_virtual.check(parsed("demo", "--virtual-time", "--runs", "3", "--shift", "0"))
        xen_virtual.check(parsed("bench", "--quick"))
        for words, sentence in (
                (("demo", "--virtual-time", "--rounds", "2"), "--rounds is about rounds in the host's time"),
                (("demo", "--virtual-time", "--seed", "0"), "--seed is about rounds in the host's time"),
                (("bench", "--virtual-time", "--quick"), "--quick is about rounds in the host's time"),
                (("demo", "--virtual-time", "--runs", "0"), "--runs 0 is not between 1 and 100"),
                (("bench", "--virtual-time", "--shift", "11"), "--shift 11 is not between 0 and 10"),
                (("demo", "--count", "5"), "--count goes with --virtual-time only"),
                (("bench", "--message-cost-ns", "5"), "--message-cost-ns goes with --virtual-time only")):
            with self.subTest(words=words), self.assertRaisesRegex(SvioError, sentence):
                xen_virtual.check(parsed(*words))


if __name__ == "__main__":
    unittest.main()
