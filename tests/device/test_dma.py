# SPDX-License-Identifier: GPL-2.0-or-later
"""The device touches RAM and nothing else, wherever a driver aims it, IOMMU or not (SPEC.md chapter 9)."""
import unittest

import abi
from case import DeviceCase
from driver import Driver
from machine import RAM, ROM_ADDRESS
from vtd import IOVA, Vtd
from wires import MAC, PEER, flood, frame

TOP = 1 << 64


class Addresses(DeviceCase):
    kind = "netdev"

    def setUp(self):
        super().setUp()
        self.boot(self.kind).bring_up()
        bars = self.function.bars
        self.bad = {
            "a hole": 0xd0000000, "beyond RAM": RAM, "across the end of RAM": RAM - 30,
            "own registers": bars[0], "own control register": bars[0] + abi.SVIO_REG_CONTROL,
            "own doorbell": bars[0] + abi.SVIO_BELL(0, abi.SVIO_SEND), "own MSI-X table": bars[2],
            "own pending bits": bars[2] + abi.SVIO_MSIX_PBA_OFFSET, "local APIC": 0xfee00000,
            "I/O APIC": 0xfec00000, "HPET": 0xfed00000, "firmware ROM": ROM_ADDRESS,
            "ROM's end": (1 << 32) - 30,
            "above 4 GiB": 1 << 32, "above all address bits": 1 << 62, "the last bytes": TOP - 60,
            "wraps around": TOP - 30}
        self.table = self.machine.qtest.read(bars[2], 16 * abi.SVIO_VECTORS)

    def check_untouched(self):
        self.assertTrue(self.machine.qmp.command("query-status")["running"])
        self.assertEqual(self.machine.qtest.read(self.function.bars[2], len(self.table)), self.table)
        self.assertEqual(self.counter("bad_register"), 0, "the device reached its own registers")
        self.assertEqual(self.counter("resets"), self.resets)

    def check_send(self, pieces):
        driver, send = self.driver, self.driver.send
        self.resets = self.counter("resets")
        send.disable()
        send.clear()
        send.enable()
        send.post(pieces)
        send.wait_error(abi.SVIO_QERR_DMA)
        self.assertEqual(send.done, 0, "nothing of it was taken")
        self.check_untouched()
        self.check_in(frame(99), driver)

    def test_send_buffers(self):
        good = self.driver.send.buffer(frame(60, to=PEER, source=MAC))
        for what, address in self.bad.items():
            with self.subTest(what):
                self.check_send([(address, 60)])
                self.check_send([(good, 60), (address, 60)])
                self.check_send([(address, abi.SVIO_MESSAGE_MAX - 60), (good, 60)])
        self.assertIsNone(self.wire.receive(0))
        self.driver.bring_up()
        self.check_out(frame(99, to=PEER, source=MAC))

    def test_receive_buffers(self):
        driver, receive = self.driver, self.driver.receive
        for what, address in self.bad.items():
            with self.subTest(what):
                receive.disable()
                receive.clear()
                receive.enable()
                self.resets = self.counter("resets")
                # The first buffer of the chain is good, the second is not.
                receive.post(length=64)
                receive.post(address=address, length=1000)
                self.assertTrue(self.wire.send(frame(200)))
                receive.wait_error(abi.SVIO_QERR_DMA)
                self.assertIsNone(receive.take(), "no message is published by halves")
                self.check_untouched()
                self.check_out(frame(60, to=PEER, source=MAC))
        driver.bring_up()
        self.check_both()

    def test_code_and_tables_of_the_cpu_are_ram_as_any(self):
        """RAM from the first byte to the last one."""
        driver = self.driver
        for address in (0, 0x1000, RAM - 60):
            driver.qtest.write(address, frame(60, address, to=PEER, source=MAC))
            driver.send.post([(address, 60)])
            driver.send.wait_done()
            self.assert_frame(self.wire.receive(), frame(60, address, to=PEER, source=MAC))


class NativeAddresses(Addresses):
    kind = "native"


