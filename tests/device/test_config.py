# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration space, as an operating system explores it (SPEC.md chapter 2)."""
import unittest

import abi
from case import DeviceCase
from driver import Driver
from machine import CAP_EXPRESS, CAP_MSIX
from wires import MAC, PEER, frame


class Configuration(DeviceCase):
    def check_identity(self):
        function = self.function
        self.assertEqual(function.config(2, 0x00), abi.SVIO_PCI_VENDOR)
        self.assertEqual(function.config(2, 0x02), abi.SVIO_PCI_DEVICE_PF)
        self.assertEqual(function.config(1, 0x08), abi.SVIO_PCI_REVISION)
        self.assertEqual(function.config(4, 0x08) >> 8, 0x020000)
        self.assertEqual(function.config(1, 0x0e) & 0x7f, 0, "type 0 header")
        self.assertEqual(function.config(1, 0x3d), 0, "no INTx")

    def check_bars(self):
        function = self.function
        function.command(memory=False, master=False)
        memory64 = 0x4
        self.assertEqual(function.probe_bar(0), (abi.SVIO_BAR_REGS_SIZE, memory64))
        self.assertEqual(function.probe_bar(2), (abi.SVIO_BAR_MSIX_SIZE, memory64))
        for offset in (0x20, 0x24, 0x30):
            function.config_write(4, offset, 0xffffffff)
            self.assertEqual(function.config(4, offset), 0, f"no BAR at {offset:#x}")
        function.assign()

    def check_msix(self):
        at = self.function.capabilities()[CAP_MSIX]
        control = self.function.config(2, at + 2)
        self.assertEqual((control & 0x7ff) + 1, abi.SVIO_VECTORS)
        self.assertEqual(control & 0xc000, 0, "disabled after reset")
        self.assertEqual(self.function.config(4, at + 4), abi.SVIO_MSIX_TABLE_OFFSET | abi.SVIO_BAR_MSIX)
        self.assertEqual(self.function.config(4, at + 8), abi.SVIO_MSIX_PBA_OFFSET | abi.SVIO_BAR_MSIX)
        table = self.driver.table
        for vector in range(abi.SVIO_VECTORS):
            self.assertEqual(self.machine.qtest.load(4, table + 16 * vector + 12), 1, "masked after reset")

    def check_express(self):
        function, at = self.function, self.function.capabilities()[CAP_EXPRESS]
        self.assertEqual(function.config(1, at + 2) >> 4, 0, "an endpoint")
        self.assertTrue(function.config(4, at + 4) & 1 << 28, "FLR capable")

    def check_works(self):
        self.driver.bring_up()
        self.check_both()

    def check_all(self, express):
        self.check_identity()
        self.check_bars()
        self.check_msix()
        if express:
            self.check_express()
        else:
            self.assertNotIn(CAP_EXPRESS, self.function.capabilities())
        self.check_works()

    def test_q35_root_bus(self):
        """On the root complex the capability is there as well, with FLR."""
        self.boot()
        self.check_identity()
        self.check_bars()
        self.check_msix()
        at = self.function.capabilities()[CAP_EXPRESS]
        self.assertTrue(self.function.config(4, at + 4) & 1 << 28, "FLR capable")
        self.assertEqual(self.function.config(1, at + 2) >> 4, 9, "a root complex integrated endpoint")
        self.check_works()

    def test_behind_a_root_port(self):
        self.boot(pcie_port=True)
        self.check_all(express=True)

    def test_pc(self):
        self.boot(machine="pc")
        self.check_all(express=False)

    def test_native_port_on_pc(self):
        self.boot("native", machine="pc")
        self.check_works()

    def test_bars_above_4_gib(self):
        self.boot()
        self.function.command(memory=False)
        self.function.assign(0x700000000)
        self.driver = Driver(self.function)
        self.assertEqual(self.driver.read(abi.SVIO_REG_MAGIC), abi.SVIO_MAGIC)
        self.check_works()

    def test_memory_space_off(self):
        """Without memory decoding the BAR is not there; it comes back as it was."""
        self.boot().bring_up()
        self.function.command(memory=False)
        self.assertNotEqual(self.driver.read(abi.SVIO_REG_MAGIC), abi.SVIO_MAGIC)
        self.function.command()
        self.check_both()

    def test_moved_bars_under_traffic(self):
        self.boot().bring_up()
        for n in range(5):
            self.driver.send.send(frame(60, n, to=PEER, source=MAC))
            self.function.assign(0xe0000000 + (n & 1) * 0x400000)
            self.driver.regs = self.function.bars[abi.SVIO_BAR_REGS]
            self.assert_frame(self.wire.receive(), frame(60, n, to=PEER, source=MAC))
            self.check_both(n)

    def test_two_cards(self):
        """Two cards in one machine on wires of their own, each with its frames and counters."""
        second = self.make_wire("second")
        self.boot(extra=["-device", f"svio-nic,id=svio1,addr=0x9,mac=52:54:00:51:00:02,{second.native()}"],
                  options="addr=0x8", cores=2)
        other = self.machine.function(nth=1)
        other.assign(0xe1000000)
        first, other = self.driver.bring_up(), Driver(other, memory=32 << 20).bring_up()
        for n in range(20):
            data = frame(100 + n, n, to=PEER, source=MAC)
            first.transmit(data)
            other.transmit(data[::-1])
            self.assert_frame(self.wire.receive(), data)
            self.assert_frame(second.receive(), data[::-1])
            to_other = frame(200 + n, n, to=bytes.fromhex("525400510002"))
            self.assertTrue(second.send(to_other))
            self.assert_frame(other.expect(), to_other)
            self.check_in(frame(300 + n, n))
        self.assertEqual(self.machine.vif("svio0")["tx_frames"], 20)
        self.assertEqual(self.machine.vif("svio1")["rx_frames"], 20)
        # A reset of one leaves the other alone.
        first.reset()
        data = frame(99, 1, to=bytes.fromhex("525400510002"))
        self.assertTrue(second.send(data))
        self.assert_frame(other.expect(), data)

    def test_properties(self):
        """What the command line says arrives: queue-size, MAC, cores."""
        driver = self.boot(options="queue-size=4096,poll-us=0", cores=3)
        self.assertEqual(driver.read(abi.SVIO_REG_QUEUE_SIZE_HINT), 4096)
        self.assertEqual(driver.read(abi.SVIO_REG_QUEUE_SIZE_MAX), 4096)
        self.assertEqual(driver.read(abi.SVIO_REG_MAC_LO), int.from_bytes(MAC[:4], "little"))
        self.assertEqual(driver.read(abi.SVIO_REG_MAC_HI), int.from_bytes(MAC[4:], "little"))
        self.wait(lambda: len(self.machine.threads()) == 3, "three cores")
        driver.bring_up(send=4096, receive=16)
        self.check_both()


if __name__ == "__main__":
    unittest.main()
