# SPDX-License-Identifier: GPL-2.0-or-later
"""The answer of the KVM probe is kept, also when several processes probe at the same time."""
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from svio_tool import kvm  # noqa: E402 (the path comes first)


class TestProbe(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="svio-unit-")
        self.addCleanup(folder.cleanup)
        self.cache = Path(folder.name) / "kvm-probe.json"
        self.probes = 0
        kvm.works.cache_clear()
        self.addCleanup(kvm.works.cache_clear)
        for where, what in ((kvm, {"CACHE": self.cache, "_probe": self.probe, "_key": lambda: ["key"]}),
                            (kvm.os.path, {"exists": lambda path: True}),
                            (kvm.os, {"access": lambda *arguments: True}),
                            (kvm.kernels, {"info": lambda kernel: {"image": "image"}})):
            for name, value in what.items():
                patch = mock.patch.object(where, name, value)
                patch.start()
                self.addCleanup(patch.stop)

    def probe(self, image):
        self.probes += 1
        return False, "it stopped"

    def test_kept(self):
        self.assertEqual(kvm.works(), (False, "it stopped"))
        kvm.works.cache_clear()
        self.assertEqual(kvm.works(), (False, "it stopped"))
        self.assertEqual(self.probes, 1)

    def xen(self, works, returncode=0, stderr=""):
        """What is said of QEMU's emulated Xen: the answer, and how often QEMU was asked."""
        done = subprocess.CompletedProcess((), returncode, "", stderr)
        kvm.emulates_xen.cache_clear()
        self.addCleanup(kvm.emulates_xen.cache_clear)
        with mock.patch.object(kvm, "works", lambda: works), \
                mock.patch.object(kvm.subprocess, "run", return_value=done) as run:
            return kvm.emulates_xen(), run.call_count

    def test_emulated_xen(self):
        """QEMU itself is asked, and only where KVM works."""
        self.assertEqual(self.xen((True, "")), ((True, "QEMU starts with it"), 1))
        (found, why), _ = self.xen((True, ""), 1, "qemu: -accel kvm: kvm: Xen HVM guest support not present\n"
                                                  "qemu: -accel kvm: failed to initialize kvm\n")
        self.assertIs(found, False)
        self.assertEqual(why, "QEMU cannot emulate Xen here: Xen HVM guest support not present")
        (found, why), asked = self.xen((False, "qemu-system-x86_64: it stopped"))
        self.assertEqual((found, asked), (False, 0))
        self.assertIn("KVM does not work here (it stopped;", why)

    def test_two_at_the_same_time(self):
        """Another process writes its answer between our writing and our renaming."""
        replace = Path.replace

        def late(path, target):
            pid = os.fork()
            if pid == 0:
                with mock.patch.object(Path, "replace", replace):
                    kvm.works.cache_clear()
                    os._exit(0 if kvm.works() == (False, "it stopped") else 1)
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
            return replace(path, target)

        with mock.patch.object(Path, "replace", late):
            self.assertEqual(kvm.works(), (False, "it stopped"))
        self.assertEqual(json.loads(self.cache.read_text()),
                         {"key": ["key"], "works": False, "why": "it stopped"})
        self.assertEqual([path.name for path in self.cache.parent.iterdir()], [self.cache.name])


if __name__ == "__main__":
    unittest.main()
