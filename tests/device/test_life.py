# SPDX-License-Identifier: GPL-2.0-or-later
"""Bus mastering, stop and continue, back-pressure, idling and the end, all under traffic."""
import time
import unittest

import abi
from case import DeviceCase
from wires import MAC, PEER, Background, flood, frame


def numbered(count, **options):
    return [frame(60 + n % 900, n, **options) for n in range(count)]


class Life(DeviceCase):
    kind = "netdev"

    def outgoing(self, count, **options):
        return numbered(count, to=PEER, source=MAC, **options)

    # ---- bus mastering ----

    def test_bus_master_off(self):
        """No access and no interrupt while it is off; then queues go on where they were."""
        driver = self.boot(self.kind)
        driver.queues()
        driver.send.vector, driver.receive.vector = 1, 2
        driver.vectors()
        driver.bring_up()
        for round_ in range(3):
            self.check_both(round_)
            self.function.command(master=False)
            driver.send.arm(driver.send.posted)
            driver.receive.arm(driver.receive.next)
            out = self.outgoing(10)
            for data in out:
                driver.send.send(data, 2, bell=False)
            driver.send.bell()
            driver.receive.bell()
            canary = driver.snapshot()
            dropped = self.counter("drop_rx_not_running")
            with flood(self.wire, sizes=(60,)):
                self.wait_counter(dropped + 200, "drop_rx_not_running")
            # All that the flood left in the socket comes before the mark.
            dropped = self.counter("drop_rx_not_running")
            self.assertTrue(self.wire.send(frame(99)))
            self.wait_counter(dropped + 1, "drop_rx_not_running")
            self.wait_quiet_port()
            self.assertEqual(driver.snapshot(), canary, "memory changed without bus mastering")
            self.assertIsNone(self.wire.receive(0))
            self.assertFalse(driver.signalled(1) or driver.signalled(2))
            self.assertEqual(driver.send.state, abi.SVIO_QUEUE_RUNNING)
            self.function.command(master=True)
            for data in out:
                self.assert_frame(self.wire.receive(), data)
            driver.send.wait_done()
            driver.wait_signal(1)
            self.check_in(frame(100, round_))
            driver.wait_signal(2)

    def wait_quiet_port(self):
        """Until the port has handed over everything that lay in the socket."""
        def same():
            before = self.counter("drop_rx_not_running")
            time.sleep(0.05)
            return self.counter("drop_rx_not_running") == before
        self.wait(same, "the port to run dry")

    def test_bus_master_toggled_under_traffic(self):
        """Nothing that was posted is lost or doubled."""
        driver = self.boot(self.kind, cores=2).bring_up()
        out = self.outgoing(120)
        with flood(self.wire):
            for n, data in enumerate(out):
                driver.send.send(data)
                if n % 4 == 0:
                    self.function.command(master=False)
                    self.function.command(master=True)
                self.assert_frame(self.wire.receive(), data)
        driver.send.wait_done()
        self.assertEqual(self.counter("queue_errors"), 0)

    # ---- stop and continue ----

    def test_stop_and_continue(self):
        """A stopped machine's memory is still; afterwards all goes on in order, in both directions."""
        driver = self.boot(self.kind).bring_up(receive=256)
        into, out = numbered(150), self.outgoing(60)
        with Background(self.wire, into) as sender:
            got = [driver.expect() for _ in range(20)]
            for round_ in range(3):
                self.machine.stop()
                sent = out[round_ * 20:round_ * 20 + 20]
                for data in sent:
                    driver.send.send(data, bell=False)
                driver.send.bell()
                self.wait_stuck(sender)
                canary = driver.snapshot()
                self.assertTrue(driver.status & abi.SVIO_STATUS_RUNNING)
                time.sleep(0.05)
                self.assertEqual(driver.snapshot(), canary, "memory of a stopped machine changed")
                self.assertIsNone(self.wire.receive(0), "a stopped machine sent a frame")
                self.machine.cont()
                for data in sent:
                    self.assert_frame(self.wire.receive(), data)
                got += [driver.expect() for _ in range(20)]
            got += [driver.expect() for _ in range(len(into) - len(got))]
        self.assertEqual(got, into)

    def wait_stuck(self, sender):
        def same():
            before = sender.sent
            time.sleep(0.1)
            return sender.sent == before
        self.wait(same, "the sender to be held back")

    def test_frames_for_a_stopped_machine(self):
        driver = self.boot(self.kind).bring_up()
        self.machine.stop()
        into = numbered(40)
        with Background(self.wire, into) as sender:
            self.wait(lambda: sender.sent > 0, "a frame")
            time.sleep(0.05)
            self.assertIsNone(driver.receive.take())
            self.machine.cont()
            for data in into:
                self.assert_frame(driver.expect(), data)

    def test_stop_while_frames_are_held_back(self):
        """QEMU forgets what waits in its own queues when a machine stops; the device must not let it."""
        driver = self.boot(self.kind).bring_up(fill=False)
        into = numbered(12)
        with Background(self.wire, into):
            self.wait_counter(1, "receive", "full")
            for _ in range(3):
                self.machine.stop()
                self.machine.cont()
            driver.receive.post(driver.receive.size)
            for data in into:
                self.assert_frame(driver.expect(), data)
            self.check_both(50)

    def test_stop_and_continue_often(self):
        driver = self.boot(self.kind, cores=2).bring_up()
        with flood(self.wire):
            for n in range(60):
                self.machine.stop()
                driver.send.send(frame(60, n, to=PEER, source=MAC))
                self.machine.cont()
                self.assert_frame(self.wire.receive(), frame(60, n, to=PEER, source=MAC))
                # Not until there is none: the flood may well be faster than we are.
                for _ in range(64):
                    if not driver.receive.take():
                        break

    # ---- back-pressure ----

    def test_held_back_for_want_of_buffers(self):
        """Nothing is dropped; refilling by ones, by a few and by a ring lets all through, in order."""
        driver = self.boot(self.kind).bring_up(fill=False)
        into = numbered(200)
        with Background(self.wire, into):
            self.wait_counter(1, "receive", "full")
            expected = iter(into)
            for count in [1] * 30 + [3] * 20 + [50, 60]:
                driver.receive.post(count)
                for _ in range(count):
                    found = self.wait(lambda: driver.receive.take(repost=False), "a held back frame")
                    self.assert_frame(found, next(expected))
        vif = self.machine.vif()
        self.assertEqual(vif["drop_rx_no_buffer"] + vif["drop_rx_backlog"], 0)

    def test_half_a_chain_is_not_enough(self):
        """A message that needs three buffers waits until the third is there."""
        driver = self.boot(self.kind).bring_up(fill=False)
        data = frame(5000)
        self.assertTrue(self.wire.send(data))
        for posted in range(3):
            full = self.counter("receive", "full")
            self.assertIsNone(driver.receive.take())
            if posted:
                self.assertEqual(driver.receive.read(abi.SVIO_QUEUE_POSITION), 0)
            driver.receive.post()
            if posted < 2:
                self.wait_counter(full + 1, "receive", "full")
        self.assert_frame(driver.expect(), data)

    def test_wire_that_does_not_take(self):
        """The peer does not read: the card waits, then everything comes in order."""
        driver = self.boot(self.kind).bring_up()
        posted = []

        def stuck():
            """Posts as long as there is room; true when there has been none for a while."""
            end = time.monotonic() + 0.3
            while driver.send.posted - driver.send.done == driver.send.size:
                if time.monotonic() > end:
                    return True
            data = frame(4000 + len(posted), len(posted), to=PEER, source=MAC)
            driver.send.send(data)
            posted.append(data)
            return False

        while not stuck():
            self.assertLess(len(posted), 5000, "the wire never fills")
        self.assertTrue(self.machine.qmp.command("query-status")["running"])
        # A reset in this state is as good as in any other; here, go on.
        for data in posted:
            self.assert_frame(self.wire.receive(), data)
        driver.send.wait_done()
        self.check_both()

    def test_reset_with_a_wire_that_does_not_take(self):
        driver = self.boot(self.kind).bring_up()
        for n in range(3):
            while self.counter("send", "posted") == driver.send.posted:
                driver.send.send(frame(9000, to=PEER, source=MAC))
                if driver.send.posted - driver.send.done > 40:
                    break
            driver.reset()
            self.assert_fresh()
            driver.bring_up()
        # What the wire had taken before is still on it.
        mark = frame(77, 77, to=PEER, source=MAC)
        self.wait(lambda: self.wire.drain() >= 0 and driver.send.send(mark) is None and self.found(mark),
                  "the mark")

    def found(self, mark):
        while (data := self.wire.receive(0.2)) is not None:
            if data == mark:
                return True
        return False

    # ---- idle and end ----

    def test_idle(self):
        """After traffic the cores sleep, and nothing but work wakes them."""
        self.boot(self.kind, cores=2).bring_up()
        for seed in range(30):
            self.check_both(seed)

        def asleep():
            before = self.machine.cores()
            time.sleep(0.3)
            after = self.machine.cores()
            return after["polls"] == before["polls"] and after["sleeps"] == before["sleeps"] and before

        first = self.wait(asleep, "all cores asleep")
        self.assertGreater(first["sleeps"], 0)
        self.check_both(99)
        second = self.wait(asleep, "all cores asleep again")
        self.assertGreater(second["sleeps"], first["sleeps"])
        self.assertGreater(second["polls"], first["polls"])

    def test_idle_with_frames_held_back(self):
        """A core that can do nothing for want of buffers sleeps, too."""
        self.boot(self.kind).bring_up(fill=False)
        with Background(self.wire, numbered(20)):
            self.wait_counter(1, "receive", "full")

            def asleep():
                before = self.machine.cores()["polls"]
                time.sleep(0.2)
                return self.machine.cores()["polls"] == before
            self.wait(asleep, "the core asleep")
            self.driver.receive.post(self.driver.receive.size)
            for data in numbered(20):
                self.assert_frame(self.driver.expect(), data)

    def quickly(self):
        self.assertLess(self.machine.quit(), 30, "seconds to end QEMU")

    def test_quit_under_load(self):
        driver = self.boot(self.kind, cores=3).bring_up()
        with flood(self.wire):
            for n in range(40):
                driver.send.send(frame(1500, n, to=PEER, source=MAC), bell=False)
            driver.send.bell()
            self.quickly()

    def test_quit_while_stopped(self):
        self.boot(self.kind, cores=2).bring_up()
        with flood(self.wire):
            self.machine.stop()
            self.quickly()

    def test_quit_with_everything_blocked(self):
        """No buffers for what comes in, nobody who takes what goes out."""
        driver = self.boot(self.kind).bring_up(fill=False)
        with flood(self.wire):
            for n in range(64):
                driver.send.send(frame(9000, n, to=PEER, source=MAC), bell=False)
            driver.send.bell()
            self.wait_counter(1, "receive", "full")
            self.quickly()


class NativeLife(Life):
    kind = "native"


if __name__ == "__main__":
    unittest.main()
