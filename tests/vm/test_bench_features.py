# SPDX-License-Identifier: GPL-2.0-or-later
""""bench features", booted and small: that what it turns on and off is so, by the frames on the wire."""
import contextlib
import io
import json
import tempfile
import types
import unittest
from pathlib import Path

from svio_tool import bench_features, compare, lab_host
from svio_tool.lab_host import PAYLOAD
from svio_tool.worker import long


@long
class TestBenchFeatures(unittest.TestCase):
    def test_one_round(self):
        why = lab_host.tun_missing()
        if why:
            self.skipTest(f"not run: {why}")
        folder = self.enterContext(tempfile.TemporaryDirectory())
        args = types.SimpleNamespace(json=str(Path(folder) / "out.json"))
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            bench_features.run(args, 1, 7)
            self.assertEqual(compare.main(types.SimpleNamespace(
                before=args.json, after=args.json, absolute=False, tolerance=10, json=None)), 0)
        result = json.loads(Path(args.json).read_text())
        self.assertIs(result["complete"], True)
        self.assertEqual(len(result["cells"]), 12)
        self.assertEqual(set(result["ratio"]),
                         {f"{feature} {wire} {kind}" for feature, wire in (
                             ("offloads", "svio-tap"), ("offloads", "svio-native"), ("pairs", "svio-tap"))
                          for kind in ("tcp_tx", "tcp_rx")})
        for cell in result["cells"]:
            self.assertGreater(cell["stream_mbit_per_s"], 0)
            self.assertGreater(cell["messages"], 0)
        self.check_segments(result["cells"])
        lines = result["qemu_lines"]
        self.assertIn("queues=4", lines["features-4"])
        self.assertIn("-smp 2", lines["features-4"])
        self.assertIn("queues=1", lines["features-1"])

    def check_segments(self, cells):
        """Bytes of the stream for each frame on the wire, both directions counted: with offloads whole
        segments leave the guest, without them none is longer than an Ethernet frame. A wire of datagram
        sockets carries none that is longer either way."""
        for cell in cells:
            if cell["feature"] != "offloads" or cell["kind"] != "tcp_tx":
                continue
            carried = cell["stream_mbit_per_s"] * 1e6 / 8 * bench_features.SECONDS / cell["messages"]
            if cell["wire"] == "svio-tap" and cell["setting"] == "on":
                self.assertGreater(carried, 1.5 * PAYLOAD, cell)
            else:
                self.assertLess(carried, 1.1 * PAYLOAD, cell)


if __name__ == "__main__":
    unittest.main()
