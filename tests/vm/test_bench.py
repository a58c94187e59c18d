# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb "bench scaling" from end to end, small. What it measures is not judged, only that it is whole."""
import contextlib
import io
import json
import os
import tempfile
import types
import unittest

from svio_tool import bench
from svio_tool.scaling import TRIPS, Settings
from svio_tool.worker import long


@long
class TestBenchScaling(unittest.TestCase):
    def test_small(self):
        settings = Settings(counts=(1, 2), flows=4, equal=2, weights=(1, 3), seconds=0.5, settle=0.3,
                            trip_seconds=1)
        out = io.StringIO()
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "out.json")
            with contextlib.redirect_stdout(out):
                bench.run(types.SimpleNamespace(json=name), settings, bench.empty_result(settings, 1, 1))
            with open(name) as handle:
                result = json.load(handle)
        self.assertIs(result["complete"], True)
        self.check_cells(result["cells"])
        self.assertEqual(result["total_rate"]["1"]["ratio"]["value"], 1)
        self.assertGreater(result["total_rate"]["2"]["ratio"]["value"], 0)
        self.assertEqual(set(result["trips"]["ratio"]), {"isolation", "vifs_64", "vifs_1400"})
        fairness = result["fairness"]
        self.assertAlmostEqual(sum(share["value"] for share in fairness["weighted"]["shares"]), 1)
        self.assertTrue(0.5 <= fairness["equal"]["jain"]["value"] <= 1, fairness)
        self.assertIn(f"port-mbps={fairness['port_mbps']}", result["qemu_lines"]["fairness"])
        text = out.getvalue()
        for words in ("4 flows", "textbook share", "Jain's index over 2 VIFs", "another VIF flooded",
                      "How to read this", "The figures are in"):
            self.assertIn(words, text)

    def check_cells(self, cells):
        self.assertEqual({cell["vifs"] for cell in cells["rate"]}, {1, 2})
        self.assertEqual({cell["load"]: cell["weights"] for cell in cells["share"]},
                         {"equal": [1, 1], "weighted": [1, 3]})
        for cell in cells["rate"] + cells["share"]:
            self.assertEqual(len(cell["frames"]), cell["vifs"])
            self.assertGreater(min(cell["frames"].values()), 0)
            self.assertGreater(cell["per_s"], 0)
        self.assertEqual({cell["load"] for cell in cells["trip"]}, {load for load, *_ in TRIPS})
        for cell in cells["trip"]:
            self.assertTrue(0 < cell["p50_us"] <= cell["p99_us"], cell)
            self.assertEqual("flood_sent_per_s" in cell, cell["load"].startswith("flood"), cell)
            if "flood_sent_per_s" in cell:
                self.assertGreater(cell["flood_sent_per_s"], 0)
                self.assertGreater(cell["flood_delivered_per_s"], 0)
