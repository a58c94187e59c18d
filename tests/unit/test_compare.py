# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/svio compare, on results whose answer is known."""
import contextlib
import io
import json
import random
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from svio_tool import cli, compare  # noqa: E402 (the path comes first)
from svio_tool.ui import SvioError  # noqa: E402


def demo(speed=1.0, gain=0.5, rounds=5, noise=0.0, seed=1, rate=2.0):
    """A demo's result: virtio-net takes 100 us on a host of speed 1, the card `gain` of that and sends `rate`
    times as much."""
    shuffle = random.Random(seed)
    cells = []
    for number in range(1, rounds + 1):
        for nic, part, factor in (("virtio-net-pci", 1, 1), ("svio-nic", gain, rate)):
            wobble = 1 + shuffle.uniform(-noise, noise)
            same = {"round": number, "nic": nic, "port": "netdev"}
            cells.append({**same, "kind": "rtt", "size": 64, "p50_us": 100 * part * wobble / speed,
                          "p99_us": 300 * part * wobble / speed})
            cells.append({**same, "kind": "tx", "size": 1400, "per_s": 1000 * factor * wobble * speed})
    return {"cells": cells, "complete": True, "host": {"cpu": "a", "others_cores": 0.0}}


def scaling():
    cells = {"rate": [{"round": n, "vifs": vifs, "per_s": rate * n} for n in (1, 2, 3)
                      for vifs, rate in ((1, 1000), (32, 900))],
             "trip": [{"round": n, "load": load, "size": 64, "p50_us": p50 * n, "p99_us": 2 * p50 * n}
                      for n in (1, 2, 3) for load, p50 in (("vifs-64", 80), ("hub-64", 100))]}
    return {"cells": cells, "complete": True, "host": {}}


def xen():
    return {"complete": True, "host": {}, "cells": [
        {"round": n, "path": path, "guests": 1, "kind": "rtt", "size": 64, "peer": "wire", "p50_us": p50,
         "p99_us": 2 * p50} for n in (1, 2, 3) for path, p50 in (("split", 1000), ("vif", 300))]}


class Statistics(unittest.TestCase):
    def test_interval_of_constants(self):
        self.assertEqual(compare.interval([2.0] * 4, [3.0] * 4), (1.5, 1.5, 1.5))

    def test_interval_of_three_rounds_is_their_range(self):
        self.assertEqual(compare.interval([1.0], [1.0, 2.0, 4.0]), (2.0, 1.0, 4.0))

    def test_interval_is_the_same_each_time(self):
        one = [random.Random(3).gauss(100, 10) for _ in range(9)]
        self.assertEqual(compare.interval(one, one[::-1]), compare.interval(one, one[::-1]))

    def test_coverage(self):
        """Of samples of a known ratio about 95 of 100 intervals hold it; seeds are fixed."""
        shuffle, held = random.Random(7), 0
        for n in range(200):
            one = [shuffle.gauss(100, 10) for _ in range(15)]
            other = [shuffle.gauss(150, 15) for _ in range(15)]
            _, low, high = compare.interval(one, other, 400, seed=n)
            held += low <= 1.5 <= high
        self.assertGreaterEqual(held, 180)
        self.assertLess(held, 200)

    def test_verdict(self):
        for arguments, wanted in (
                ((1.5, 1.2, 1.9, False, 10), "worse"), ((1.5, 1.2, 1.9, True, 10), "better"),
                ((0.5, 0.4, 0.6, False, 10), "better"), ((0.5, 0.4, 0.6, True, 10), "worse"),
                ((1.5, 0.9, 1.9, False, 10), "same"), ((1.05, 1.02, 1.08, False, 10), "same"),
                ((1.05, 1.02, 1.08, False, 1), "worse"), ((0.95, 0.9, 0.98, True, 10), "same")):
            with self.subTest(arguments):
                self.assertEqual(compare.verdict(*arguments), wanted)


