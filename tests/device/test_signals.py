# SPDX-License-Identifier: GPL-2.0-or-later
"""Interrupts: MSI-X vectors whose address is a word of RAM, so that the test can read them (SPEC.md 5.5)."""
import struct
import unittest

import abi
from case import DeviceCase
from wires import MAC, PEER, frame

EVENT, SEND, RECEIVE = 0, 1, 2  # the vectors that these tests use


class Signals(DeviceCase):
    kind = "netdev"

    def setUp(self):
        super().setUp()
        driver = self.boot(self.kind)
        driver.queues()
        driver.send.vector, driver.receive.vector = SEND, RECEIVE
        driver.vectors()
        driver.bring_up()
        driver.write(abi.SVIO_REG_EVENT_VECTOR, EVENT)

    def assert_silent(self, *vectors):
        for vector in vectors or range(abi.SVIO_VECTORS):
            self.assertFalse(self.driver.signalled(vector), f"vector {vector}")

    def signals(self, direction):
        return self.counter(direction, "signals")

    def test_send(self):
        driver = self.driver
        driver.send.arm(0)
        driver.transmit(frame(60, to=PEER, source=MAC))
        driver.wait_signal(SEND)
        # It fired; nobody armed it again.
        for n in range(5):
            driver.transmit(frame(60, n, to=PEER, source=MAC))
        self.wait_counter(5, "send", "signals_suppressed")
        self.assertEqual(self.signals("send"), 1)
        driver.send.arm(driver.send.posted + 2)
        for n in range(3):
            self.assert_silent(SEND)
            driver.transmit(frame(60, n, to=PEER, source=MAC))
        driver.wait_signal(SEND)
        self.assertEqual(self.signals("send"), 2)
        self.assert_silent()

    def test_receive(self):
        driver = self.driver
        driver.receive.arm(3)
        for n in range(5):
            self.check_in(frame(60, n))
        driver.wait_signal(RECEIVE)
        self.wait_counter(4, "receive", "signals_suppressed")
        self.assertEqual(self.signals("receive"), 1)
        self.assert_silent()

    def test_frame_in_memory_before_signal(self):
        driver = self.driver
        for n in range(50):
            driver.receive.arm(driver.receive.next)
            self.assertTrue(self.wire.send(frame(300, n)))
            driver.wait_signal(RECEIVE)
            self.assert_frame(driver.receive.take(), frame(300, n))
        for n in range(50):
            driver.send.arm(driver.send.posted)
            driver.send.send(frame(300, n, to=PEER, source=MAC))
            driver.wait_signal(SEND)
            self.assertEqual(driver.send.done, driver.send.posted)
            self.assert_frame(self.wire.receive(), frame(300, n, to=PEER, source=MAC))

    def test_masked_vector(self):
        driver = self.driver
        driver.mask(SEND, True)
        driver.send.arm(0)
        driver.transmit(frame(60, to=PEER, source=MAC))
        self.wait(lambda: driver.pending(SEND), "the pending bit")
        self.assert_silent()
        driver.mask(SEND, False)
        driver.wait_signal(SEND)
        self.assertFalse(driver.pending(SEND))
        # The mask of the whole function, likewise.
        self.function.enable_msix(mask_all=True)
        driver.send.arm(1)
        driver.transmit(frame(60, to=PEER, source=MAC))
        self.wait(lambda: driver.pending(SEND), "the pending bit")
        self.assert_silent()
        self.function.enable_msix()
        driver.wait_signal(SEND)

    def test_msix_off(self):
        driver = self.driver
        self.function.enable_msix(False)
        driver.send.arm(0)
        driver.transmit(frame(60, to=PEER, source=MAC))
        self.wait(lambda: self.signals("send") == 1, "a signal")
        self.assertFalse(driver.pending(SEND))
        self.assert_silent()

    def test_no_vector(self):
        driver = self.driver
        driver.write(abi.SVIO_REG_EVENT_VECTOR, abi.SVIO_NO_VECTOR)
        driver.send.write(abi.SVIO_QUEUE_VECTOR, abi.SVIO_NO_VECTOR)
        driver.receive.write(abi.SVIO_QUEUE_VECTOR, abi.SVIO_NO_VECTOR)
        driver.send.arm(0)
        driver.receive.arm(0)
        self.check_both()
        self.wait_counter(1, "send", "signals_suppressed")
        self.wait_counter(1, "receive", "signals_suppressed")
        driver.send.post([(0xd0000000, 60)])
        driver.send.wait_error(abi.SVIO_QERR_DMA)
        self.wait(lambda: driver.read(abi.SVIO_REG_EVENT), "the event without a vector")
        self.assert_silent()
        self.assertEqual((self.signals("send"), self.signals("receive")), (0, 0))

    def test_vector_changed_while_running(self):
        driver = self.driver
        driver.send.write(abi.SVIO_QUEUE_VECTOR, 8)
        driver.send.arm(0)
        driver.transmit(frame(60, to=PEER, source=MAC))
        driver.wait_signal(8)
        self.assert_silent()

    def test_one_vector_for_everything(self):
        driver = self.driver
        for queue in (driver.send, driver.receive):
            queue.write(abi.SVIO_QUEUE_VECTOR, EVENT)
            queue.arm(0)
        driver.transmit(frame(60, to=PEER, source=MAC))
        driver.wait_signal(EVENT)
        self.check_in(frame(60, 1))
        driver.wait_signal(EVENT)
        self.assert_silent()

    def test_queue_error_event(self):
        driver = self.driver
        driver.send.post([(0xd0000000, 60)])
        driver.send.wait_error(abi.SVIO_QERR_DMA)
        driver.wait_signal(EVENT)
        self.assertEqual(driver.read(abi.SVIO_REG_EVENT), abi.SVIO_EVENT_QUEUE_ERROR)
        # Only the ones that are written clear.
        driver.write(abi.SVIO_REG_EVENT, abi.SVIO_EVENT_ALL & ~abi.SVIO_EVENT_QUEUE_ERROR)
        self.assertEqual(driver.read(abi.SVIO_REG_EVENT), abi.SVIO_EVENT_QUEUE_ERROR)
        driver.write(abi.SVIO_REG_EVENT, abi.SVIO_EVENT_QUEUE_ERROR)
        self.assertEqual(driver.read(abi.SVIO_REG_EVENT), 0)
        # The other direction has an error of its own.
        for n in range(driver.receive.size):
            driver.qtest.write(driver.receive.slot(n), struct.pack("<Q", 0xd0000000))
        self.assertTrue(self.wire.send(frame(60)))
        driver.receive.wait_error(abi.SVIO_QERR_DMA)
        driver.wait_signal(EVENT)
        self.assertEqual(self.counter("queue_errors"), 2)

    def test_moderation_by_number(self):
        """Held back until four messages have completed."""
        driver = self.driver
        driver.send.disable()
        driver.send.clear()
        driver.send.moderation = 4 << 16 | 0xffff
        driver.send.enable()
        driver.send.arm(0)
        for n in range(4):
            driver.send.send(frame(60, n, to=PEER, source=MAC), bell=False)
        driver.send.bell()
        driver.wait_signal(SEND)
        driver.send.wait_done()
        # A core that goes to sleep sends what it holds back: nothing waits for ever.
        driver.send.arm(4)
        driver.transmit(frame(60, 9, to=PEER, source=MAC))
        driver.wait_signal(SEND)
        self.assertEqual(self.signals("send"), 2)


