# SPDX-License-Identifier: GPL-2.0-or-later
"""SR-IOV: the capability, VFs that come and go, what a VF may and may not do (SPEC.md 2, 3, 4)."""
import re
import struct
import unittest
from pathlib import Path

import abi
import sriov
from machine import COMMAND, run_to_end
from sriov import SriovCase
from svio_tool import ui
from svio_tool.qmp import QmpError
from vtd import IOVA, Vtd
from wires import MAC, PEER, flood, frame

PORT = ("-device", "pcie-root-port,id=rp0,chassis=1")


def sriov_capability(vifs, bars=(0, 0), control=0, count=0):
    """What the PF has to show, byte by byte."""
    head = 0x10 | 1 << 16  # the last one
    kind = 0xc             # 64 bits, prefetchable
    return struct.pack("<IIHHHHHBxHHHHIIQQQI", head, 0, control, 0, vifs, vifs, count, 0,
                       abi.SVIO_PCI_VF_OFFSET, abi.SVIO_PCI_VF_STRIDE, 0, abi.SVIO_PCI_DEVICE_VF, 0x553, 1,
                       bars[0] | kind, bars[1] | kind, 0, 0)


class Capability(SriovCase):
    def lspci(self, *functions):
        """How pciutils understands configuration space, by address."""
        dump = Path(self.folder) / "dump"
        text = ""
        for function in functions:
            devfn = function.ecam - sriov.ECAM >> 12
            text += f"{devfn >> 8:02x}:{devfn >> 3 & 31:02x}.{devfn & 7} Ethernet controller: svio\n"
            data = function.bytes()
            text += "".join(f"{at:02x}: {data[at:at + 16].hex(' ')}\n" for at in range(0, 4096, 16)) + "\n"
        dump.write_text(text)
        said = ui.output(["lspci", "-vvv", "-n", "-A", "dump", "-O", f"dump.name={dump}"])
        return {block.split()[0]: block for block in said.strip().split("\n\n")}

    def test_bytes(self):
        for vifs in (1, 7, 64):
            with self.subTest(vifs=vifs):
                self.boot_sriov(vifs)
                self.assertEqual(self.pf.extended_capabilities(),
                                 {sriov.EXT_ARI: (1, 0x100), sriov.EXT_SRIOV: (1, self.pf.cap)})
                bars = (sriov.VF_REGS, sriov.VF_MSIX)
                self.assertEqual(self.pf.bytes(self.pf.cap, 64).hex(" "),
                                 sriov_capability(vifs, bars).hex(" "))
                self.pf.enable(vifs)
                self.assertEqual(self.pf.bytes(self.pf.cap, 64).hex(" "),
                                 sriov_capability(vifs, bars, 0x9, vifs).hex(" "))
                self.pf.function_level_reset()
                self.assertEqual(self.pf.bytes(self.pf.cap, 64).hex(" "), sriov_capability(vifs).hex(" "))
                self.assertFalse(self.pf.there(1))
                self.machine.quit()

    def test_no_vifs(self):
        """Without vifs there is no extended capability at all."""
        self.boot(self.kind, pcie_port=True)
        sriov.open_ecam(self.machine)
        pf = sriov.ExpressFunction(self.machine, sriov.PORT_BUS, 0)
        self.assertEqual(pf.bytes(0x100, 0xf00), bytes(0xf00))

    def test_as_lspci_parses_it(self):
        self.boot_sriov(7)
        self.pf.enable(3)
        found = self.lspci(self.pf, *(self.pf.virtual(n) for n in (1, 2, 3)))
        self.assertEqual(list(found), ["01:00.0", "01:10.0", "01:10.2", "01:10.4"])
        said = re.sub(r"\s+", " ", found["01:00.0"])
        for words in ("1234:5110 (rev 01)", "Alternative Routing-ID Interpretation (ARI)",
                      "Single Root I/O Virtualization (SR-IOV)", "IOVCtl: Enable+ Migration- Interrupt- MSE+",
                      "Initial VFs: 7, Total VFs: 7, Number of VFs: 3",
                      "VF offset: 128, stride: 2, Device ID: 5111",
                      "Supported Page Size: 00000553, System Page Size: 00000001",
                      "Region 0: Memory at 00000000e1000000 (64-bit, prefetchable)",
                      "Region 2: Memory at 00000000e2000000 (64-bit, prefetchable)", "FLReset+",
                      "MSI-X: Enable- Count=9 Masked-"):
            self.assertIn(words, said)
        said = re.sub(r"\s+", " ", found["01:10.4"])
        for words in ("ffff:ffff (rev 01)", "Control: I/O- Mem+ BusMaster+", "FLReset+",
                      "MSI-X: Enable- Count=9 Masked-", "Vector table: BAR=2 offset=00000000",
                      "PBA: BAR=2 offset=00001000", "Alternative Routing-ID Interpretation (ARI)"):
            self.assertIn(words, said)
        self.assertNotIn("SR-IOV", said)
        self.assertNotIn("Region", said, "a VF has no BARs of its own")

    def test_sizes_of_bars(self):
        """As an operating system finds them out: of one VF each."""
        self.boot_sriov(5)
        for bar, size in ((abi.SVIO_BAR_REGS, abi.SVIO_BAR_REGS_SIZE),
                          (abi.SVIO_BAR_MSIX, abi.SVIO_BAR_MSIX_SIZE)):
            at = sriov.BARS + 4 * bar
            self.pf.write_cap(4, at, 0xffffffff)
            self.pf.write_cap(4, at + 4, 0xffffffff)
            value = self.pf.read_cap(4, at) | self.pf.read_cap(4, at + 4) << 32
            self.assertEqual(((-(value & ~0xf)) & (1 << 64) - 1, value & 0xf), (size, 0xc))
        for bar in (1, 3, 4, 5):
            if bar % 2 == 0:
                self.pf.write_cap(4, sriov.BARS + 4 * bar, 0xffffffff)
                self.assertEqual(self.pf.read_cap(4, sriov.BARS + 4 * bar), 0)

    def test_bars_above_4_gib(self):
        """A VF is where the 64-bit BAR says, not where its lower half does."""
        self.boot_sriov(4)
        high = 0x8
        bridge = sriov.ExpressFunction(self.machine, 0, 4 << 3)
        bridge.config_write(4, 0x24, 0xfff1 << 16 | 0x0001)
        bridge.config_write(4, 0x28, high)
        bridge.config_write(4, 0x2c, high)
        for bar, low in ((0, 0x10000000), (2, 0x20000000)):
            self.pf.write_cap(4, sriov.BARS + 4 * bar, low)
            self.pf.write_cap(4, sriov.BARS + 4 * bar + 4, high)
        self.pf.enable(4)
        for n in range(1, 5):
            self.pf.virtual(n)
        for n in range(4):
            at = (high << 32) + 0x10000000 + n * abi.SVIO_BAR_REGS_SIZE
            self.assertEqual(self.machine.qtest.load(4, at), abi.SVIO_MAGIC)
            self.assertEqual(self.machine.qtest.load(4, at + abi.SVIO_REG_FUNCTION), n + 1)

    def test_more_than_there_are(self):
        """NumVFs above TotalVFs enables nothing, whatever way it is written."""
        self.boot_sriov(2)
        pf = self.pf
        for width, value in ((2, 3), (2, 0xffff), (1, 200)):
            pf.write_cap(2, sriov.NUM, 0)
            pf.write_cap(width, sriov.NUM, value)
            for size in (1, 2, 4):
                pf.write_cap(size, sriov.CONTROL, sriov.CONTROL_ENABLE | sriov.CONTROL_MEMORY)
                self.assertFalse(pf.read_cap(2, sriov.CONTROL) & sriov.CONTROL_ENABLE)
                self.assertFalse(pf.there(1) or pf.there(3))
        # The upper byte behind QEMU's back.
        pf.write_cap(2, sriov.NUM, 2)
        pf.write_cap(1, sriov.NUM + 1, 0xff)
        pf.write_cap(2, sriov.CONTROL, sriov.CONTROL_ENABLE)
        self.assertFalse(pf.there(1))
        pf.enable(2)
        self.assertTrue(pf.there(2))
        pf.write_cap(2, sriov.NUM, 9)
        self.assertEqual(pf.read_cap(2, sriov.NUM), 2, "NumVFs is read-only while VFs are enabled")
        self.assertFalse(pf.there(3))


