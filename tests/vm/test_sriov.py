# SPDX-License-Identifier: GPL-2.0-or-later
"""The card as an SR-IOV NIC: traffic between VFs, PF and wire; VFs that come and go, resets."""
from sriov import FOREIGN, KIB, VIFS, SriovCase


class Plain:
    """What needs no management."""

    def test_lspci(self):
        out = self.run_in(f"lspci -vvv -s {self.place}")
        self.assertIn("Single Root I/O Virtualization (SR-IOV)", out)
        self.assertRegex(out, rf"Initial VFs: {VIFS}, Total VFs: {VIFS}, Number of VFs: 2")
        self.assertRegex(out, r"VF offset: 128, stride: 2, Device ID: 5111")
        self.assertIn("Kernel driver in use: svio", out)
        out = self.run_in(f"lspci -v -s {self.vf_place(1)}")
        self.assertIn("MSI-X: Enable+", out)
        self.assertIn("Kernel driver in use: svio", out)

    def test_matrix(self):
        for one, other in (("v0", "v1"), ("v0", "P"), ("v1", "W"), ("P", "W")):
            self.wait_answer(one, other)
        before = self.vif("far")
        self.transfers(["P", "v0", "v1", "W"])
        after = self.vif("far")
        # The wire saw what concerned it, and not what went from VIF to VIF: six of the twelve files.
        for counter in ("rx_bytes", "tx_bytes"):
            self.assertLess(after[counter] - before[counter], 5 * 256 * KIB, counter)

    def test_broadcast(self):
        """One copy to each of the others, none back."""
        names = ["v0", "v1"]
        before = {ns: self.counters(int(ns[1:]))["rx_broadcast"] for ns in names}
        self.run_in("ip netns exec v0 arping -q -b -c 3 -w 10 -I vf0 10.9.0.99; true")
        self.wait_counter(1, "rx_broadcast", before["v1"] + 3)
        self.assertEqual(self.counters(0)["rx_broadcast"], before["v0"])

    def test_spoofed(self):
        """A foreign source MAC is dropped and counted."""
        before = self.counters(0)["drop_tx_spoof"]
        heard = self.counters(1)["rx_frames"]
        self.send_raw(0, self.raw(self.mac_of("v1"), FOREIGN), 5)
        self.wait_counter(0, "drop_tx_spoof", before + 5)
        self.assertEqual(self.counters(1)["rx_frames"], heard)


class Life:
    """VFs that come and go, and resets."""

    def test_reload(self):
        """The PF's driver goes and comes while VFs carry traffic: they go with it, and come again."""
        stream = self.steady("v0", "v1")
        self.run_in(f"echo {self.place} >/sys/bus/pci/drivers/svio/unbind")
        self.assertEqual(self.number(), 0)
        stream.kill()
        self.run_in(f"echo {self.place} >/sys/bus/pci/drivers/svio/bind")
        self.name_interfaces(self.card["pf"])
        self.run_in("ip link set pf up && ip address replace 10.9.0.1/24 dev pf")
        self.enable(2)
        self.wait_answer("v0", "P")
        # One VF alone: the others do not notice.
        place = self.vf_place(1)
        stream = self.steady("v0", "W")
        for _ in range(3):
            self.run_in(f"echo {place} >/sys/bus/pci/drivers/svio/unbind && "
                        f"echo {place} >/sys/bus/pci/drivers/svio/bind")
            self.take(1)
        self.assertIsNone(stream.poll())
        stream.kill()
        self.transfers(["v0", "v1", "W"], 64)

    def test_module(self):
        """The module goes with PF and VFs, and comes."""
        self.run_in("rmmod svio && modprobe svio")
        self.name_interfaces(*self.card.values())
        self.run_in("ip link set far netns W")
        self.settle("W", "far")
        self.run_in("ip link set pf up && ip address replace 10.9.0.1/24 dev pf")
        self.enable(2)
        self.transfers(["P", "v0", "v1", "W"], 64)

    def test_reset_vf(self):
        """A function-level reset of one VF: it goes on, and the others do not notice."""
        self.wait_answer("v1", "W")
        stream = self.steady("v1", "W")
        for _ in range(2):
            self.run_in(f"echo 1 >/sys/bus/pci/devices/{self.vf_place(0)}/reset")
            self.wait_answer("v0", "v1")
        self.assertIsNone(stream.poll())
        stream.kill()
        self.transfers(["v0", "v1", "W"], 64)

    def test_reset_pf(self):
        """One of the PF takes its VFs along, and all come back."""
        self.run_in(f"echo 1 >{self.pci}/reset")
        self.assertEqual(self.number(), 2)
        self.wait_answer("v0", "v1")
        self.wait_answer("v1", "P")
        self.transfers(["P", "v0", "v1", "W"], 64)

    def test_too_many(self):
        self.assertNotEqual(self.vm.run(f"echo {VIFS + 1} >{self.pci}/sriov_numvfs", check=False).rc, 0)
        self.assertEqual(self.number(), 2)


class TestSriov(Plain, Life, SriovCase):
    NAME = "sriov"