class NativeSignals(Signals):
    kind = "native"


class LinkEvents(DeviceCase):
    def test_link(self):
        driver = self.boot()
        driver.vectors()
        driver.bring_up()
        driver.write(abi.SVIO_REG_EVENT_VECTOR, EVENT)
        for name in ("n0", "svio0"):
            self.machine.qmp.command("set_link", {"name": name, "up": False})
            driver.wait_signal(EVENT)
            self.assertEqual(driver.read(abi.SVIO_REG_EVENT), abi.SVIO_EVENT_LINK)
            self.assertFalse(driver.status & abi.SVIO_STATUS_LINK_UP)
            driver.write(abi.SVIO_REG_EVENT, abi.SVIO_EVENT_LINK)
            # What is sent without a link is completed, dropped and counted.
            before = self.counter("drop_tx_link_down")
            driver.transmit(frame(60, to=PEER, source=MAC))
            self.wait_counter(before + 1, "drop_tx_link_down")
            self.machine.qmp.command("set_link", {"name": name, "up": True})
            driver.wait_signal(EVENT)
            self.assertTrue(driver.status & abi.SVIO_STATUS_LINK_UP)
            driver.write(abi.SVIO_REG_EVENT, abi.SVIO_EVENT_LINK)
            # No change, no event.
            self.machine.qmp.command("set_link", {"name": name, "up": True})
            self.assertEqual(driver.read(abi.SVIO_REG_EVENT), 0)
            self.assertFalse(driver.signalled(EVENT))
            self.check_both()
        self.assertIsNone(self.wire.receive(0))

    def test_link_that_is_down_survives_a_reset(self):
        driver = self.boot()
        driver.bring_up()
        self.machine.qmp.command("set_link", {"name": "svio0", "up": False})
        driver.reset()
        self.assertFalse(driver.status & abi.SVIO_STATUS_LINK_UP)
        self.machine.qmp.command("set_link", {"name": "svio0", "up": True})
        driver.bring_up()
        self.check_both()


if __name__ == "__main__":
    unittest.main()
