# SPDX-License-Identifier: GPL-2.0-or-later
"""One card at a time against a peer, on each kernel and machine."""
from basics import BasicVm, Facts, Idle, LoadUnload, Ping, Transfer
from disturb import Changes, Filters, Frames, Life, Overrun, SystemReset
from sleep import MAY_SLEEP, Sleep
from features import Xdp


class Healthy:
    def test_zz_healthy(self):
        self.check_health()


class TestQ35(Facts, Ping, Transfer, Idle, LoadUnload, Filters, Life, Changes, Overrun, SystemReset, Healthy,
              BasicVm):
    NAME = "q35"


class TestPc(Facts, Ping, Transfer, SystemReset, Sleep, Frames, Healthy, BasicVm):
    """The older machine: conventional PCI, no function-level reset."""
    NAME, MACHINE, RESETS, EXTRA = "pc", "pc", 1, MAY_SLEEP["pc"]


class TestLinux61(Facts, Ping, Transfer, Xdp, LoadUnload, Overrun, Healthy, BasicVm):
    NAME, KERNEL, LOADS = "linux-6.1", "6.1", 4
