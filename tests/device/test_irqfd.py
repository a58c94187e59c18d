# SPDX-License-Identifier: GPL-2.0-or-later
"""The signals' way under KVM, irqfd, with QEMU's main loop in the place of the kernel (fake_kvm.c)."""
import unittest

import abi
import test_hotplug
import test_resets
import test_signals
import test_vif
from case import DeviceCase
from machine import PLUGIN
from sriov import SriovCase
from wires import MAC, PEER, frame

IRQFD = PLUGIN.with_name("svio-irqfd.so")
SEND, RECEIVE = 1, 2


class IrqfdSignals(test_signals.Signals):
    plugin = IRQFD


class NativeIrqfdSignals(test_signals.NativeSignals):
    plugin = IRQFD


class IrqfdResets(test_resets.Resets):
    plugin = IRQFD


class IrqfdHotplug(test_hotplug.Hotplug):
    plugin = IRQFD


class IrqfdVifMessages(test_vif.Messages):
    plugin = IRQFD


class IrqfdVifLife(test_vif.Life):
    plugin = IRQFD


class Irqfd(DeviceCase):
    plugin = IRQFD

    def start_driver(self):
        driver = self.driver
        driver.queues()
        driver.send.vector, driver.receive.vector = SEND, RECEIVE
        driver.vectors()
        driver.bring_up()
        return driver

    def signal_both(self, count):
        driver = self.driver
        for n in range(count):
            driver.send.arm(driver.send.posted)
            driver.receive.arm(driver.receive.next)
            self.check_both(n)
            driver.wait_signal(SEND)
            driver.wait_signal(RECEIVE)

    def locks(self):
        cores = self.machine.cores()
        return cores["lock_taken"], cores["signalled"]

    def test_no_lock_is_taken(self):
        """On a native port a core never needs QEMU's lock; without irqfd it takes it for each signal."""
        for plugin, free in ((IRQFD, True), (PLUGIN, False)):
            with self.subTest(plugin=plugin.name):
                self.plugin = plugin
                self.boot("native")
                self.start_driver()
                before = self.locks()
                self.signal_both(25)
                after = self.locks()
                self.assertEqual(after[1] - before[1], 50)
                if free:
                    self.assertEqual(after[0], before[0])
                else:
                    self.assertGreaterEqual(after[0], before[0] + 25)

    def test_vector_without_a_route(self):
        """There are fewer routes than vectors: the last one works all the same, with the lock."""
        driver = self.boot("native")
        self.start_driver()
        driver.send.write(abi.SVIO_QUEUE_VECTOR, 8)
        before = self.locks()
        for n in range(10):
            driver.send.arm(driver.send.posted)
            driver.transmit(frame(60, n, to=PEER, source=MAC))
            driver.wait_signal(8)
        after = self.locks()
        self.assertGreaterEqual(after[0], before[0] + 10)
        self.assertEqual(after[1], before[1] + 10)

    def test_routes_are_given_back(self):
        """MSI-X off and on, and reset, again and again: a route that leaked would be missing."""
        driver = self.boot("native", pcie_port=True)
        for n in range(12):
            self.start_driver()
            self.function.enable_msix(False)
            self.function.enable_msix()
            before = self.locks()
            self.signal_both(2)
            self.assertEqual(self.locks(), (before[0], before[1] + 4))
            if n % 3 == 2:
                self.function.function_level_reset()
                self.function.assign()
        self.assertTrue(driver.status & abi.SVIO_STATUS_READY)

    def test_vector_moved_while_masked(self):
        """The guest gives a masked vector another address, as it does to move it to another CPU."""
        driver = self.boot("native")
        self.start_driver()
        self.signal_both(1)
        other = driver.allocate(64)
        driver.mask(SEND, True)
        driver.point_vector(SEND, other, 0x77, masked=True)
        driver.mask(SEND, False)
        driver.send.arm(driver.send.posted)
        driver.transmit(frame(60, to=PEER, source=MAC))
        self.wait(lambda: driver.qtest.load(4, other) == 0x77, "the moved signal")
        self.assertFalse(driver.signalled(SEND))

    def test_bus_master_off(self):
        """A signal that is due while bus mastering is off comes afterwards, as without irqfd."""
        driver = self.boot("native")
        self.start_driver()
        self.function.command(master=False)
        self.function.command(master=True)
        self.signal_both(3)
        self.function.command(master=False)
        self.assertFalse(driver.signalled(SEND))
        self.function.command(master=True)
        self.signal_both(3)


class IrqfdVfs(SriovCase):
    plugin = IRQFD

    def test_routes_are_given_back(self):
        """VFs signal without the lock, and what they had is free when they are gone."""
        self.boot_sriov(2)
        for n in range(8):
            self.pf.enable(2)
            driver = self.virtual(1 + n % 2, up=False)
            driver.send.vector = SEND
            driver.vectors()
            driver.bring_up()
            before = self.machine.cores()
            for seed in range(3):
                driver.send.arm(driver.send.posted)
                self.check_vf_out(driver, seed)
                driver.wait_signal(SEND)
            after = self.machine.cores()
            self.assertEqual((after["lock_taken"], after["signalled"]),
                             (before["lock_taken"], before["signalled"] + 3))
            if n % 4 == 3:
                driver.function.function_level_reset()
                driver.function.command()
                self.assertFalse(driver.signalled(SEND))
            self.pf.disable()


if __name__ == "__main__":
    unittest.main()
