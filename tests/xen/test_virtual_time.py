# SPDX-License-Identifier: GPL-2.0-or-later
"""xen demo --virtual-time: the whole Xen machine by a clock that counts instructions, twice the same."""
import json
import subprocess
import tempfile
import unittest
from pathlib import Path

from svio_tool import paths

TIMEOUT = 1500


class TestVirtualTime(unittest.TestCase):
    svio_patience = TIMEOUT + 60

    def test_two_runs_are_equal(self):
        with tempfile.TemporaryDirectory(prefix="svio-xen-virtual-") as folder:
            done = subprocess.run([str(paths.REPO / "scripts/svio"), "xen", "demo", "--virtual-time",
                                   "--count", "20", "--json", f"{folder}/json"], stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, timeout=TIMEOUT, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            found = json.loads(Path(folder, "json").read_text())
        self.assertRegex(done.stdout, "length of the software path, not time")
        self.assertRegex(done.stdout, "2 runs, each in its own QEMU: equal byte for byte")
        self.assertIs(found["equal"], True)
        rows = {(row["path"], row["what"]): row for row in found["rows"]}
        self.assertEqual(set(rows), {(path, what) for path in ("split", "vif")
                                     for what in ("trips-wire", "sent")})
        for path in ("split", "vif"):
            trips, sent = rows[path, "trips-wire"], rows[path, "sent"]
            self.assertEqual(trips["lost"], 0)
            self.assertEqual(trips["text"].count("bytes from 10.88.0.1"), 20)
            # Each of them left the guest, and came to the card.
            self.assertGreater(sent["datagrams"], 100)
            self.assertGreaterEqual(sent["card_frames"], sent["datagrams"] + 20)
            self.assertLess(sent["card_frames"], sent["datagrams"] + 100)
        # No clock of the host's is in it: the split driver's path is longer, whatever this host does.
        self.assertLess(rows["vif", "trips-wire"]["max_us"], rows["split", "trips-wire"]["median_us"])
        self.assertGreater(rows["vif", "sent"]["per_s"], rows["split", "sent"]["per_s"])


if __name__ == "__main__":
    unittest.main()
