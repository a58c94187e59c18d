# SPDX-License-Identifier: GPL-2.0-or-later
"""The journeys of the report in Xen's machine: whose time and whose events stand where."""
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from svio_tool import report_xen  # noqa: E402 (the path comes first)


def cell(number, approach, own, events, dom0_events, board=None):
    """A round trip's, of 100 messages; `own` seconds of the guest's, and 2 of dom0's."""
    return {"round": number, "approach": approach, "kind": "rtt", "size": 64, "messages": 100,
            "switches": {"vcpu": 100, "on_board": 50, "qemu_other": 20},
            "cpu_s": {"vcpu": 9.0, "on_board": 0.3, "qemu_other": 0.02, "peer": 0.001},
            "domains": {"cpu_s": {"dom0": 0.2, "other1": 5.0, "mine1": own},
                        "interrupts": {"dom0": dom0_events, "mine1": events}},
            **({"board": board} if board else {})}


SPLIT = [cell(n, "xen-split", n / 10, {"event vif0-q0-tx": 100, "event vif0-q0-rx": 100},
              {"event vif1.0-q0-tx": 110, "device eth0-0": 140}, {"bells": 30}) for n in (1, 2, 9)]
VIF = [cell(1, "xen-vif", 0.1, {"device eth0-0": 125}, {"event vif1.0-q0-tx": 0, "device eth0-0": 0},
            {"bells": 1})]
DIRECT = [cell(1, "xen-direct", 0.1, {"device eth0-rx-0": 200, "device eth0-tx-0": 210},
               {"device eth0-0": 0})]


class Journeys(unittest.TestCase):
    def test_figures(self):
        found = report_xen.figures(SPLIT)
        self.assertEqual({name: round(value, 3) for name, value in found.items()}, {
            "guest_us": 2000, "dom0_us": 2000, "guest_events": 2, "guest_interrupts": 0, "dom0_events": 1.1,
            "dom0_interrupts": 1.4, "bells": 0.3, "on_board_us": 3000, "qemu_other_us": 200, "peer_us": 10,
            "switches": 1.7})

    def words(self, key, cells, anatomy=None):
        boxes, arrows = report_xen.journey_parts({"cells": {"xen": cells}, "anatomy": anatomy or {}}, key)
        self.assertEqual((len(boxes), [len(pair) for pair in arrows]), (3, [2, 2]))
        for box in boxes:       # what fits
            self.assertLessEqual(len(box.splitlines()), 3)
            self.assertLessEqual(max(map(len, box.splitlines())), 44)
        return boxes, [" ".join(text.split()) for pair in arrows for text in pair]

    def test_split_driver(self):
        boxes, arrows = self.words("xen-split", SPLIT)
        self.assertIn("netfront\n2,000 us", boxes[0])
        self.assertIn("netback, a bridge, the card's driver\n2,000 us", boxes[1])
        self.assertEqual(arrows, ["1.10 events of dom0's", "2.00 events of the guest's", "0.30 doorbells",
                                  "1.40 interrupts of dom0's"])

    def test_past_dom0(self):
        for key, cells, carrier, down, interrupts in (
                ("xen-vif", VIF, "3,000 us of CPU", "0.01 doorbells", "1.25"),
                ("xen-direct", DIRECT, "200 us of CPU", "accesses not counted", "4.10")):
            boxes, arrows = self.words(key, cells)
            self.assertTrue(boxes[1].endswith("\n" + carrier), boxes[1])
            self.assertTrue(boxes[2].endswith("beside it: 0.00 events,\n2,000 us of Xen's time"), boxes[2])
            self.assertEqual(arrows, [down, f"{interrupts} interrupts of the guest's",
                                      "calls not counted", "1.7 context switches of QEMU"])

    def test_with_the_anatomy(self):
        xen = {"hypercalls": 24.64, "switches": 2.283}
        counted = {"accesses": {"reads": 0.5, "writes": 0.25}, "system_calls": {"ppoll": 3.25, "read": 1},
                   "copies": {"memory": 0.9, "system_calls": 1.0, "grants": 0.5}, "xen": xen}
        boxes, arrows = self.words("xen-split", SPLIT, {"xen-split": counted})
        self.assertTrue(boxes[0].endswith("\n24.6 hypercalls, 2.28 switches of domains"), boxes[0])
        self.assertIn("\n0.5 copies each way by grants\n2,000 us", boxes[1])
        self.assertIn("the card: 0.9 + 1.0 copies each way\n3,000 us", boxes[2])
        self.assertEqual(arrows[2], "0.75 register accesses trap")
        counted["copies"]["grants"] = 0.0
        for key, cells in (("xen-vif", VIF), ("xen-direct", DIRECT)):
            boxes, arrows = self.words(key, cells, {key: counted})
            self.assertIn("24.6 hypercalls", boxes[0])
            self.assertIn("\n0.9 + 1.0 copies each way; ", boxes[1])
            self.assertEqual((arrows[0], arrows[2]),
                             ("0.75 register accesses trap", "4.2 system calls of QEMU"))

    def test_what_is_not_xens(self):
        self.assertIsNone(report_xen.journey_parts({"cells": {"xen": VIF}, "anatomy": {}}, "xen-split"))
        self.assertIsNone(report_xen.journey_parts({"cells": {"guest": []}}, "virtio"))


if __name__ == "__main__":
    unittest.main()
