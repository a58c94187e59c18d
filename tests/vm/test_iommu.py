# SPDX-License-Identifier: GPL-2.0-or-later
"""Cards behind a virtual IOMMU, and cards that are pulled out without a word."""
import re

from disturb import Transfers
from plug import PlugCase, PortCard
from svio_tool.worker import long
from wires import ByHand, Flood, cross, mac_bytes, udp, user

MIB = 1 << 20


class IommuCase(Transfers, PlugCase):
    """One pair of cards on a native port, one by hand, one on the user network."""

    PAIRS = {"native": (1, "pa", "pb")}
    FAULT, TELLS = r"DMAR: \[DMA|AMD-Vi: Event logged", True

    @classmethod
    def cards(cls):
        one, other = cross(cls.folder, "port", native=True)
        return [PortCard("pa", 1, one), PortCard("pb", 2, other, "cores=2"),
                PortCard("user", 3, user("user")),
                PortCard("hand", 4, ByHand(cls.folder, "hand", native=False))]

    @classmethod
    def prepare(cls):
        super().prepare()
        cls.set_up_user()
        cls.run_in("ip link set hand up")

    def targets(self):
        return [end[3] for end in self.ends("native")]

    def slot(self, card):
        return f"0000:{card.index:02x}:00.0"

    def faults(self):
        return len(re.findall(self.FAULT, self.vm.log()))


class Translated:
    """What each IOMMU is asked."""

    def test_aa_translation_is_on(self):
        """Each card has a domain of its own that translates, and its rings are not where RAM is."""
        for card in self.card.values():
            kind = self.run_in(f"cat /sys/bus/pci/devices/{self.slot(card)}/iommu_group/type").strip()
            self.assertEqual(kind, self.DOMAIN)
            # Addresses are given from the top of the first 4 GiB down; the guest's RAM ends far below.
            self.assertGreater(self.queue_address(card, 0), 0xc0000000)

    def test_traffic(self):
        faults = self.faults()
        self.ping("native", "-f -s 1400", 300)
        self.tcp_both_ways(self.targets(), 4)
        for ns, dev, _, _ in self.ends("native"):
            self.run_in(f"ip -n {ns} link set {dev} mtu 9000")
        self.ping("native", "-s 8972 -M do -i 0.02", 20)
        self.tcp_both_ways(self.targets(), 4)
        self.exchange()
        self.assertEqual(self.faults(), faults)

    def test_buffers_come_and_go(self):
        """Down, up, other sizes, another driver's life, all while frames come: nothing is reached that was
        unmapped, which the IOMMU would have told."""
        card = self.card["hand"]
        data = udp(mac_bytes(card.mac), bytes(900))

        def send(number):
            card.wire.drain()
            return card.wire.try_send(data)
        with Flood(send) as flood:
            for number in range(6):
                self.run_in("ip link set hand down; ip link set hand up; "
                            f"ethtool -G hand rx {64 << number % 3} tx {64 << number % 3}")
            for _ in range(2):
                self.run_in(f"cd /sys/bus/pci/drivers/svio && echo {self.slot(card)} >unbind && "
                            f"echo {self.slot(card)} >bind")
                self.name_interfaces(card)
                self.run_in("ip link set hand up")
            seen = flood.sent
            self.wait(lambda: flood.sent > seen + 200, "frames are taken")
        self.assertEqual(self.faults(), 0)

    def test_fault_is_an_error_of_the_queue(self):
        """A ring at an address that is not mapped: the IOMMU tells, the queue fails, the driver resets."""
        card = self.card["hand"]
        before, faults = self.vif("hand"), self.faults()
        part = next(part for part in self.vm.hmp("info pci").split("  Bus ") if 'id "hand"' in part)
        queue = int(re.search(r"BAR0: .* at (0x[0-9a-f]+)", part)[1], 16) + 0x4000
        # Stop the send queue, put its ring where nothing is mapped (they give from the top), start it.
        for register, value in ((0x18, 0), (0x00, 0x200000), (0x04, 0), (0x18, 1)):
            self.run_in(f"busybox devmem {queue + register:#x} 32 {value:#x}")
        self.wait(lambda: self.vif("hand")["resets"] > before["resets"], "the driver resets it")
        self.assertEqual(self.vif("hand")["queue_errors"], before["queue_errors"] + 1)
        if self.TELLS:
            self.wait(lambda: self.faults() > faults, "the IOMMU has told")
        self.wait(lambda: self.ethtool(card)["resets"] == 1, "the driver counts it")
        self.assertIn("send queue 0 in error at position 0: bad address", self.vm.log())
        data = udp(mac_bytes(card.mac), bytes(900))
        frames = self.vif("hand")["rx_frames"]
        for _ in range(300):
            card.wire.send(data)
        self.wait(lambda: self.vif("hand")["rx_frames"] >= frames + 300, "frames come")
        self.exchange(MIB)
        self.assertEqual(self.vif("pa")["queue_errors"], 0)


class TestIntel(Translated, IommuCase):
    """Strict: each buffer is unmapped at once."""

    NAME, DOMAIN = "intel-iommu", "DMA"
    IOMMU = ("intel-iommu,intremap=on",)
    APPEND = "intel_iommu=on iommu.strict=1 iomem=relaxed"

    def test_ab_interrupts_are_remapped(self):
        self.assertIn("Enabled IRQ remapping", self.vm.log())
        self.assertRegex(self.run_in("cat /proc/interrupts"), r"IR-PCI-MSI\S*.*pa-0")


@long
class TestIntelLazy(Translated, IommuCase):
    """Unmapped buffers stay reachable for a while, in batches."""
    NAME, DOMAIN = "intel-iommu-lazy", "DMA-FQ"
    IOMMU = ("intel-iommu,intremap=off",)
    APPEND = "intel_iommu=on iommu.strict=0 iomem=relaxed"


class TestAmd(Translated, IommuCase):
    """Translates with pt=off only, and tells nothing of an address that has no page table."""
    NAME, DOMAIN, TELLS = "amd-iommu", "DMA", False
    IOMMU = ("amd-iommu,pt=off,intremap=off",)
    APPEND = "amd_iommu=on iommu.strict=1 iommu.passthrough=0 iomem=relaxed"

    @long
    def test_traffic(self):
        super().test_traffic()

    @long
    def test_buffers_come_and_go(self):
        super().test_buffers_come_and_go()
