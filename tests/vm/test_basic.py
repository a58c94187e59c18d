# SPDX-License-Identifier: GPL-2.0-or-later
"""One card at a time against a peer, on each kernel and machine."""
from basics import BasicVm, Facts, Idle, LoadUnload, Ping, Transfer
from disturb import Changes, Filters, Life, Overrun, SystemReset


class Healthy:
    def test_zz_healthy(self):
        self.check_health()


class TestQ35(Facts, Ping, Transfer, Idle, LoadUnload, Filters, Life, Changes, Overrun, SystemReset, Healthy,
              BasicVm):
    NAME = "q35"


class TestPc(Facts, Ping, Transfer, SystemReset, Healthy, BasicVm):
    """The older machine: conventional PCI, no function-level reset."""
    NAME, MACHINE, RESETS = "pc", "pc", 1


class TestLinux61(Facts, Ping, Transfer, LoadUnload, Overrun, Healthy, BasicVm):
    NAME, KERNEL, LOADS = "linux-6.1", "6.1", 4
