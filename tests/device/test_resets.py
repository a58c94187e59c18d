# SPDX-License-Identifier: GPL-2.0-or-later
"""Every reset in every state: afterwards silence, fresh registers, and it works again (SPEC.md 3)."""
import unittest

import abi
from case import DeviceCase
from machine import Function
from wires import MAC, PEER, Background, flood, frame

STATES = ("fresh", "negotiated", "running", "posted", "failed", "held back", "flooded", "stopped queues")


class Resets(DeviceCase):
    """Each state is entered, reset, checked; on one machine, so that the states follow upon each other."""

    kind = "netdev"

    def device_reset(self):
        self.driver.write(abi.SVIO_REG_CONTROL, abi.SVIO_CONTROL_RESET)

    def function_level_reset(self):
        self.function.function_level_reset()
        self.after_reset()
        self.reassign()

    def system_reset(self):
        self.machine.qmp.command("system_reset")
        self.assertIsNotNone(self.machine.qmp.wait_event("RESET"))
        self.after_reset()
        self.reassign()

    def after_reset(self):
        """A test may want to look before anything is set up again."""

    @property
    def bridge(self):
        return Function(self.machine, 0, 4)

    def reassign(self):
        """What firmware and operating system do after a reset of configuration space."""
        if self.function.address & 0xff0000 and not self.bridge.config(1, 0x19):
            self.machine.open_bridge(self.bridge, 1)
        self.assertEqual(self.function.config(2, 4), 0, "configuration space is reset, too")
        self.assertEqual(self.function.config(4, 0x10) & ~0xf, 0)
        self.function.assign()

    def enter(self, state):
        """Brings the device into a state. Returns a background sender that goes on for ever, or None."""
        driver = self.driver
        driver.reset()
        if state == "fresh":
            return None
        if state == "negotiated":
            self.assertTrue(driver.negotiate())
            return None
        driver.bring_up(fill=state != "held back")
        if state == "posted":
            # Torn at the end, and no bell: what lies there may or may not be looked at.
            for n in range(20):
                driver.send.send(frame(500, n, to=PEER, source=MAC), 3, bell=False)
        elif state == "failed":
            driver.send.post([(0xd0000000, 60)])
            driver.send.wait_error(abi.SVIO_QERR_DMA)
        elif state == "held back":
            sender = Background(self.wire, [frame(60, n) for n in range(8)])
            self.wait_counter(self.full + 1, "receive", "full")
            return sender
        elif state == "flooded":
            sender = flood(self.wire)
            # More than there are buffers for: the last ones are held back.
            self.wait_counter(self.full + 1, "receive", "full")
            return sender
        elif state == "stopped queues":
            driver.send.disable()
        return None

    def check_silence(self):
        """The peer floods; nothing of memory changes and nothing comes out."""
        driver = self.driver
        self.wire.drain()
        canary = driver.snapshot()
        # Entries that a live queue would take.
        if driver.send:
            driver.send.ring_if_armed(driver.send.posted - 1)
        driver.send and driver.send.bell()
        driver.receive and driver.receive.bell()
        before = self.counter("drop_rx_not_running")
        with flood(self.wire):
            self.wait_counter(before + 200, "drop_rx_not_running")
        self.assertEqual(driver.snapshot(), canary, "memory changed after the reset")
        self.assertIsNone(self.wire.receive(0), "a frame was sent after the reset")

    def check_all_states(self, reset):
        self.boot(self.kind, pcie_port=True)
        for state in STATES:
            with self.subTest(state=state):
                self.full = self.counter("receive", "full")
                resets = self.counter("resets")
                sender = self.enter(state)
                reset()
                self.assertGreater(self.counter("resets"), resets)
                self.assert_fresh()
                if sender:
                    sender.stop()
                self.check_silence()
                # Everything that was under way is gone: the next driver sees its own frames alone.
                self.driver.bring_up()
                self.settle()
                for seed in range(3):
                    self.check_both(seed)

    def test_device_reset(self):
        self.check_all_states(self.device_reset)

    def test_function_level_reset(self):
        self.check_all_states(self.function_level_reset)

    def test_system_reset(self):
        self.check_all_states(self.system_reset)

    def test_held_back_frames_are_dropped(self):
        """A frame that waited for a buffer belongs to the past after any reset."""
        self.boot(self.kind, pcie_port=True)
        for reset in (self.device_reset, self.function_level_reset, self.system_reset):
            with self.subTest(reset=reset.__name__):
                self.driver.bring_up(fill=False)
                full, dropped = self.counter("receive", "full"), self.counter("drop_rx_not_running")
                with Background(self.wire, [frame(60, n) for n in range(5)]) as sender:
                    self.wait(lambda: sender.sent == 5, "the frames are sent")
                    self.wait_counter(full + 1, "receive", "full")
                    # At once, and not only when the next driver comes.
                    self.after_reset = lambda: self.wait_counter(dropped + 5, "drop_rx_not_running")
                    reset()
                    self.after_reset()
                self.driver.bring_up()
                self.check_both()

    def test_resets_under_traffic(self):
        """Many resets in a row while frames come and go."""
        driver = self.boot(self.kind, cores=2, pcie_port=True)
        for n in range(15):
            driver.bring_up()
            with flood(self.wire, drains=True) as sender:
                self.wait(lambda: sender.sent > 20, "traffic")
                for m in range(10):
                    driver.send.send(frame(900, m, to=PEER, source=MAC), bell=False)
                driver.send.bell()
                (self.device_reset, self.function_level_reset, self.system_reset)[n % 3]()
                self.assert_fresh()
            self.check_silence()
        driver.bring_up()
        self.settle()
        self.wire.drain()
        self.check_both()

    def test_reset_of_a_stopped_machine(self):
        driver = self.boot(self.kind, pcie_port=True).bring_up()
        self.machine.stop()
        self.system_reset()
        self.assert_fresh()
        self.machine.cont()
        self.check_silence()
        driver.bring_up()
        self.settle()
        self.check_both()

    def test_reset_of_the_bus(self):
        """The bridge's secondary bus reset."""
        driver = self.boot(self.kind, pcie_port=True).bring_up()
        control = self.bridge.config(2, 0x3e)
        self.bridge.config_write(2, 0x3e, control | 0x40)
        self.bridge.config_write(2, 0x3e, control)
        self.reassign()
        self.assert_fresh()
        self.check_silence()
        driver.bring_up()
        self.settle()
        self.check_both()


class NativeResets(Resets):
    kind = "native"


if __name__ == "__main__":
    unittest.main()
