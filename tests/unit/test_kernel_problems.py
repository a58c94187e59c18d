# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a guest's log counts as a complaint of its kernel."""
import unittest

from svio_tool.vm import HARMLESS, PROBLEMS


def complaint(line):
    return bool(PROBLEMS.search(line)) and not HARMLESS.search(line)


class Lines(unittest.TestCase):
    def test_dma_debugging_says_that_it_is_there(self):
        self.assertFalse(complaint("[    1.197382] DMA-API: preallocated 65536 debug entries"))
        self.assertFalse(complaint("[    1.197746] DMA-API: debugging enabled by kernel config"))

    def test_complaints(self):
        for line in ("[    9.1] DMA-API: svio: device driver frees DMA memory with wrong function",
                     "[    9.1] WARNING: possible circular locking dependency detected",
                     "[    9.1] BUG: KASAN: slab-use-after-free in svio_poll+0x1/0x2 [svio]"):
            self.assertTrue(complaint(line), line)


if __name__ == "__main__":
    unittest.main()
