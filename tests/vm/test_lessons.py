# SPDX-License-Identifier: GPL-2.0-or-later
"""Each lesson, short, to its end: what it counted. Nothing here depends on speed."""
import contextlib
import io
import unittest

from svio_tool import lesson, setup
from svio_tool.lessons import LESSONS
from svio_tool.paths import GUEST_SLOWNESS
from svio_tool.worker import long


class Lessons(unittest.TestCase):
    def teach(self, *names):
        """{name: figures}; a claim about counts must hold in each run, one about times need not."""
        result, out = {"lessons": {}}, io.StringIO()
        with contextlib.redirect_stdout(out):
            lesson.run([LESSONS[name] for name in names], True, False, lesson.Writer(None), result)
        found = {}
        for name in names:
            one = result["lessons"][name]
            for expectation in one["expectations"]:
                if " us" not in expectation["text"]:
                    self.assertTrue(expectation["held"], expectation["text"])
            self.assertIn(f"docs/lessons/{name}.md", out.getvalue())
            found[name] = one["figures"]
        return found


class TestLessons(Lessons):
    def test_emulation(self):
        found = self.teach("emulation")["emulation"]
        self.assertGreater(found["e1000"]["reads"], 1)
        self.assertGreater(found["e1000"]["writes"], found["virtio"]["writes"])
        self.assertEqual((found["virtio"]["reads"], found["svio-native"]["reads"]), (0, 0))

    def test_self_virtualization(self):
        found = self.teach("self-virtualization")["self-virtualization"]
        self.assertGreaterEqual(found["switched"], found["messages"])
        self.assertEqual([(step["reaches_other"], step["reaches_wire"]) for step in found["steps"]],
                         [(False, False), (True, False), (False, True), (True, True)])

    @unittest.skipIf(GUEST_SLOWNESS > 1, "a guest that is slow on purpose comes after the core's patience")
    def test_polling(self):
        found = self.teach("polling")["polling"]
        self.assertGreater(found["svio-sleep"]["doorbells"], found["svio-native"]["doorbells"])
        self.assertGreater(found["svio-sleep"]["sleeps"], found["svio-native"]["sleeps"])

    def test_shared_signals(self):
        found = self.teach("shared-signals")["shared-signals"]
        self.assertEqual([found["msix"][slot][1] for slot in "912"], [0, 0, 0])
        self.assertGreater(found["shared"]["1"][1], 0)
        self.assertEqual(found["shared"]["2"], [0, 0])
        # Whoever shares the bit is signalled in vain for each signal of the other.
        self.assertEqual(found["shared"]["1"][1], found["shared"]["9"][0])

    def test_hostile_guest(self):
        found = self.teach("hostile-guest")["hostile-guest"]
        self.assertGreaterEqual(found["operations"], 20_000)
        self.assertEqual((found["whole"], found["works_after"], found["kernel_problems"]),
                         (found["downloads"], True, []))
        self.assertGreater(found["counted"]["error_dma"], 0)


@long
@unittest.skipIf(GUEST_SLOWNESS > 1, "the machine with Xen has a kernel of its own")
class TestXenLessons(Lessons):
    svio_minutes = 2

    @classmethod
    def setUpClass(cls):
        setup.ensure(["xen-image"])

    def test_split_driver_and_direct_access(self):
        """Both in one boot of Xen."""
        found = self.teach("split-driver", "direct-access")
        self.assertGreaterEqual(found["split-driver"]["split"]["dom0_events"], 1)
        direct = found["direct-access"]
        self.assertEqual(direct["direct"]["dom0_events"], 0)
        self.assertIn("not assignable", direct["second_owner"]["output"])
        self.assertGreater(direct["moved"]["split"]["after"], 0)
        self.assertEqual(direct["moved"]["direct"]["after"], 0)


if __name__ == "__main__":
    unittest.main()
