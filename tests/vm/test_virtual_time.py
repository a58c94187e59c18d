# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb "virtual-time": two short runs of a whole guest, equal byte for byte."""
import json
import subprocess
import tempfile
import unittest
from pathlib import Path

from svio_tool import paths


def svio(*words):
    return subprocess.run([str(paths.REPO / "scripts/svio"), "virtual-time", *words],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)


class TestVirtualTime(unittest.TestCase):
    def test_two_runs_are_equal(self):
        with tempfile.TemporaryDirectory(prefix="svio-virtual-") as folder:
            done = svio("--row", "vif-echo", "--count", "20", "--json", f"{folder}/json")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            found = json.loads(Path(folder, "json").read_text())
        self.assertRegex(done.stdout, "length of the software path, not time")
        row, = found["rows"]
        self.assertTrue(row["equal"])
        self.assertEqual(row["lost"], 0)
        self.assertEqual(row["text"].count("bytes from 10.0.2.2"), 20)
        # A look and a message for the request, and the same for the answer.
        self.assertGreater(row["min_us"], 4)

    def test_refusals(self):
        for words, sentence in ((("--count", "0"), "--count 0 is not between 1 and 10000"),
                                (("--shift", "11"), "--shift 11 is not between 0 and 10"),
                                (("--poll-cost-ns", "0"), "--poll-cost-ns 0 is not between 1 and")):
            with self.subTest(words=words):
                done = svio(*words)
                self.assertEqual(done.returncode, 1)
                self.assertIn(sentence, done.stderr)


if __name__ == "__main__":
    unittest.main()
