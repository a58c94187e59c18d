# SPDX-License-Identifier: GPL-2.0-or-later
"""One card at a time against a peer, on each kernel and machine."""
import unittest

from basics import BasicVm, Facts, Idle, LoadUnload, Ping, Transfer
from disturb import Changes, Filters, Frames, Life, Overrun, SystemReset
from features import Xdp
from sleep import MAY_SLEEP, Sleep
from svio_tool.paths import GUEST_SLOWNESS


class Healthy:
    def test_zz_healthy(self):
        self.check_health()


class TestQ35(Facts, Ping, Transfer, Idle, LoadUnload, Filters, Life, Changes, Overrun, SystemReset, Healthy,
              BasicVm):
    NAME = "q35"


class TestPc(Facts, Ping, Transfer, SystemReset, Sleep, Frames, Healthy, BasicVm):
    """The older machine: conventional PCI, no function-level reset."""
    NAME, MACHINE, RESETS, EXTRA = "pc", "pc", 1, MAY_SLEEP["pc"]


@unittest.skipIf(GUEST_SLOWNESS > 1, "the debug kernel is not this one")
class TestLinux61(Facts, Ping, Transfer, Xdp, LoadUnload, Overrun, Healthy, BasicVm):
    NAME, KERNEL, LOADS = "linux-6.1", "6.1", 4