class Results(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def file(self, name, result):
        path = self.folder / name
        path.write_text(result if isinstance(result, str) else json.dumps(result))
        return str(path)

    def run_verb(self, before, after, *options):
        """(exit status, standard output, standard error) of the whole command."""
        out, error = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            status = cli.main(["compare", self.file("a", before), self.file("b", after), *options])
        return status, out.getvalue(), error.getvalue()

    def rows(self, before, after, *options):
        status, out, _ = self.run_verb(before, after, "--json", "-", *options)
        return status, {(row["what"], row["figure"]): row for row in json.loads(out)["rows"]}

    def test_the_hosts_speed_is_no_difference(self):
        status, rows = self.rows(demo(), demo(speed=0.4))
        self.assertEqual(status, 0)
        self.assertEqual({key: (row["ratio"], row["verdict"]) for key, row in rows.items()}, {
            ("rtt svio-nic netdev 64 B", "p50_us"): (1, "same"),
            ("rtt svio-nic netdev 64 B", "p99_us"): (1, "same"),
            ("tx svio-nic netdev 1400 B", "per_s"): (1, "same")})

    def test_absolute(self):
        status, rows = self.rows(demo(), demo(speed=0.5), "--absolute")
        self.assertEqual(status, 1)
        self.assertEqual(rows["rtt virtio-net-pci netdev 64 B", "p50_us"]["ratio"], 2)
        self.assertEqual({row["verdict"] for row in rows.values()}, {"worse"})
        self.assertEqual(len(rows), 6)

    def test_worse_and_better(self):
        status, rows = self.rows(demo(noise=0.02), demo(gain=0.8, rate=3, noise=0.02, seed=2))
        self.assertEqual(status, 1)
        row = rows["rtt svio-nic netdev 64 B", "p50_us"]
        self.assertEqual(row["verdict"], "worse")
        self.assertLess(row["low"], 1.6)
        self.assertGreater(row["high"], 1.6)
        self.assertEqual(rows["tx svio-nic netdev 1400 B", "per_s"]["verdict"], "better")
        self.assertEqual(self.run_verb(demo(gain=0.8), demo())[0], 0)

    def test_tolerance(self):
        self.assertEqual(self.run_verb(demo(), demo(gain=0.54))[0], 0)
        self.assertEqual(self.run_verb(demo(), demo(gain=0.54), "--tolerance", "5")[0], 1)

    def test_scaling_and_xen(self):
        _, rows = self.rows(scaling(), scaling())
        self.assertEqual({key: row["before"] for key, row in rows.items()}, {
            ("rate 32 VIFs", "per_s"): 0.9, ("trip vifs-64 64 B", "p50_us"): 0.8,
            ("trip vifs-64 64 B", "p99_us"): 0.8})
        _, rows = self.rows(xen(), xen())
        self.assertEqual(rows["rtt vif wire 1 guest 64 B", "p50_us"]["before"], 0.3)

    def test_what_is_in_one_only_is_said(self):
        before, after = demo(), demo()
        after["cells"] = [cell for cell in after["cells"] if cell["kind"] == "rtt"]
        after["complete"] = False
        after["host"] = {"cpu": "b", "others_cores": 0.7}
        status, out, _ = self.run_verb(before, after)
        self.assertEqual(status, 0)
        for text in ("Only in A: tx svio-nic netdev 1400 B per_s.", "B ended early",
                     "Different cpu: a in A, b in B.",
                     "Other programs used 0.70 cores while B was measured", "0 better, 2 the same, 0 worse"):
            self.assertIn(text, out)

    def test_a_round_without_its_base(self):
        """An interrupted round is left out, not compared with another round's base."""
        after = demo()
        after["cells"].append({"round": 6, "nic": "svio-nic", "port": "netdev", "kind": "rtt", "size": 64,
                               "p50_us": 9999, "p99_us": 9999})
        _, rows = self.rows(demo(), after)
        self.assertEqual(rows["rtt svio-nic netdev 64 B", "p50_us"]["rounds"], [5, 5])

    def test_unusable(self):
        zero = demo()
        zero["cells"][0]["p50_us"] = 0
        text = demo()
        text["cells"][0]["p50_us"] = "fast"
        for name, result, says in (
                ("empty", "", "not JSON"), ("cut", json.dumps(demo())[:200], "cut off"),
                ("list", "[]", "no rounds"), ("none", '{"cells": []}', "no rounds"),
                ("odd", '{"cells": [3]}', "no rounds"), ("odder", '{"cells": {"rate": 3}}', "no rounds"),
                ("nested", '{"cells": [{"round": 1, "nic": [1]}]}', "no rounds"),
                ("hostless", json.dumps({**demo(), "host": 3}), "no rounds"),
                ("kindless", '{"cells": [{"round": 1}]}', "in common"), ("other", xen(), "in common"),
                ("zero", zero, "p50_us"), ("text", text, "fast")):
            with self.subTest(name):
                status, out, error = self.run_verb(demo(), result)
                self.assertEqual((status, out), (2, ""))
                self.assertIn(says, error)
                self.assertEqual(len(error.splitlines()), 1)

    def test_missing_file(self):
        with self.assertRaisesRegex(SvioError, "cannot be read"):
            compare.load(str(self.folder / "missing"))

    def test_written_file(self):
        target = self.folder / "c.json"
        self.assertEqual(self.run_verb(demo(), demo(), "--json", str(target))[0], 0)
        self.assertEqual(len(json.loads(target.read_text())["rows"]), 3)


if __name__ == "__main__":
    unittest.main()
