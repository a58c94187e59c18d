# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb "bench scaling --vms" from end to end, small. What it measures is not judged, only that it is
whole."""
import contextlib
import io
import json
import tempfile
import types
import unittest
from pathlib import Path
from unittest import mock

from svio_tool import vms_bench
from svio_tool.paths import GUEST_SLOWNESS
from svio_tool.ui import SvioError
from svio_tool.vms_lab import KINDS, SVIO, WAYS, Settings


@unittest.skipIf(GUEST_SLOWNESS > 1, "it measures, which a guest that is slow on purpose is not for")
class TestVmsBench(unittest.TestCase):
    svio_minutes = 1

    def test_small(self):
        out = io.StringIO()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "out.json"
            with contextlib.redirect_stdout(out):
                vms_bench.run(types.SimpleNamespace(json=str(path)), 1, 1, Settings(counts=(1, 2), seconds=1))
            result = json.loads(path.read_text())
        self.assertIs(result["complete"], True)
        measured = {(way.name, count) for way in WAYS for count in (1, 2)} - {("dgram", 1)}
        for kind in KINDS:
            cells = result["cells"][kind]
            self.assertEqual({(cell["way"], cell["vms"]) for cell in cells}, measured, kind)
            for cell in cells:
                self.check_cell(kind, cell)
        for count in ("1", "2"):
            for kind in KINDS:
                self.assertGreater(result["vms"][count]["ratio"][kind]["value"], 0)
        self.assertIsNone(result["vms"]["1"]["straight"]["tcp"])
        self.assertIn("-netdev hubport", result["qemu_lines"]["hub"].replace("'", ""))
        for words in ("svio-vif, one svio-board", "a hub process", "straight to the other",
                      "How to read this", "The figures are in"):
            self.assertIn(words, out.getvalue())

    def check_cell(self, kind, cell):
        if kind == "trip":
            self.assertTrue(0 < cell["p50_us"] <= cell["p99_us"], cell)
            self.assertGreater(cell["samples"], 0)
        elif kind == "tcp":
            self.assertGreater(cell["stream_mbit_per_s"], 0)
        else:
            self.assertTrue(0 < cell["received"] <= cell["sent"], cell)
        # The board works for its own VIFs and for nothing else, the hub for those on it.
        self.assertGreater(cell["cpu_s"]["vms"], 0)
        if cell["way"] != SVIO.name:
            self.assertLess(cell["cpu_s"]["board"], cell["cpu_s"]["vms"])

    def test_refusal(self):
        with mock.patch.object(vms_bench.host, "memory_mib", lambda: 1000), \
                self.assertRaisesRegex(SvioError, "need more memory than is free here"):
            vms_bench.run(types.SimpleNamespace(json=None), 1, 1)


if __name__ == "__main__":
    unittest.main()