class Refusals(unittest.TestCase):
    def refused(self, sentence, *arguments, **options):
        status, said = run_to_end(*arguments, **options)
        self.assertGreater(status, 0, f"refused, and not crashed (status {status}): {said}")
        self.assertRegex(said, sentence)
        self.assertNotRegex(said, r"(?i)assert|undefined symbol|terminate called")

    def test_values(self):
        for value in ("65", "4294967295", "-1", "x", "1000"):
            with self.subTest(value):
                self.refused(r"vifs=\d+ is more than 64|vifs", *PORT, "-device",
                             f"svio-nic,bus=rp0,vifs={value}")

    def test_conventional_bus(self):
        self.refused(r"vifs=4 needs SR-IOV, and that a PCI Express port; .*pcie-root-port", "-device",
                     "svio-nic,vifs=4", machine="pc")
        self.refused(r"vifs=4 needs SR-IOV, and that a PCI Express port", "-device", "pcie-pci-bridge,id=b",
                     "-device", "svio-nic,bus=b,addr=1,vifs=4")

    def test_root_complex(self):
        self.refused(r"vifs=4 needs SR-IOV, and that a PCI Express port", "-device", "svio-nic,vifs=4")

    def test_no_room_on_the_bus(self):
        self.refused(r"the last of vifs=64 would not be on the bus any more; use addr=0", *PORT,
                     "-device", "svio-nic,bus=rp0,addr=2,vifs=64")
        self.refused(r"in use by svio-vf", *PORT, "-device", "svio-nic,bus=rp0,multifunction=on,vifs=2",
                     "-device", "svio-nic,bus=rp0,addr=0.2,vifs=2")

    def test_vf_by_hand(self):
        self.refused(r"svio-vf", *PORT, "-device", "svio-vf,bus=rp0")


