# SPDX-License-Identifier: GPL-2.0-or-later
"""Doorbells by ioeventfd, as under KVM: QEMU does under TCG what the kernel does (svio-irqfd, fake_kvm.h)."""
import os
import unittest

import abi
import test_messages
from case import DeviceCase
from machine import PLUGIN
from test_hotplug import Plugging
from wires import MAC, PEER, frame

IRQFD = PLUGIN.with_name("svio-irqfd.so")
QUEUES = 4


class IoeventfdMessages(test_messages.NativeMessages):
    plugin = IRQFD


class Ioeventfd(Plugging, DeviceCase):
    plugin = IRQFD

    def eventfds(self):
        """How many eventfds QEMU has."""
        found = 0
        folder = f"/proc/{self.machine.process.pid}/fd"
        for name in os.listdir(folder):
            try:
                found += "eventfd" in os.readlink(f"{folder}/{name}")
            except FileNotFoundError:
                continue        # closed meanwhile
        return found

    def bells(self, direction="send"):
        return self.counter(direction, "bells")

    def ring(self, count, direction=abi.SVIO_SEND, pair=0):
        for _ in range(count):
            self.driver.write(abi.SVIO_BELL(pair, direction), 1)

    def test_only_where_they_are_wanted(self):
        """One for each doorbell of a queue that is there; none without KVM."""
        found = []
        for self.plugin, options in ((IRQFD, ""), (IRQFD, "ioeventfd=off"), (PLUGIN, "")):
            self.boot("native", f"queues={QUEUES}" + ("," + options if options else ""))
            found.append(self.eventfds())
            self.machine.quit()
        self.assertEqual([found[0] - found[1], found[2] - found[1]], [2 * QUEUES, 0])

    def test_a_sleeping_core_wakes(self):
        for kind in ("netdev", "native"):
            with self.subTest(kind=kind):
                driver = self.boot(kind, "poll-us=0")
                driver.bring_up()
                for seed in range(20):
                    at = driver.send.posted
                    self.wait(lambda: abi.crossed(driver.send.event_word("bell_at"), at, at + 1),
                              "the core has armed its doorbell")
                    before = self.bells()
                    self.check_both(seed)
                    self.assertEqual(self.bells(), before + 1)

    def test_each_is_counted_before_what_follows(self):
        """Counters and registers after a write show it, as without ioeventfd."""
        driver = self.boot("native", f"queues={QUEUES}")
        driver.bring_up()
        for direction, name in ((abi.SVIO_SEND, "send"), (abi.SVIO_RECEIVE, "receive")):
            before = self.bells(name)
            for count in (1, 7, 50):
                self.ring(count, direction)
                before += count
                self.assertEqual(self.bells(name), before)
        for action in (self.machine.stop, self.machine.cont, driver.reset,
                       lambda: self.function.command(master=False)):
            before = self.bells()
            self.ring(1)
            action()
            self.assertEqual(self.bells(), before + 1)

    def test_other_sizes_and_other_queues_are_as_ever(self):
        """Half a write to a doorbell, and one to that of a queue which is not there, are bad accesses."""
        driver = self.boot("native", "queues=2")
        base = self.function.bars[abi.SVIO_BAR_REGS]
        self.assert_bad_access(lambda: driver.write(abi.SVIO_BELL(2, abi.SVIO_SEND), 1))
        self.assert_bad_access(lambda: driver.qtest.store(2, base + abi.SVIO_BELL(0, abi.SVIO_SEND), 1))
        self.assertEqual(self.bells(), 0)

    def test_stopped_machine(self):
        """What was rung before the stop, and nothing later, goes with the state; the core looks again."""
        driver = self.boot("native", "poll-us=0")
        driver.bring_up()
        self.check_both(1)
        for seed in range(5):
            data = frame(100, seed, to=PEER, source=MAC)
            driver.send.send(data)
            self.machine.stop()
            before = self.counter("tx_frames"), self.bells()
            self.machine.qmp.command("query-status")    # QEMU's main loop has been round
            self.assertEqual((self.counter("tx_frames"), self.bells()), before)
            self.machine.cont()
            self.assert_frame(self.wire.receive(), data)

    def test_reset_and_unplug_under_ringing(self):
        driver = self.boot("native", f"queues={QUEUES}", pcie_port=True)
        for round_ in range(4):
            driver.bring_up()
            self.check_both(round_)
            for pair in range(QUEUES):
                self.ring(3, pair % 2, pair)
            self.function.function_level_reset()
            self.function.assign()
        held = self.eventfds()
        for _ in range(3):
            self.ring(5)
            self.unplug()
            self.assertLessEqual(self.eventfds(), held - 2 * QUEUES)
            self.plug(port=f"dgram:{self.wire.local},{self.wire.remote}", queues=QUEUES)
            self.driver.bring_up()
            self.check_both(9)
            self.assertEqual(self.eventfds(), held)


if __name__ == "__main__":
    unittest.main()
