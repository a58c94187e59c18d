# SPDX-License-Identifier: GPL-2.0-or-later
"""What the report says over the number of guests, of results whose answer is known."""
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from svio_tool import report_guests  # noqa: E402 (the path comes first)
from svio_tool.ui import SvioError  # noqa: E402

VMS = {"rounds": 2, "ways": {"svio": "on a board", "dgram-hub": "on a hub"}, "cells": {
    "trip": [{"round": n, "way": way, "vms": vms, "p50_us": p50 * vms * n} for n in (1, 2)
             for way, p50 in (("svio", 10), ("dgram-hub", 40)) for vms in (1, 8)],
    "tcp": [{"round": 1, "way": "svio", "vms": 8, "stream_mbit_per_s": 90.0}], "rate": []}}
XEN = {"rounds": 1, "pairs": 2, "cells": [
    {"round": 1, "kind": "rtt", "path": "split", "peer": "wire", "guests": 1, "p50_us": 900.0},
    {"round": 1, "kind": "rtt", "path": "vif", "peer": "wire", "guests": 2, "p50_us": 200.0},
    {"round": 1, "kind": "guest", "path": "vif", "peer": "guest", "guests": 1, "p50_us": 1.0},
    {"round": 1, "kind": "tx", "path": "vif", "peer": "wire", "guests": 2, "per_s": 5000.0},
    {"round": 1, "kind": "tx", "path": "vif", "peer": "guest", "guests": 2, "per_s": 1.0},
    {"round": 1, "kind": "rx", "path": "vif", "peer": "wire", "guests": 2, "per_s": 7000.0},
    {"round": 1, "kind": "tcp_tx", "path": "vif", "peer": "wire", "guests": 2, "stream_mbit_per_s": 90.0},
    {"round": 1, "kind": "idle", "path": "none", "peer": "none", "guests": 0}]}


class Guests(unittest.TestCase):
    def test_vms(self):
        found = report_guests.series(VMS)
        self.assertEqual(found["trip"]["svio"]["points"], {1: {"value": 15, "min": 10, "max": 20},
                                                           8: {"value": 120, "min": 80, "max": 160}})
        self.assertEqual([one["family"] for one in found["trip"].values()],
                         ["self-virtualizing", "paravirtual"])
        self.assertEqual(list(report_guests.rows(found))[1],
                         ("on a board", "8", "120 (80..160)", "90 (90..90)", "-"))

    def test_xen(self):
        """Guests to the wire: not what two guests say to each other, nor an idle machine."""
        found = report_guests.series(XEN)
        self.assertEqual({(kind, name): list(one["points"]) for kind, lines in found.items()
                          for name, one in lines.items()},
                         {("trip", "xen-split"): [1], ("trip", "xen-vif"): [2], ("rate", "xen-vif"): [2],
                          ("into", "xen-vif"): [2], ("tcp", "xen-vif"): [2]})
        self.assertEqual(list(report_guests.columns(found)), ["trip", "tcp", "rate", "into"])
        self.assertEqual(list(report_guests.rows(found))[1][1:],
                         ("2", "200 (200..200)", "90 (90..90)", "5,000 (5,000..5,000)",
                          "7,000 (7,000..7,000)"))
        self.assertEqual(next(report_guests.csv_rows([XEN])),
                         ("xen-split", "xen_trip_1", "p50_us", 900.0, 900.0, 900.0, 1))

    def test_others(self):
        for result in ({}, {"cells": {}}, {"cells": []}, {"cells": [{"nic": "virtio"}]}):
            self.assertIsNone(report_guests.source_of(result))
        with self.assertRaisesRegex(SvioError, "not those of bench scaling"):
            report_guests.series({**VMS, "cells": {"trip": [{"way": "svio"}]}})


if __name__ == "__main__":
    unittest.main()
