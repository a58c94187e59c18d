# SPDX-License-Identifier: GPL-2.0-or-later
"""The card as an SR-IOV NIC under management: ip link set vf, its own socket, devlink."""
from sriov import SriovCase
from sriov_managed import Kept, LiveChanges, Tools, Traffic


class TestManaged(Tools, Traffic, LiveChanges, Kept, SriovCase):
    NAME, MANAGED = "managed", True

    def test_zz_healthy(self):
        """Nothing of all that was a fault of the cards' drivers."""
        self.assertEqual(self.leaks(), "")
        self.assertEqual(self.vm.kernel_problems(), [])
