# SPDX-License-Identifier: GPL-2.0-or-later
"""Migration and snapshots: what is in flight arrives once, and what cannot be loaded is refused."""
import struct
import subprocess
import unittest
from pathlib import Path

import abi
from case import MAC_TEXT
from driver import FEATURES
from machine import run_to_end
from moving import Blob, MovingCase, StreamWire, is_announcement
from svio_tool.worker import long
from wires import MAC, PEER, flood, frame


def outgoing(count, first=0):
    return [frame(60 + n % 900, n, to=PEER, source=MAC) for n in range(first, first + count)]


def incoming(count, first=0):
    return [frame(70 + n % 900, n) for n in range(first, first + count)]


class Migration(MovingCase):
    kind = "netdev"
    # QEMU's dgram netdev turns round and round when its peer does not read (a unix socket holds 11
    # datagrams), and a migration hardly comes to its end beside that.
    unread = 5

    # ---- what is in flight ----

    def test_frames_on_their_way_in(self):
        """Frames that the card has taken from its wire, for which there is no buffer yet, go along."""
        driver = self.start_source()
        driver.bring_up(fill=False)
        # A core reads the wire in batches; QEMU's netdev stops at the first frame that is refused.
        into = incoming(8 if self.kind == "native" else 1)
        self.machine.stop()
        for data in into:
            self.assertTrue(self.wire.send(data))
        self.machine.cont()
        self.wait_counter(1, "receive", "full")
        self.migrate()
        driver.receive.post(driver.receive.size)
        for data in into:
            self.assert_frame(driver.expect(), data)
        self.assertIsNone(driver.receive.take())
        self.assertEqual(self.counter("rx_frames"), len(into))
        self.check_both(7000)

    def test_back_and_forth_under_traffic(self, moves=4):
        """Each message that the guest sends comes once and in order; what arrives is whole."""
        driver = self.start_source()
        driver.bring_up()
        sent, got = 0, 0
        for _ in range(moves):
            with flood(self.wire):
                for data in outgoing(25, sent):
                    driver.send.send(data)
                    driver.receive.take()
                sent += 25
                for data in outgoing(sent - got - self.unread, got):
                    self.assert_frame(self.next_frame(), data)
                    got += 1
                old = self.migrate()
            for data in outgoing(10, sent):
                driver.send.send(data)
            sent += 10
            for data in outgoing(sent - got, got):
                self.assert_frame(self.next_frame(), data)
            got = sent
            old.quit()
        driver.send.wait_done()
        self.assert_silence()
        self.assertEqual(self.counter("tx_frames"), sent)
        self.assertEqual(self.counter("queue_errors"), 0)

    @long
    def test_100_migrations(self):
        self.test_back_and_forth_under_traffic(100)

    # ---- what the device is ----

    def test_everything_is_kept(self):
        driver = self.start_source()
        driver.queues()
        driver.send.vector, driver.receive.vector = 1, 2
        driver.vectors()
        driver.bring_up()
        group = bytes.fromhex("0100 5e01 0203")
        mine = bytes.fromhex("0200 0000 0077")
        payload = bytes([abi.SVIO_MC_ADD, 1, 0, 0]) + group
        self.assertEqual(driver.order(abi.SVIO_OP_MULTICAST, payload=payload), 0)
        self.assertEqual(driver.order(abi.SVIO_OP_SET_MAC, payload=mine), 0)
        driver.write(abi.SVIO_REG_EVENT_VECTOR, 3)
        self.assert_bad_access(lambda: driver.read(0x3000))
        for seed in range(100):
            self.check_out(frame(200, seed, to=PEER, source=mine))
            self.check_in(frame(200, seed, to=(mine, group)[seed % 2]))
        # Only now: a signal that is held back is counted later.
        driver.receive.write(abi.SVIO_QUEUE_MODERATION, 5 << 16 | 300)
        driver.send.wait_armed()
        before = self.facts()
        canary = driver.snapshot()
        self.migrate()
        self.assertEqual(self.facts(), before)
        self.assertEqual(driver.snapshot(), canary)
        # The filter: the MAC in force and the group, nothing else.
        self.assertTrue(self.wire.send(frame(100, 1, to=MAC)))
        self.wait_counter(before["drop_rx_filter"] + 1, "drop_rx_filter")
        driver.send.arm(driver.send.posted)
        driver.receive.arm(driver.receive.next)
        for words in (1, 2):
            driver.signalled(words)
        driver.transmit(frame(90, 5, to=PEER, source=mine))
        self.assert_frame(self.next_frame(), frame(90, 5, to=PEER, source=mine))
        driver.wait_signal(1)
        self.check_in(frame(90, 6, to=group))
        driver.wait_signal(2)
        driver.reset()
        self.assert_fresh()

    def test_before_the_driver(self):
        """A card that nobody has touched, and one in the midst of its set-up."""
        driver = self.start_source()
        self.migrate()
        driver.reset()
        self.assert_fresh()
        driver.write(abi.SVIO_REG_DRIVER_FEATURES_LO, FEATURES)
        driver.queues()
        driver.send.configure()
        before = self.facts()
        self.migrate()
        self.assertEqual(self.facts(), before)
        driver.bring_up()
        self.check_both()

    def test_queue_in_error(self):
        driver = self.start_source()
        driver.bring_up()
        driver.send.post([(0, 0)])
        driver.send.wait_error(abi.SVIO_QERR_EMPTY)
        # Told a moment after the queue's state.
        driver.wait(lambda: driver.read(abi.SVIO_REG_EVENT) & abi.SVIO_EVENT_QUEUE_ERROR, "the event")
        before = self.facts()
        self.migrate()
        self.assertEqual(self.facts(), before)
        driver.send.wait_error(abi.SVIO_QERR_EMPTY)
        self.check_in(frame(100, 1))
        driver.send.disable()
        driver.send.clear()
        self.assertEqual(driver.send.enable(), abi.SVIO_QUEUE_RUNNING)
        self.check_both(5)

    def test_without_bus_mastering(self):
        """Queues keep their state, and go on when the target is given bus mastering."""
        driver = self.start_source()
        driver.bring_up()
        self.check_both(1)
        self.function.command(master=False)
        for data in outgoing(5):
            driver.send.send(data)
        canary = driver.snapshot()
        self.migrate()
        self.assertEqual(driver.send.state, abi.SVIO_QUEUE_RUNNING)
        self.assertEqual(driver.snapshot(), canary)
        self.function.command(master=True)
        for data in outgoing(5):
            self.assert_frame(self.next_frame(), data)
        driver.send.wait_done()
        self.check_both(9)

    def test_other_cores(self):
        """How many cores work, and how they poll, is the host's matter."""
        driver = self.start_source("cores=3,poll-us=50")
        driver.bring_up()
        self.check_both(1)
        self.migrate("cores=1,halt-poll=off,poll-us=0")
        self.check_both(2)
        self.migrate("cores=4")
        self.check_both(3)
        self.assertEqual(len(self.machine.stats()["cores"]), 4)

    # ---- migrations that fail ----

    def test_refused_by_the_target(self):
        """One sentence over there; here everything goes on, the wire included."""
        driver = self.start_source()
        driver.bring_up()
        for options, sentence in (
                ("queue-size=512", "queue-size 256, and this one has 512"),
                ("queue-size=2048", "queues of at most 1024, and this one has 2048"),
                ("mac=52:54:00:51:00:02", f"mac={MAC_TEXT}, and this one has mac=52:54:00:51:00:02")):
            target = self.start_target(options)
            uri = f"unix:{target.folder}/incoming"
            target.qmp.command("migrate-incoming", {"uri": uri})
            self.machine.qmp.command("migrate", {"uri": uri})
            with flood(self.wire, drains=False):
                self.assertNotEqual(target.process.wait(60), 0)
            said = target.said()
            self.assertEqual(said.count("svio-nic: "), 1, said)
            self.assertIn(f"svio-nic: the state is of a device with {sentence}\n", said)
            target.kill()
            # The source may have given the guest away before the target said no; people continue it then.
            self.wait(lambda: self.migration_state() in ("failed", "completed"), "the end of the migration")
            if not self.machine.qmp.command("query-status")["running"]:
                self.machine.cont()
            self.settle()
            self.check_both(len(options))

    def test_cancelled(self):
        driver = self.start_source()
        driver.bring_up()
        self.machine.qtest.write(32 << 20, bytes(range(256)) * (2 << 12))
        self.machine.qmp.command("migrate-set-parameters", {"max-bandwidth": 100000})
        with flood(self.wire):
            self.machine.qmp.command("migrate", {"uri": "exec:cat >/dev/null"})
            self.wait(lambda: self.migration_state() == "active", "an active migration")
            for data in outgoing(30):
                driver.send.send(data)
                driver.receive.take()
            self.machine.qmp.command("migrate_cancel")
            self.wait(lambda: self.migration_state() == "cancelled", "the cancellation")
            for data in outgoing(30):
                self.assert_frame(self.next_frame(), data)
        self.settle()
        self.check_both(1)

    def test_source_goes_on_after_all(self):
        """A machine that was written to a file is continued: it takes its wire again."""
        driver = self.start_source()
        driver.bring_up()
        for seed in range(3):
            self.check_both(seed)
            self.save_to(f"{self.folder}/state")
            self.machine.cont()
            self.settle()
            self.check_both(seed + 10)
        self.assertEqual(driver.send.state, abi.SVIO_QUEUE_RUNNING)

    # ---- snapshots ----

    def start_with_disk(self):
        disk = f"{self.folder}/disk.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "256M"], check=True)
        driver = self.start_source(extra=["-drive", f"if=none,id=d0,file={disk},format=qcow2"])
        driver.bring_up()
        return driver

    def test_snapshots_under_traffic(self):
        driver = self.start_with_disk()
        self.check_both(1)
        with flood(self.wire):
            self.wait(driver.receive.take, "a frame of the flood")
            self.assertEqual(self.machine.hmp("savevm first"), "")
            self.wait(driver.receive.take, "a frame of the flood")
        self.settle()
        marks = driver.send.posted, driver.receive.posted, driver.receive.next
        self.assertEqual(self.machine.hmp("savevm second"), "")
        before = self.facts()
        for _ in range(3):
            with flood(self.wire):
                for data in outgoing(20):
                    driver.send.send(data)
                    driver.receive.take()
                self.assertEqual(self.machine.hmp("loadvm second"), "")
                driver.send.posted, driver.receive.posted, driver.receive.next = marks
            self.assertEqual(self.facts()["tx_frames"], before["tx_frames"])
            self.settle()
            self.check_both(5)
            self.assertEqual(self.counter("queue_errors"), 0)

    def test_snapshot_of_another_card(self):
        """loadvm says why not, in one sentence, and QEMU lives on."""
        driver = self.start_with_disk()
        self.assertEqual(self.machine.hmp("savevm now"), "")
        self.machine.quit()
        self.machine = self.start(*self.arguments("queue-size=16"), *self.extra)
        said = self.machine.hmp("loadvm now")
        self.assertIn("svio-nic", said)
        self.assertIn("queue-size 256, and this one has 16", said + self.machine.said())
        self.function.machine = self.machine
        self.machine.hmp("system_reset")
        self.machine.cont()
        self.function.assign()
        self.take_along(self.machine) if self.kind == "native" else self.retarget()
        driver.bring_up()
        self.check_both(4)

    def retarget(self):
        self.wire.new_local = self.wire.local
        self.take_along(self.machine)

    # ---- two cards ----

    def test_two_cards(self):
        """Each keeps its own state and counters."""
        other = self.make_wire("other")
        words = (["-device", f"svio-nic,id=svio1,{other.native()}"] if self.kind == "native" else
                 [*other.netdev("n1"), "-device", "svio-nic,id=svio1,netdev=n1"])
        driver = self.start_source(extra=words)
        driver.bring_up()
        for seed in range(5):
            self.check_both(seed)
        if self.kind == "netdev":
            words[1] = words[1].replace(other.local, other.local + "+")
            self.extra = words
        self.migrate()
        for name, count in (("svio0", 5), ("svio1", 0)):
            vif = self.machine.vif(name)
            self.assertEqual((vif["tx_frames"], vif["rx_frames"]), (count, count))
        self.check_both(6)


