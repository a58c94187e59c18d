# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests of the Xen machine as their files say them, and what is refused before xl sees it."""
import unittest

from svio_tool.ui import SvioError
from svio_tool.xen_machine import DIRECT_ADDRESS, DIRECT_BDF, DIRECT_MAC, WIRE_ADDRESS, Guest, XenMachine


class TestXenGuest(unittest.TestCase):
    def machine(self, **options):
        machine = XenMachine("xen-unit", vifs=2, **options)
        machine.run = machine.put = lambda *words, **named: None
        return machine

    def test_files_by_kind(self):
        split = Guest("a", "netfront", index=1).xl_config()
        self.assertIn("vif=['mac=00:16:3e:78:65:01,bridge=xenbr0']", split)
        self.assertNotIn("pci=", split)
        vif = Guest("b", "vif", index=2, slot=2, vlan=7, rate=50).xl_config()
        self.assertIn("pci=['0000:01:10.2,seize=1']", vif)
        self.assertIn("svio=['bdf=0000:01:10.2,mac=00:16:3e:78:65:02,vlan=7,rate=50']", vif)
        direct = Guest("c", "direct", index=3).xl_config()
        self.assertIn(f"pci=['{DIRECT_BDF},seize=1']", direct)
        self.assertIn("guest.ip=10.89.0.13/16", direct)
        self.assertNotIn("svio=", direct)
        for text in (vif, direct):      # DMA of a device needs bounce buffers
            self.assertIn("swiotlb=", text)

    def test_each_kind_has_its_wire(self):
        self.assertEqual([(Guest("a", kind).wire_address) for kind in ("netfront", "vif", "direct")],
                         [WIRE_ADDRESS, WIRE_ADDRESS, DIRECT_ADDRESS])
        self.assertEqual(Guest("a", "direct", index=9).mac, DIRECT_MAC)

    def test_refusals(self):
        for options in ({"vlan": 3}, {"trust": True}, {"rate": 10}):
            with self.subTest(options), self.assertRaisesRegex(SvioError, "nobody is left"):
                Guest("a", "direct", **options).check()
        with self.assertRaisesRegex(SvioError, "the machine has none besides the card"):
            self.machine().launch(Guest("a", "direct"))
        with self.assertRaisesRegex(SvioError, "its kind is one of"):
            Guest("a", "hvm").check()

    def test_accelerators(self):
        """Under KVM the IOMMU remaps interrupts only if QEMU has the interrupt controllers."""
        kvm = " ".join(self.machine(accel="kvm").command())
        self.assertIn("-accel kvm,kernel-irqchip=split -cpu host", kvm)
        self.assertIn("intel-iommu,intremap=on", kvm)
        self.assertIn("-accel tcg,thread=multi -cpu qemu64,+npt",
                      " ".join(self.machine(accel="tcg").command()))

    def test_one_guest_has_the_whole_nic(self):
        machine = self.machine(direct="n1", netdevs=["user,id=n0", "user,id=n1"])
        self.assertIn("e1000e,id=direct0,bus=rp1,netdev=n1", " ".join(machine.command()))
        machine.launch(Guest("a", "direct"))
        with self.assertRaisesRegex(SvioError, "another guest has the e1000e"):
            machine.launch(Guest("b", "direct"))


if __name__ == "__main__":
    unittest.main()
