# SPDX-License-Identifier: GPL-2.0-or-later
"""svio-instructions.so in a guest: it counts from its start, or asleep from the first who asks on."""
import subprocess
import tempfile
import unittest
from pathlib import Path

from case import wait_for
from svio_tool.anatomy import read_instructions
from svio_tool.paths import INSTRUCTIONS, QEMU
from svio_tool.vm import Vm

# A shell's loop takes more than one instruction for each turn.
TURNS = 100000
WORK = f"i=0; while [ $i -lt {TURNS} ]; do i=$((i + 1)); done; echo $i"


class TestInstructions(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="svio-vm-")
        self.addCleanup(folder.cleanup)
        self.socket = Path(folder.name) / "count"

    def work(self, vm):
        """Instructions while the guest counts to a known number."""
        before = read_instructions(self.socket)
        self.assertEqual(vm.run(WORK).out, f"{TURNS}\n")
        return read_instructions(self.socket) - before

    def vm(self, name, options=""):
        return self.enterContext(Vm(name, accel="tcg", extra=[
            "-plugin", f"{INSTRUCTIONS},socket={self.socket}{options}"]))

    def test_from_the_start(self):
        vm = self.vm("test-counting")
        self.assertGreater(read_instructions(self.socket), 10 ** 8)     # a kernel has booted
        self.assertGreater(self.work(vm), 10 * TURNS)
        vm.stop()
        self.assertFalse(self.socket.exists())

    def test_asleep(self):
        vm = self.vm("test-counting-asleep", ",asleep=on")
        self.assertEqual(vm.run(WORK).out, f"{TURNS}\n")
        self.assertEqual(read_instructions(self.socket), 0)
        wait_for(lambda: read_instructions(self.socket), "the counter does not wake up")
        self.assertGreater(self.work(vm), 10 * TURNS)
        vm.stop()
        self.assertFalse(self.socket.exists())

    def test_options(self):
        for words, said in (("", "wants socket=PATH"), (f",socket={self.socket},asleep=maybe", "asleep=on"),
                            (f",socket=/nowhere/{'x' * 120}", "File name too long")):
            done = subprocess.run([QEMU, "-display", "none", "-machine", "none", "-plugin",
                                   f"{INSTRUCTIONS}{words}"], capture_output=True, text=True, timeout=60,
                                  stdin=subprocess.DEVNULL, check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(said, done.stderr)


if __name__ == "__main__":
    unittest.main()
