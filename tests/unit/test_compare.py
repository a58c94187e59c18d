# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/svio compare, on results whose answer is known."""
import contextlib
import io
import json
import math
import random
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from svio_tool import cli, compare, lab_stats  # noqa: E402 (the path comes first)
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


def vms():
    cells = {"trip": [{"round": n, "way": way, "vms": 2, "size": 64, "p50_us": p50 * n, "p99_us": 2 * p50 * n}
                      for n in (1, 2, 3) for way, p50 in (("svio", 300), ("dgram-hub", 1000))],
             "tcp": [{"round": n, "way": way, "vms": 2, "stream_mbit_per_s": rate * n}
                     for n in (1, 2, 3) for way, rate in (("svio", 900), ("dgram-hub", 100))]}
    return {"cells": cells, "complete": True, "host": {}}


def xen():
    return {"complete": True, "host": {}, "cells": [
        {"round": n, "path": path, "guests": 1, "kind": "rtt", "size": 64, "peer": "wire", "p50_us": p50,
         "p99_us": 2 * p50} for n in (1, 2, 3) for path, p50 in (("split", 1000), ("vif", 300))]}


class Statistics(unittest.TestCase):
    def test_quantiles_of_the_tables(self):
        for freedom, wanted in ((1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (1000, 1.962)):
            self.assertAlmostEqual(compare.student_quantile(freedom), wanted, places=3)

    def test_tails_of_the_tables(self):
        for value, freedom, wanted in ((0, 3, 1), (2.776, 4, 0.05), (-4.604, 4, 0.01), (63.657, 1, 0.01)):
            self.assertAlmostEqual(compare.student_tail(value, freedom), wanted, places=4)

    def test_interval_of_constants(self):
        value, low, high, chance = compare.interval([2.0] * 4, [3.0] * 4)
        self.assertAlmostEqual(value, 1.5)
        self.assertEqual((low, high, chance), (value, value, 0))
        self.assertEqual(compare.interval([2.0] * 3, [2.0] * 3), (1, 1, 1, 1))

    def test_interval_worked_by_hand(self):
        """Logarithms to the base 2: (0, 1, 2) and (2, 3, 4); each mean has the variance 1/3, so the
        difference of 2 stands against 0.8165, with 4 degrees of freedom: t = 2.449, t(95 %) = 2.776."""
        value, low, high, chance = compare.interval([1.0, 2.0, 4.0], [4.0, 8.0, 16.0])
        self.assertAlmostEqual(value, 4)
        self.assertAlmostEqual(math.log2(low), 2 - 2.7764 * 0.8165, places=3)
        self.assertAlmostEqual(math.log2(high), 2 + 2.7764 * 0.8165, places=3)
        self.assertAlmostEqual(chance, 0.0705, places=4)

    def test_one_round_has_no_interval(self):
        for pair in (([1.0], [2.0, 2.1, 2.2]), ([1.0, 1.0], [2.0]), ([1.0], [2.0])):
            self.assertEqual(compare.interval(*pair)[1:], (None, None, None))

    def test_coverage_of_three_rounds(self):
        """Of 100 intervals about 95 hold the known ratio, of three rounds as well; the seed is fixed."""
        shuffle, held = random.Random(7), 0
        for _ in range(400):
            one = [math.exp(shuffle.gauss(0, 0.3)) for _ in range(3)]
            other = [1.5 * math.exp(shuffle.gauss(0, 0.3)) for _ in range(3)]
            _, low, high, _ = compare.interval(one, other)
            held += low <= 1.5 <= high
        self.assertGreaterEqual(held, 370)
        self.assertLess(held, 400)

    def test_holms_correction(self):
        self.assertEqual(compare.beyond_chance([0.04]), {0})
        self.assertEqual(compare.beyond_chance([0.04, 0.04]), set())
        self.assertEqual(compare.beyond_chance([0.04, None, 0.01]), {0, 2})
        self.assertEqual(compare.beyond_chance([]), set())

    def test_verdict(self):
        for arguments, wanted in (
                ((1.5, True, False, 10), "worse"), ((1.5, True, True, 10), "better"),
                ((0.5, True, False, 10), "better"), ((0.5, True, True, 10), "worse"),
                ((1.5, False, False, 10), "same"), ((1.05, True, False, 10), "same"),
                ((1.05, True, False, 1), "worse"), ((0.95, True, True, 10), "same"),
                ((9.0, None, True, 10), "unknown")):
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
        self.assertEqual({key: (round(row["ratio"], 9), row["verdict"]) for key, row in rows.items()}, {
            ("rtt svio-nic netdev 64 B", "p50_us"): (1, "same"),
            ("rtt svio-nic netdev 64 B", "p99_us"): (1, "same"),
            ("tx svio-nic netdev 1400 B", "per_s"): (1, "same")})

    def test_absolute(self):
        status, rows = self.rows(demo(), demo(speed=0.5), "--absolute")
        self.assertEqual(status, 1)
        self.assertAlmostEqual(rows["rtt virtio-net-pci netdev 64 B", "p50_us"]["ratio"], 2, places=9)
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

    def test_one_round_decides_nothing(self):
        status, out, _ = self.run_verb(demo(rounds=1), demo(gain=5, rounds=1))
        self.assertEqual(status, 0)
        self.assertIn("0 worse, 3 unknown: a figure of one round decides nothing", out)

    def test_false_alarms_of_three_rounds_are_rare(self):
        """Two results of the same code on a host that wanders by 30 %: at most one alarm in twenty."""
        alarms = sum(any(row["verdict"] == "worse" for row in compare.compare(
            demo(rounds=3, noise=0.3, seed=n), demo(rounds=3, noise=0.3, seed=1000 + n))["rows"])
            for n in range(200))
        self.assertLessEqual(alarms, 10)

    def test_bench(self):
        """Beside virtio-net in its round; Xen's rows beside Xen's split driver."""
        result = {"complete": True, "host": {}, "cells": {
            "guest": [{"round": n, "approach": name, "kind": "rtt", "size": 64, "p50_us": p50 * n}
                      for n in (1, 2, 3) for name, p50 in (("virtio", 100), ("e1000", 300))],
            "xen": [{"round": n, "approach": name, "kind": "rtt", "size": 64, "p50_us": p50 * n}
                    for n in (1, 2, 3) for name, p50 in (("xen-split", 1000), ("xen-vif", 250))]}}
        _, rows = self.rows(result, result)
        self.assertEqual({key[0]: round(row["before"], 9) for key, row in rows.items()},
                         {"rtt e1000 64 B": 3, "rtt xen-vif 64 B": 0.25})
        self.assertNotIn("headline", self.run_verb(result, result)[1], "nothing says that bench made them")

    def test_headlines_of_bench(self):
        def result(*p50s):
            cells = [{"round": n, "approach": name, "kind": "rtt", "size": 64, "p50_us": p50, "messages": 1,
                      "interrupts": 1, "cpu_s": {}} for n in (1, 2)
                     for name, p50 in zip(("virtio", "e1000", "vmxnet3"), (100, *p50s))]
            return {"measurement": "bench", "complete": True, "host": {}, "cells": {"guest": cells},
                    "summary": lab_stats.summary({"guest": cells})}
        out = self.run_verb(result(300, 200), result(300, 210))[1]
        self.assertIn("1 of 2 headline intervals overlap; apart: vmxnet3 rtt_64 p50_us.", out)
        self.assertIn("2 of 2 headline intervals overlap.", self.run_verb(result(1, 2), result(1, 2))[1])
        broken = result(300, 200)
        del broken["summary"]["e1000"]["rtt_64"]["ratio"]["p50_us"]["low"]
        self.assertEqual(self.run_verb(broken, result(1, 2))[0], 2)

    def test_tolerance(self):
        self.assertEqual(self.run_verb(demo(), demo(gain=0.54))[0], 0)
        self.assertEqual(self.run_verb(demo(), demo(gain=0.54), "--tolerance", "5")[0], 1)

    def test_scaling_and_xen(self):
        _, rows = self.rows(scaling(), scaling())
        self.assertEqual({key: round(row["before"], 9) for key, row in rows.items()}, {
            ("rate 32 VIFs", "per_s"): 0.9, ("trip vifs-64 64 B", "p50_us"): 0.8,
            ("trip vifs-64 64 B", "p99_us"): 0.8})
        _, rows = self.rows(vms(), vms())
        self.assertEqual({key: round(row["before"], 9) for key, row in rows.items()}, {
            ("trip svio 2 VMs 64 B", "p50_us"): 0.3, ("trip svio 2 VMs 64 B", "p99_us"): 0.3,
            ("tcp svio 2 VMs", "stream_mbit_per_s"): 9})
        _, rows = self.rows(xen(), xen())
        self.assertAlmostEqual(rows["rtt vif wire 1 guest 64 B", "p50_us"]["before"], 0.3)

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