class KeptByNetdev(MovingCase):
    kind = "netdev"

    def test_frames_that_the_netdev_keeps(self):
        """QEMU's netdev has begun to write a frame when its peer stops reading, and forgets it when the
        machine stops: it and all behind it are sent by the target, once."""
        wire = StreamWire(f"{self.folder}/stream")
        self.addCleanup(wire.close)
        words = ["-netdev", f"stream,id=n0,server=off,addr.type=unix,addr.path={wire.path}", "-device",
                 f"{self.device_words('port-stall-ms=0')},netdev=n0"]
        self.arguments = lambda options="", wire=None: words
        driver = self.start_source()
        wire.accept()
        driver.bring_up()
        posted = self.fill_the_wire()
        for _ in range(3):
            self.machine.stop()
            self.machine.cont()
        before = self.counter("tx_frames")
        self.assertLess(before, len(posted) - driver.send.size)
        self.migrate()
        wire.accept()
        got = [data for stream in wire.streams for data in stream.frames(len(posted) + 10)
               if not is_announcement(data)]
        self.assertEqual(len(got), len(posted))
        for found, data in zip(got, posted):
            self.assert_frame(found, data)
        self.wait(lambda: self.counter("tx_frames") == len(posted), "each counted once")


class NativeMigration(Migration):
    kind = "native"
    unread = 25

    def test_frames_on_their_way_out(self):
        """The wire takes nothing, so frames are in the board and in the ring: each comes once."""
        driver = self.start_source("port-stall-ms=0")
        driver.bring_up()
        posted = self.fill_the_wire()
        before = self.counter("tx_frames")
        self.migrate("port-stall-ms=0")
        self.assertEqual(driver.send.posted - driver.send.done, driver.send.size, "sent too early")
        self.assertEqual(self.counter("tx_frames"), before)
        for data in posted:
            self.assert_frame(self.next_frame(), data)
        driver.send.wait_done()
        self.assert_silence()
        self.wait(lambda: self.counter("tx_frames") == len(posted), "each counted once")
        self.check_both(7000)

    def test_wire_stays_with_the_source(self):
        """A waiting target leaves the socket alone, and one that dies has taken nothing."""
        driver = self.start_source()
        driver.bring_up()
        path = Path(self.wire.local)
        inode = path.lstat().st_ino
        target = self.start_target()
        self.check_both(1)
        self.assertEqual(path.lstat().st_ino, inode)
        target.kill()
        self.assertEqual(path.lstat().st_ino, inode)
        self.check_both(2)
        old = self.migrate()
        self.assertNotEqual(path.lstat().st_ino, inode)
        self.check_both(3)
        old.quit()
        self.check_both(4)
        self.assertEqual(driver.send.state, abi.SVIO_QUEUE_RUNNING)

    def test_announcement(self):
        """After a migration the card says once where its MAC is; the guest's counters know nothing of it."""
        driver = self.start_source()
        driver.bring_up()
        mine = bytes.fromhex("020000000088")
        self.assertEqual(driver.order(abi.SVIO_OP_SET_MAC, payload=mine), 0)
        self.check_out(frame(100, 1, to=PEER, source=mine))
        self.migrate()
        said = self.wire.receive()
        self.assertEqual(said, b"\xff" * 6 + mine + bytes.fromhex("80350001080006040003") + mine + bytes(4) +
                         mine + bytes(22))
        self.assertIsNone(self.wire.receive(0.1))
        self.assertEqual(self.counter("tx_frames"), 1)

    # ---- states that nobody can have ----

    def setUp(self):
        super().setUp()
        self.saved = None

    def save_blob(self):
        driver = self.start_source()
        driver.bring_up()
        self.check_both(1)
        path = f"{self.folder}/state"
        self.save_to(path)
        self.machine.quit()
        return Blob(Path(path).read_bytes())

    def refuse(self, stream):
        """What QEMU says when it is given this; it ends by itself, in order."""
        path = Path(self.folder, "changed")
        path.write_bytes(stream)
        status, said = run_to_end(*self.arguments(), "-incoming", f"file:{path}")
        self.assertEqual(status, 1, said)
        return said

    def test_states_that_are_refused(self):
        blob = self.save_blob()

        def changed(change):
            other = Blob(blob.stream)
            change(other)
            return other.put(other.build())

        def flip(tag, at, mask=0xff, nth=0):
            def change(other):
                other.section(tag, nth)[3][at] ^= mask
            return changed(change)

        whole = blob.data
        vif, queue = b"VIF ", b"QUEU"
        for stream, sentence in (
                (blob.put(whole[:100] + bytes([whole[100] ^ 4]) + whole[101:]), "its checksum is wrong"),
                (blob.put(b"X" + whole[1:]), "this is not the state of an svio device"),
                (blob.put(whole[:200]), "the state is truncated"),
                (blob.put(b""), "the state is truncated"),
                (blob.put(whole + b"\0"), "the state goes on after its end"),
                (blob.put(whole, 0xffffffff), "a state of 4294967295 bytes is more than any device has"),
                (blob.stream[:blob.at + 50], None),
                (changed(lambda b: setattr(b, "version", 2)), "the state has format 2, and this device"),
                (changed(lambda b: b.section(vif).__setitem__(1, 2)), "has a version that this device"),
                (changed(lambda b: b.sections.append([b"NEW ", 1, 1, b"abc"])), "comes from a newer one"),
                (changed(lambda b: b.sections.remove(b.section(queue))), "a part of the state is missing"),
                (changed(lambda b: b.sections.append(b.section(queue))), "a part of the state comes twice"),
                (flip(vif, 4), "a device with unique ID"),
                (flip(queue, 12), "a ring out of range"),
                (changed(lambda b: b.section(queue)[3].append(0)), "longer than it should be")):
            said = self.refuse(stream)
            if sentence:
                self.assertEqual(said.count("svio-nic: "), 1, said)
                self.assertIn(sentence, said)
        # A ring outside of memory: the queue fails alone, when the machine goes on.
        other = Blob(blob.stream)
        struct.pack_into("<Q", other.section(queue, 0)[3], 12, 1 << 40)
        # A part that may be skipped is.
        other.sections.append([b"note", 9, 0, b"hello"])
        path = Path(self.folder, "changed")
        path.write_bytes(other.put(other.build()))
        self.machine = self.start(*self.arguments(), "-incoming", f"file:{path}")
        self.wait(lambda: self.machine.qmp.command("query-status")["status"] == "running", "the guest")
        self.take_along(self.machine)
        self.driver.send.wait_error(abi.SVIO_QERR_DMA)
        self.check_in(frame(100, 3))
        self.driver.reset()
        self.driver.bring_up()
        self.check_both(4)


del MovingCase

if __name__ == "__main__":
    unittest.main()
