# SPDX-License-Identifier: GPL-2.0-or-later
"""One card at a time against a peer, on each kernel and machine."""
from basics import BasicVm, Facts, Idle, LoadUnload, Ping, Transfer
from disturb import Changes, Filters, Life, Overrun, SystemReset


class TestQ35(Facts, Ping, Transfer, Idle, LoadUnload, Filters, Life, Changes, Overrun, SystemReset, BasicVm):
    NAME = "q35"

    def test_zz_healthy(self):
        self.check_health()