class Running(SriovCase):
    """A card whose VFs come and go, at work."""

    def test_one_vf(self):
        """Its registers, its own MSI-X, a message."""
        self.boot_sriov(3)
        self.pf.enable(3)
        driver = self.virtual(2, up=False)
        self.assertEqual(driver.read(abi.SVIO_REG_FUNCTION), 2)
        self.assertEqual(driver.read(abi.SVIO_REG_VIF_KIND), abi.SVIO_KIND_NET)
        self.assertNotEqual(driver.mac, MAC)
        driver.send.vector = 3
        driver.vectors()
        driver.bring_up()
        driver.send.arm(driver.send.posted)
        self.check_vf_out(driver)
        driver.wait_signal(3)
        # Masked it becomes a pending bit, of this VF alone.
        other = self.virtual(1)
        driver.mask(3, True)
        driver.send.arm(driver.send.posted)
        self.check_vf_out(driver, 1)
        self.wait(lambda: driver.pending(3), "the pending bit")
        self.assertFalse(other.pending(3) or driver.signalled(3))
        driver.mask(3, False)
        driver.wait_signal(3)

    def test_everybody_to_everybody(self):
        """PF, two VFs and the wire: each frame comes to whom it is for, and to nobody else."""
        self.boot_sriov(2, cores=2)
        self.pf.enable(2)
        self.driver.bring_up()
        self.driver.mac = MAC
        drivers = [self.driver, self.virtual(1), self.virtual(2)]
        for size in (60, 300, 1514, 5000):
            for sender in drivers:
                self.check_out(frame(size, size, to=PEER, source=sender.mac), driver=sender)
                self.check_in(frame(size, size + 1, to=sender.mac), driver=sender)
                for receiver in drivers:
                    if receiver is not sender:
                        data = frame(size, size + 2, to=receiver.mac, source=sender.mac)
                        sender.transmit(data, pieces=3)
                        self.assert_frame(receiver.expect("a frame of another VIF"), data)
        # Broadcast: all but the sender.
        data = frame(200, 7, to=b"\xff" * 6, source=drivers[1].mac)
        drivers[1].transmit(data)
        self.assert_frame(self.wire.receive(), data)
        for receiver in (drivers[0], drivers[2]):
            self.assert_frame(receiver.expect("the broadcast"), data)
        # A VF may not speak for another.
        drivers[1].transmit(frame(200, 8, to=PEER, source=drivers[2].mac))
        self.wait(lambda: self.vf_counter(1, "drop_tx_spoof") == 1, "the frame to be dropped")
        self.assertIsNone(self.wire.receive(0))
        for driver in drivers:
            self.assertIsNone(driver.receive.take())

    def test_admin_registers_are_holes(self):
        self.boot_sriov(1)
        self.pf.enable(1)
        driver = self.virtual(1)
        for register in range(0x2000, 0x2040, 4):
            for write in (False, True):
                before = self.vf_counter(1, "bad_register")
                if write:
                    driver.write(register, 0xffffffff)
                else:
                    self.assertEqual(driver.read(register), 0)
                self.assertEqual(self.vf_counter(1, "bad_register"), before + 1, f"register {register:#x}")

    def test_empty_slots(self):
        """auto-vif=off: a function without a VIF shows itself as one, and does nothing."""
        self.boot_sriov(2, "auto-vif=off")
        self.pf.enable(2)
        driver = self.virtual(2, up=False)
        self.assertEqual(driver.read(abi.SVIO_REG_FUNCTION), 2)
        for register in (abi.SVIO_REG_VIF_KIND, abi.SVIO_REG_VIF_ID_LO, abi.SVIO_REG_MAC_LO):
            self.assertEqual(driver.read(register), 0)
        driver.negotiate()
        driver.run()
        self.assertFalse(driver.status & abi.SVIO_STATUS_RUNNING)
        self.assertEqual(list(self.machine.stats()["vifs"]), ["0"])

    def test_shared_signals(self):
        """signals=shared: whoever has a slot eight further is signalled as well, in vain."""
        self.boot_sriov(10, "signals=shared")
        self.pf.enable(10)
        drivers = {number: self.virtual(number, up=False) for number in (1, 2, 9)}
        for driver in drivers.values():
            driver.send.vector = 4
            driver.vectors()
            driver.bring_up()
            driver.send.disarm()
        drivers[9].send.arm(drivers[9].send.posted)
        self.check_vf_out(drivers[9])
        drivers[9].wait_signal(4)
        drivers[1].wait_signal(4)
        self.assertFalse(drivers[2].signalled(4))
        self.assertEqual([self.vf_counter(number, "signals_redundant") for number in (1, 2, 9)], [1, 0, 0])
        self.assertEqual(self.driver.read(abi.SVIO_REG_SIGNALS), 1 << 1)
        self.driver.write(abi.SVIO_REG_SIGNALS, 1 << 1)
        self.assertEqual(self.driver.read(abi.SVIO_REG_SIGNALS), 0)
        self.assertEqual(drivers[1].read(abi.SVIO_REG_SIGNALS), 0)
        self.assertEqual(self.vf_counter(1, "bad_register"), 1, "a hole, for a VF")
        self.assertEqual(self.counter("bad_register"), 0)

    def test_cycles(self):
        """0 -> N -> 0: whoever is there answers, the others are not to be found; nothing is left over."""
        self.boot_sriov(64)
        self.driver.bring_up()
        threads = self.wait(self.machine.threads, "the cores")
        ids = set()
        for count in [64] + [n * 13 % 9 for n in range(1, 41)]:
            self.pf.enable(count)
            for number in {1, count // 2 + 1, count, count + 1} - {0, 65}:
                self.assertEqual(self.pf.there(number), number <= count, f"VF {number} of {count}")
            for number in {1, count} if count else ():
                driver = self.virtual(number, up=False)
                self.assertEqual(driver.read(abi.SVIO_REG_FUNCTION), number)
                self.assertEqual(driver.status & ~abi.SVIO_STATUS_LINK_UP, abi.SVIO_STATUS_READY)
                ids.add(driver.read(abi.SVIO_REG_VIF_ID_LO))
            if count % 3 == 1:
                driver.bring_up()
                self.check_vf_out(driver, count)
            self.pf.disable()
            self.assertEqual(list(self.machine.stats()["vifs"]), ["0"])
            if count:
                at = driver.regs
                self.assertNotEqual(self.machine.qtest.load(4, at), abi.SVIO_MAGIC)
        self.assertGreater(len(ids), 60, "an ID was given twice")
        self.assertEqual(self.machine.threads(), threads)
        self.check_out(frame(100, to=PEER, source=MAC))

    def test_all_64(self):
        """Each sends, and the wire has it."""
        self.boot_sriov(64, cores=2)
        self.pf.enable(64)
        drivers = [self.virtual(number) for number in range(1, 65)]
        self.assertEqual(len({driver.mac for driver in drivers}), 64)
        wanted = []
        for driver in drivers:
            wanted.append(frame(100 + driver.number, driver.number, to=PEER, source=driver.mac))
            driver.send.send(wanted[-1])
        got = sorted((self.wire.receive() for _ in wanted), key=len)
        for found, data in zip(got, wanted):
            self.assert_frame(found, data)
        for driver in drivers:
            driver.send.wait_done()

    # ---- resets ----

    def test_function_level_reset(self):
        """Of one VF: the others and the PF do not notice."""
        self.boot_sriov(3)
        self.pf.enable(3)
        first, second = self.virtual(1), self.virtual(2)
        self.driver.bring_up()
        for round_ in range(5):
            out = [frame(400 + n, n, to=PEER, source=second.mac) for n in range(60)]
            for data in out[:30]:
                second.send.send(data, bell=False)
            second.send.bell()
            for n in range(20):
                first.send.send(frame(60, n, to=PEER, source=first.mac), bell=False)
            first.send.bell()
            first.function.function_level_reset()
            canary = first.snapshot()
            for data in out[30:]:
                second.send.send(data)
            got = []
            while len(got) < len(out):
                data = self.wire.receive()
                if data[6:12] == second.mac:
                    got.append(data)
            self.assertEqual(got, out, "another VF's messages are lost or reordered")
            self.assertEqual(first.snapshot(), canary, "memory changed after the reset")
            self.assertEqual(first.function.config(2, COMMAND), 0)
            first.function.command()
            self.assertEqual(first.read(abi.SVIO_REG_CONTROL), 0)
            self.assertEqual(first.send.read(abi.SVIO_QUEUE_BASE_LO), 0)
            first.bring_up()
            self.wire.drain()
            self.check_vf_out(first, round_)
            self.check_out(frame(200, round_, to=PEER, source=MAC))

    def test_system_reset(self):
        self.boot_sriov(4)
        for round_ in range(2):
            self.pf.enable(4)
            drivers = [self.virtual(number) for number in (1, 4)]
            with flood(self.wire, drains=True):
                for driver in drivers:
                    for n in range(40):
                        driver.send.send(frame(900, n, to=PEER, source=driver.mac), bell=False)
                    driver.send.bell()
                self.machine.qmp.command("system_reset")
                self.assertIsNotNone(self.machine.qmp.wait_event("RESET"))
                canary = [driver.snapshot() for driver in drivers]
                sriov.open_ecam(self.machine)
                self.machine.open_bridge(sriov.ExpressFunction(self.machine, 0, 4 << 3), 1)
                self.assertFalse(self.pf.there(1), "a reset of the machine disables VFs")
                self.assertEqual(self.pf.bytes(self.pf.cap, 64).hex(" "), sriov_capability(4).hex(" "))
            self.assertEqual(canary, [driver.snapshot() for driver in drivers])
            self.wire.drain()
            self.pf.assign()
        self.pf.enable(2)
        self.check_vf_out(self.virtual(2))

    def test_physical_reset(self):
        """FLR of the PF takes the VFs away."""
        self.boot_sriov(2)
        self.pf.enable(2)
        self.virtual(2)
        self.pf.function_level_reset()
        self.assertFalse(self.pf.there(1) or self.pf.there(2))
        self.assertEqual(list(self.machine.stats()["vifs"]), ["0"])
        self.pf.assign()
        self.pf.enable(2)
        self.check_vf_out(self.virtual(1))

    # ---- under traffic ----

    def test_disabled_under_traffic(self):
        """No access to a VF's memory after the write that disabled it, and no frame of it either."""
        self.boot_sriov(2, cores=2)
        for round_ in range(8):
            self.pf.enable(2)
            drivers = [self.virtual(number) for number in (1, 2)]
            for driver in drivers:
                driver.send.vector = driver.receive.vector = 1
                driver.vectors()
                for n in range(60):
                    driver.send.send(frame(1200, n, to=PEER, source=driver.mac), bell=n % 7 == round_ % 7)
                driver.send.bell()
            self.pf.write_cap(2, sriov.CONTROL, 0)
            canary = [driver.snapshot() for driver in drivers]
            self.wire.drain()
            self.driver.bring_up()
            mark = frame(70, round_, to=PEER, source=MAC)
            self.driver.transmit(mark)
            late = 0
            while self.wire.receive() != mark:
                late += 1
            # A netdev that was blocked has one frame already, which nobody takes from it.
            self.assertLessEqual(late, self.kind == "netdev", "frames of VFs that are gone")
            for n in range(10):
                self.check_out(frame(70, n, to=PEER, source=MAC))
            self.assertEqual([driver.snapshot() for driver in drivers], canary, "memory changed")
            self.assertIsNone(self.wire.receive(0), "a frame of a VF that is gone")
            self.pf.disable()

    def test_blocked_wire(self):
        """VFs with frames that the wire does not take go all the same, and their frames with them."""
        self.boot_sriov(2)
        self.driver.bring_up()
        self.pf.enable(2)
        driver = self.virtual(1)
        for n in range(60):
            driver.send.send(frame(2000, n, to=PEER, source=driver.mac))
        self.pf.disable()
        self.pf.enable(1)
        driver = self.virtual(1)
        mark = frame(77, 77, to=PEER, source=driver.mac)
        driver.send.send(mark)
        while (data := self.wire.receive()) != mark:
            self.assertIsNotNone(data, "the mark")
            self.assertEqual(len(data), 2000)

    def test_bus_master(self):
        """Each function has its own."""
        self.boot_sriov(2)
        self.pf.enable(2)
        first, second = self.virtual(1), self.virtual(2)
        self.pf.command(master=False)
        for n in range(3):
            self.check_vf_out(first, n)
        first.function.command(master=False)
        canary = first.snapshot()
        held = frame(500, 5, to=PEER, source=first.mac)
        first.send.send(held)
        after = first.snapshot()
        for n in range(5):
            self.check_vf_out(second, n)
        self.assertNotEqual(canary, after)
        self.assertEqual(first.snapshot(), after, "memory changed without bus mastering")
        first.function.command(master=True)
        self.assert_frame(self.wire.receive(), held)
        first.send.wait_done()

    def test_memory_enable(self):
        """A VF whose memory space is off is not to be reached."""
        self.boot_sriov(2)
        self.pf.enable(2)
        driver = self.virtual(1)
        driver.function.command(memory=False, master=True)
        self.assertNotEqual(driver.read(abi.SVIO_REG_MAGIC), abi.SVIO_MAGIC)
        driver.function.command()
        self.assertEqual(driver.read(abi.SVIO_REG_MAGIC), abi.SVIO_MAGIC)

    def test_behind_an_iommu(self):
        """Each function has its own addresses, and what is another's is out of its reach."""
        self.boot_sriov(5, extra=["-device", "intel-iommu,intremap=off"], cores=2)
        self.pf.enable(5)
        iommu = Vtd(self.driver, bus=sriov.PORT_BUS)
        drivers = []
        for number in (1, 5):  # whose memory lies in pages of their own
            driver = self.virtual(number, up=False)
            iommu.add(driver.function, self.driver.allocate, driver.words >> 20, 2)
            driver.iova = IOVA
            drivers.append(driver)
        iommu.enable()
        first, second = (driver.bring_up() for driver in drivers)
        for n in range(10):
            for driver in drivers:
                self.check_vf_out(driver, n)
        secret = second.send.buffer(b"secret" * 20)
        second.send.wait_armed()
        before = second.snapshot()
        for address in (secret, secret - IOVA, second.send.base + IOVA, self.driver.words + IOVA):
            first.send.post([(address, 60)])
            first.send.wait_error(abi.SVIO_QERR_DMA)
            first.bring_up()
            self.check_vf_out(first)
        self.assertEqual(second.snapshot(), before)
        self.assertEqual(self.vf_counter(5, "queue_errors"), 0)
        self.check_vf_out(second)
        self.pf.disable()
        self.assertFalse(self.pf.there(1))

    def test_quit_with_vfs_under_load(self):
        self.boot_sriov(8, cores=3)
        self.pf.enable(8)
        with flood(self.wire, drains=True):
            for number in (1, 5, 8):
                driver = self.virtual(number)
                for n in range(50):
                    driver.send.send(frame(1500, n, to=PEER, source=driver.mac), bell=False)
                driver.send.bell()
            self.assertLess(self.machine.quit(), 30)

    def test_not_to_be_migrated(self):
        self.boot_sriov(2)
        for name, arguments in (("migrate", {"uri": "exec:cat>/dev/null"}),):
            with self.assertRaisesRegex(QmpError, "a card with vifs=2 can be neither migrated nor saved"):
                self.machine.qmp.command(name, arguments)
        self.assertIn("a card with vifs=2 can be neither migrated nor saved", self.machine.hmp("savevm x"))
        self.driver.bring_up()
        self.check_out(frame(100, to=PEER, source=MAC))


class NetdevRunning(Running):
    kind = "netdev"


if __name__ == "__main__":
    unittest.main()