class Interrupts(DeviceCase):
    """An MSI-X entry may hold any address: also one whose write makes the device do something."""

    def aim(self, target):
        function, driver = self.function, self.driver
        registers = function.bars[abi.SVIO_BAR_REGS]
        return {"reset": (registers + abi.SVIO_REG_CONTROL, abi.SVIO_CONTROL_RESET),
                "stop": (registers + abi.SVIO_REG_CONTROL, abi.SVIO_CONTROL_FEATURES_OK),
                "send bell": (registers + abi.SVIO_BELL(0, abi.SVIO_SEND), 1),
                "receive bell": (registers + abi.SVIO_BELL(0, abi.SVIO_RECEIVE), 1),
                "stop send": (registers + abi.SVIO_QUEUE_REG(0, 0, abi.SVIO_QUEUE_CONTROL), 0),
                "stop receive": (registers + abi.SVIO_QUEUE_REG(0, 1, abi.SVIO_QUEUE_CONTROL), 0),
                "own table": (driver.table + 12, 1),
                "mailbox": (registers + abi.SVIO_REG_MAILBOX_BELL, 1),
                "a hole": (0xd0000000, 1), "ROM": (ROM_ADDRESS, 1), "the last word": (TOP - 4, 1)}[target]

    def check_targets(self, kind):
        driver = self.boot(kind, cores=2)
        driver.queues()
        driver.send.vector = driver.receive.vector = 1
        for target in ("reset", "stop", "send bell", "receive bell", "stop send", "stop receive", "own table",
                       "mailbox", "a hole", "ROM", "the last word"):
            with self.subTest(target=target):
                driver.vectors()
                driver.bring_up()
                driver.write(abi.SVIO_REG_EVENT_VECTOR, 0)
                for vector in (0, 1):
                    driver.point_vector(vector, *self.aim(target))
                with flood(self.wire, sizes=(60,)):
                    for n in range(12):
                        driver.send.arm(driver.send.posted)
                        driver.receive.arm(driver.receive.next)
                        if driver.send.posted < 64:
                            driver.send.post([(driver.send.arena, 60)], bell=False)
                            driver.send.bell()
                        driver.receive.take()
                    driver.send.post([(0xd0000000, 60)] * 2, bell=False)
                    driver.send.bell()
                    self.assertTrue(self.machine.qmp.command("query-status")["running"])
                self.wire.drain()
        driver.vectors()
        driver.bring_up()
        self.settle()
        self.check_both()

    def test_netdev(self):
        self.check_targets("netdev")

    def test_native(self):
        self.check_targets("native")

    def test_one_card_resets_another_in_the_middle_of_its_sending(self):
        """Two cards on one hub: what one sends makes the other signal, and that signal resets the first."""
        device = "svio-nic,id=svio{0},mac=52:54:00:51:00:0{0},netdev=h{0}"
        self.machine = self.start("-netdev", "hubport,id=h1,hubid=0", "-netdev", "hubport,id=h2,hubid=0",
                                  "-device", device.format(1), "-device", device.format(2))
        functions = [self.machine.function(nth=n) for n in range(2)]
        drivers = []
        for n, function in enumerate(functions):
            function.assign(0xe0000000 + n * 0x400000)
            drivers.append(Driver(function, memory=(2 + 30 * n) << 20))
            drivers[n].queues()
            drivers[n].receive.vector = 1
            drivers[n].vectors()
        first, second = drivers
        to_second = frame(60, 1, to=bytes.fromhex("525400510002"), source=bytes.fromhex("525400510001"))
        for _ in range(30):
            first.bring_up()
            second.bring_up()
            second.point_vector(1, first.regs + abi.SVIO_REG_CONTROL, abi.SVIO_CONTROL_RESET)
            second.receive.arm(0)
            for _ in range(20):
                first.send.send(to_second, bell=False)
            first.send.bell()
            self.assert_frame(second.expect(), to_second)
            self.wait(lambda: not first.status & abi.SVIO_STATUS_RUNNING, "the reset by the other card")
        first.bring_up()
        second.bring_up()
        second.set_vector(1)
        for seed in range(40):
            data = frame(100, seed, to=bytes.fromhex("525400510002"))
            first.transmit(data)
            self.assert_frame(second.expect(), data)


