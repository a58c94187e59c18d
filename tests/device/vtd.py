# SPDX-License-Identifier: GPL-2.0-or-later
"""As much of an Intel IOMMU driver as it takes to translate the addresses of functions of one bus."""
import struct

from machine import wait_for

BASE = 0xfed90000
CAP, ECAP, GCMD, GSTS, RTADDR, CCMD, FSTS = 0x08, 0x10, 0x18, 0x1c, 0x20, 0x28, 0x34
CONTEXT_OF_DEVICE = 1 << 63 | 3 << 61  # CCMD: invalidate
DOMAIN = 1
ALL_OF_DOMAIN = 1 << 63 | 2 << 60 | DOMAIN << 32  # IOTLB: invalidate
SET_ROOT, TRANSLATE = 1 << 30, 1 << 31
IOVA = 0x40000000  # the gigabyte in which the machine's RAM appears


class Vtd:
    """Maps IOVA + x to x, in pages of 2 MiB, for each function that is added; everything else faults."""

    def __init__(self, driver, megabytes=64, bus=0):
        self.qtest = driver.qtest
        self.root, self.context = (driver.allocate(4096) for _ in range(2))
        self.levels = 4 if self.qtest.load(8, BASE + CAP) >> 10 & 1 else 3
        self.put(self.root + 16 * bus, self.context | 1, 0)
        self.second = self.add(driver.function, driver.allocate, 0, megabytes)

    def add(self, function, allocate, first, megabytes):
        """For x of so many megabytes from `first` on."""
        top, second, upper = (allocate(4096) for _ in range(3))
        table = upper if self.levels == 4 else top
        self.put(self.context + 16 * function.devfn, table | 1, DOMAIN << 8 | self.levels - 2)
        if self.levels == 4:
            self.qtest.write(upper, struct.pack("<Q", top | 3))
        self.qtest.write(top + 8 * (IOVA >> 30), struct.pack("<Q", second | 3))
        for n in range(first // 2, (first + megabytes) // 2):
            self.qtest.write(second + 8 * n, struct.pack("<Q", n << 21 | 0x83))
        return second

    def put(self, at, low, high):
        self.qtest.write(at, struct.pack("<QQ", low, high))

    def command(self, bit, wanted):
        self.qtest.store(4, BASE + GCMD, bit)
        wait_for(lambda: self.qtest.load(4, BASE + GSTS) & bit == wanted, "the IOMMU's answer")

    def enable(self):
        self.qtest.store(8, BASE + RTADDR, self.root)
        self.command(SET_ROOT, SET_ROOT)
        self.command(TRANSLATE, TRANSLATE)

    def detach(self, function):
        """Takes the function's context entry away, as when its guest ends. Its words, for attach()."""
        at = self.context + 16 * function.devfn
        words = self.qtest.read(at, 16)
        self.put(at, 0, 0)
        self.qtest.store(8, BASE + CCMD, CONTEXT_OF_DEVICE | function.devfn << 16)
        wait_for(lambda: not self.qtest.load(8, BASE + CCMD) >> 63, "the context cache is empty")
        return words

    def flush(self):
        """Every translation of the domain is asked for again."""
        at = BASE + (self.qtest.load(8, BASE + ECAP) >> 8 & 0x3ff) * 16 + 8
        self.qtest.store(8, at, ALL_OF_DOMAIN)
        wait_for(lambda: not self.qtest.load(8, at) >> 63, "the IOTLB is empty")

    def attach(self, function, words):
        self.qtest.write(self.context + 16 * function.devfn, words)

    def faults(self):
        """Whether faults were recorded; they are forgotten."""
        status = self.qtest.load(4, BASE + FSTS)
        if status & 2:
            offset = (self.qtest.load(8, BASE + CAP) >> 24 & 0x3ff) * 16
            self.qtest.store(4, BASE + offset + 12, 1 << 31)
            self.qtest.store(4, BASE + FSTS, 1)
        return bool(status & 2)

    def disable(self):
        self.qtest.store(4, BASE + GCMD, 0)
        wait_for(lambda: not self.qtest.load(4, BASE + GSTS) & TRANSLATE, "translation off")
