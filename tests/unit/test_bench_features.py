# SPDX-License-Identifier: GPL-2.0-or-later
"""The arithmetic of "bench features", and what it refuses to take for a measurement."""
import contextlib
import io
import sys
import types
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from svio_tool import bench_features, compare  # noqa: E402 (the path comes first)
from svio_tool.ui import SvioError  # noqa: E402

RATES = {"off": 100.0, "on": 310.0, "1 pair, 1 vCPU": 200.0, "4 pairs, 2 vCPUs": 210.0}
CELLS = [{"round": number, "feature": feature, "setting": setting, "wire": wire, "kind": kind, "size": 1448,
          "stream_mbit_per_s": RATES[setting] * number}
         for number in (1, 2, 3) for feature, settings in bench_features.SETTINGS.items()
         for setting in settings
         for wire in (bench_features.WIRES if feature == "offloads" else ["svio-tap"])
         for kind in bench_features.DIRECTIONS]
ROW = types.SimpleNamespace(mac="52:54:00:00:00:01", peer_ip="10.0.0.1", key="svio-tap")


class FakeVm:
    def __init__(self, out, rc=0):
        self.out, self.rc, self.err, self.ran = out, rc, "", ""

    def run(self, words, check=True):
        self.ran = words
        return self


class Figures(unittest.TestCase):
    def result(self, cells):
        result = {"ratio": {}, "host": {"cores": 2, "accel": "tcg", "others_cores": 0.0}}
        bench_features.fill(result, cells)
        return result

    def test_ratios(self):
        result = self.result(CELLS)
        self.assertEqual(len(result["ratio"]), 6)
        self.assertEqual(result["ratio"]["offloads svio-tap tcp_rx"], {"value": 3.1, "min": 3.1, "max": 3.1})
        self.assertAlmostEqual(result["ratio"]["pairs svio-tap tcp_tx"]["value"], 1.05)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            bench_features.tables(result)
        for words in (r"on +620 +310\.\.930 +3\.10 +3\.10\.\.3\.10", r"off +200 +100\.\.300 +1"):
            self.assertRegex(out.getvalue(), rf"(?m)^  offloads, TAP, out of the guest +{words}$")
        text = " ".join(bench_features.reading(result).split())
        self.assertIn("TCP leaves a guest on a TAP 3.1 times as fast", text)
        self.assertIn("two vCPUs carry 1.05 times", text)

    def test_a_run_that_ended_early(self):
        """What has no other setting beside it yet is left out."""
        result = self.result([cell for cell in CELLS if cell["setting"] in ("off", "on")])
        self.assertEqual({key.split()[0] for key in result["ratio"]}, {"offloads"})
        self.assertEqual({feature for feature, *_ in bench_features.keys(result)}, {"offloads"})

    def test_compare_knows_it(self):
        found = compare.values({"cells": CELLS})
        self.assertEqual(len(found), 6)
        self.assertEqual({compare.label(key): [round(value, 6) for value in values]
                          for (key, _), values in found.items()}["tcp_tx offloads on svio-tap 1448 B"],
                         [3.1] * 3)

    def test_a_cell_that_lacks_its_feature(self):
        """Of a file that somebody has edited: there is nothing to compare it with."""
        cells = [{name: value for name, value in cell.items() if name != "feature"} for cell in CELLS]
        self.assertEqual(compare.values({"cells": cells}), {})

    def test_offloads_that_stay(self):
        vm = FakeVm("rx-checksumming: on\ntcp-segmentation-offload: on\n")
        bench_features.switch(types.SimpleNamespace(vm=vm), ROW, "on")
        self.assertIn("ethtool -K $dev rx on tx on sg on tso on gso on gro on", vm.ran)
        for vm in (FakeVm("tcp-segmentation-offload: on [requested off]\n"), FakeVm("", 1),
                   FakeVm("tcp-segmentation-offload: off [fixed]\n")):
            with self.assertRaisesRegex(SvioError, "cannot be turned off"):
                bench_features.switch(types.SimpleNamespace(vm=vm), ROW, "off")

    def test_a_host_without_taps(self):
        for lab in (types.SimpleNamespace(no_tcp="/dev/net/tun is not there", not_run={}),
                    types.SimpleNamespace(no_tcp=None, not_run={"svio-tap": "/dev/net/tun is not there"})):
            with self.assertRaisesRegex(SvioError, "cannot be measured here: /dev/net/tun is not there"):
                bench_features.Machines.check(lab)


if __name__ == "__main__":
    unittest.main()