class Iommu(DeviceCase):
    kind = "netdev"

    def boot_iommu(self, translate=False, **options):
        # Without interrupt remapping: an interrupt is to be a word of RAM here.
        driver = self.boot(self.kind, extra=["-device", "intel-iommu,intremap=off"], **options)
        self.iommu = None
        if translate:
            self.iommu = Vtd(driver)
            self.iommu.enable()
            driver.iova = IOVA
        return driver

    def check_traffic(self):
        for seed in range(30):
            self.check_both(seed, size=60 + 100 * seed)

    def test_translation_off(self):
        self.boot_iommu().bring_up()
        self.check_traffic()

    def test_translation(self):
        driver = self.boot_iommu(True, cores=2)
        driver.queues()
        driver.send.vector, driver.receive.vector = 1, 2
        driver.vectors()
        driver.bring_up()
        driver.send.arm(0)
        driver.receive.arm(0)
        self.check_traffic()
        driver.wait_signal(1)
        driver.wait_signal(2)

    def test_translation_behind_a_root_port(self):
        """Another bus number than the one the tables know: every access faults, and nothing hangs."""
        driver = self.boot_iommu(pcie_port=True)
        Vtd(driver).enable()
        driver.reset()
        self.assertTrue(driver.negotiate())
        driver.queues()
        state = driver.send.enable()
        self.assertEqual((abi.SVIO_QUEUE_STATE_OF(state), abi.SVIO_QUEUE_ERROR_OF(state)),
                         (abi.SVIO_QUEUE_ERROR, abi.SVIO_QERR_DMA))
        self.assertTrue(self.machine.qmp.command("query-status")["running"])

    def test_faults(self):
        """Addresses that are not mapped, now that RAM's own are not either."""
        driver = self.boot_iommu(True).bring_up()
        for address in (driver.send.arena, 0, IOVA + RAM, IOVA + RAM - 30, 1 << 40, TOP - 60,
                        self.function.bars[0]):
            with self.subTest(address=f"{address:#x}"), flood(self.wire, drains=True):
                driver.send.post([(address, 60)])
                driver.send.wait_error(abi.SVIO_QERR_DMA)
                self.assertTrue(self.machine.qmp.command("query-status")["running"])
                driver.bring_up()
        driver.bring_up(fill=False)
        driver.receive.post(address=2 << 20)
        self.assertTrue(self.wire.send(frame(60)))
        driver.receive.wait_error(abi.SVIO_QERR_DMA)
        driver.bring_up()
        self.settle()
        self.check_both()

    def test_taken_from_its_guest(self):
        """Without its context entry a function's queue fails, and the IOMMU hears of no access; pages that
        are only not mapped are faults."""
        driver = self.boot_iommu(True).bring_up()
        self.check_both()
        driver.send.post([(TOP - 60, 60)])
        driver.send.wait_error(abi.SVIO_QERR_DMA)
        self.assertTrue(self.iommu.faults())
        driver.bring_up()
        self.check_both()
        self.iommu.flush()
        self.check_both()
        self.assertFalse(self.iommu.faults())
        words = self.iommu.detach(self.function)
        driver.send.send(frame(60, to=PEER, source=MAC))
        driver.send.wait_error(abi.SVIO_QERR_DMA)
        self.assertFalse(self.iommu.faults())
        self.iommu.attach(self.function, words)
        driver.bring_up()
        self.settle()
        self.check_both()
        self.assertFalse(self.iommu.faults())

    def test_switched_on_and_off_under_traffic(self):
        """Queues whose addresses vanish fail; with addresses that came they work."""
        driver = self.boot_iommu(cores=2).bring_up()
        iommu = Vtd(driver)
        with flood(self.wire, drains=True):
            for n in range(6):
                iommu.disable() if n & 1 else iommu.enable()
                driver.send.send(frame(60, to=PEER, source=MAC), bell=False)
                driver.send.bell()
                # The arena is not where the entry says any more.
                self.wait(lambda: abi.SVIO_QUEUE_STATE_OF(driver.send.state) == abi.SVIO_QUEUE_ERROR,
                          "the queue error")
                driver.iova = 0 if n & 1 else IOVA
                driver.bring_up()
                driver.transmit(frame(60, n, to=PEER, source=MAC))
        self.settle()
        self.check_both()

    def test_resets_and_pauses(self):
        """Everything that quiesces the board, while rounds take QEMU's lock."""
        driver = self.boot_iommu(True, cores=2)
        for n in range(10):
            driver.bring_up()
            with flood(self.wire, drains=True):
                for m in range(10):
                    driver.send.send(frame(900, m, to=PEER, source=MAC), bell=False)
                driver.send.bell()
                self.machine.stop()
                self.machine.cont()
                self.function.command(master=False)
                self.function.command(master=True)
        driver.bring_up()
        self.settle()
        self.check_both()


class NativeIommu(Iommu):
    kind = "native"


if __name__ == "__main__":
    unittest.main()
