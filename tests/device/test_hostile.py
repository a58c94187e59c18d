# SPDX-License-Identifier: GPL-2.0-or-later
"""A driver that does what it likes: 100,000 random descriptors and register writes; then the device works.

The seed is printed; SVIO_SEED=N repeats a run (its timing apart), SVIO_HOSTILE=N changes the number.
"""
import os
import random
import unittest

import abi
from case import DeviceCase
from driver import FEATURES
from machine import RAM, ROM_ADDRESS
from sriov import SriovCase
from vtd import IOVA, Vtd
from wires import MAC, PEER, flood, frame

SEED = int(os.environ.get("SVIO_SEED", 20240607))
COUNT = int(os.environ.get("SVIO_HOSTILE", 100000))
TOP = 1 << 64
AREA = 8 << 20  # rings and event blocks lie here, and buffers as well


class Hostile(DeviceCase):
    kind = "netdev"
    share = 1
    iommu = False
    slot = 0
    mac = MAC  # what the wire floods

    def setUp(self):
        super().setUp()
        self.iova = 0
        self.start_card()
        self.rng = random.Random(SEED)
        self.errors = set()
        self.wildness, self.chaining, self.short = 0.5, 0.5, False
        self.written = 0

    def start_card(self):
        extra = ["-device", "intel-iommu,intremap=off"] if self.iommu else []
        self.boot(self.kind, cores=2, extra=extra)
        if self.iommu:
            Vtd(self.driver).enable()
            self.iova = self.driver.iova = IOVA

    # ---- what it writes ----

    def address(self):
        """RAM, rings and event blocks included; and now and then where it hurts."""
        rng, bars = self.rng, self.function.bars
        if rng.random() >= self.wildness:
            return self.iova + rng.choice((AREA, AREA, 0, RAM - (1 << 19))) + rng.randrange(1 << 19)
        return rng.choice((bars[0] + rng.randrange(0x10000), bars[2] + rng.randrange(0x2000), ROM_ADDRESS,
                           self.iova + RAM + rng.randrange(-100, 100), 0xfee00000, 0xfed00000,
                           TOP - rng.randrange(1, 5000), rng.getrandbits(64), rng.getrandbits(32)))

    def length(self):
        rng = self.rng
        if rng.random() >= self.wildness:
            if self.short:
                return rng.randrange(1, 1500)
            return rng.choice((60, rng.randrange(1, 200), rng.randrange(14, 2000), rng.randrange(1, 9019)))
        return rng.choice((0, 0, 1, 13, 14, 65535, 69632, 69633, 0x7fffffff, 0xffffffff, rng.getrandbits(32)))

    def flags(self):
        rng = self.rng
        flags = abi.SVIO_ENTRY_POSTED if rng.random() >= self.wildness / 2 else 0
        if rng.random() < self.chaining:
            flags |= abi.SVIO_ENTRY_MORE
        if rng.random() < self.wildness:
            flags ^= rng.choice((1 << rng.randrange(32), rng.getrandbits(32)))
        return flags

    def descriptors(self, count):
        """`count` entries. In tame rings many are carried before something is wrong."""
        rng = self.rng
        self.chaining = rng.choice((0, 0.3, 0.7, 1))
        self.wildness = rng.choice((0, 0.01, 0.05, 0.3))
        self.short = rng.random() < 0.5
        self.written += count
        ring = bytearray()
        for _ in range(count):
            entry = bytearray(abi.svio_entry.pack(addr=self.address(), len=self.length(), flags=self.flags()))
            if rng.random() < 0.1:
                entry[12:28] = rng.randbytes(16)  # fields that mean nothing without their flags
            ring += entry
        return bytes(ring)

    def register_write(self):
        rng, driver = self.rng, self.driver
        self.written += 1
        value = rng.choice((0, 1, 2, 4, 6, 7, rng.getrandbits(32), rng.getrandbits(16), 0xffff, 0xffffffff))
        offset = rng.choice((
            abi.SVIO_REG_CONTROL, abi.SVIO_BELL(0, rng.randrange(2)), abi.SVIO_BELL(0, rng.randrange(2)),
            abi.SVIO_QUEUE_REG(0, rng.randrange(2), rng.randrange(0, 0x28, 4)),
            abi.SVIO_QUEUE_REG(0, rng.randrange(2), rng.randrange(0, 0x28, 4)),
            abi.SVIO_REG_MAILBOX + rng.randrange(0, 64, 4), abi.SVIO_REG_MAILBOX_BELL,
            rng.randrange(0, 0x100, 4), rng.randrange(0, abi.SVIO_BAR_REGS_SIZE)))
        if offset == abi.SVIO_REG_MAILBOX:
            value = rng.randrange(0x100, 0x10b) | 0x12340000
        if offset == abi.SVIO_REG_CONTROL and rng.random() < 0.8:
            value = abi.SVIO_CONTROL_RUN | abi.SVIO_CONTROL_FEATURES_OK  # else it would hardly ever run
        size = rng.choice((1, 2, 4, 4, 4, 4, 4, 8))
        if offset + size > abi.SVIO_BAR_REGS_SIZE:
            size = 1
        return driver.qtest.store_line(size, driver.regs + offset, value & (1 << 8 * size) - 1)

    def vector_write(self):
        """Interrupts go to RAM, to the card's own registers and nowhere, but not to the CPU, which sleeps."""
        rng, driver = self.rng, self.driver
        bars = self.function.bars
        address = rng.choice((self.iova + AREA + rng.randrange(1 << 20), bars[0] + rng.randrange(0x10000),
                              bars[2] + rng.randrange(0x2000), 0xd0000000)) & ~3
        at = driver.table + 16 * rng.randrange(abi.SVIO_VECTORS)
        data, masked = rng.choice((1, 7, rng.getrandbits(32))), rng.random() < 0.1
        values = (address & 0xffffffff, address >> 32, data, masked)
        self.written += 4
        return [driver.qtest.store_line(4, at + 4 * n, int(value)) for n, value in enumerate(values)]

    # ---- one batch ----

    def queue_lines(self, direction):
        """Starts a queue, mostly in a way that works, with a ring full of surprises."""
        rng, driver, qtest = self.rng, self.driver, self.driver.qtest
        size = rng.choice((16, 16, 16, 32, 32, 64, 64, 256 if rng.random() < 0.1 else 128))
        base = AREA + rng.randrange(0, 1 << 20, 64)
        event = AREA + rng.randrange(0, 1 << 20, 64)
        registers = driver.regs + abi.SVIO_QUEUE_REG(0, direction, 0)
        lines = [qtest.store_line(4, registers + abi.SVIO_QUEUE_CONTROL, 0),
                 qtest.write_line(base, self.descriptors(size)),
                 qtest.store_line(4, event, rng.choice((0, rng.randrange(size), rng.getrandbits(32))))]
        base, event = base + self.iova, event + self.iova
        if rng.random() < 0.03:
            base = self.address()
        if rng.random() < 0.03:
            event = self.address()
        if rng.random() < 0.02:
            size = rng.getrandbits(32)
        vector = rng.choice((0, 1, 8, abi.SVIO_NO_VECTOR))
        for register, value in (
                (abi.SVIO_QUEUE_BASE_LO, base & 0xffffffff), (abi.SVIO_QUEUE_BASE_HI, base >> 32),
                (abi.SVIO_QUEUE_EVENT_LO, event & 0xffffffff), (abi.SVIO_QUEUE_EVENT_HI, event >> 32),
                (abi.SVIO_QUEUE_SIZE, size), (abi.SVIO_QUEUE_VECTOR, vector),
                (abi.SVIO_QUEUE_MODERATION, rng.choice((0, 0, 0x40008, rng.getrandbits(32)))),
                (abi.SVIO_QUEUE_CONTROL, abi.SVIO_QUEUE_ENABLE)):
            lines.append(qtest.store_line(4, registers + register, value))
        return lines

    def batch(self):
        rng, driver = self.rng, self.driver
        lines = []
        for register, value in ((abi.SVIO_REG_DRIVER_FEATURES_LO, rng.choice((0, 0x40, 0xc40))),
                                (abi.SVIO_REG_DRIVER_FEATURES_HI, 0),
                                (abi.SVIO_REG_EVENT_VECTOR, rng.randrange(abi.SVIO_VECTORS)),
                                (abi.SVIO_REG_CONTROL, abi.SVIO_CONTROL_FEATURES_OK | abi.SVIO_CONTROL_RUN)):
            lines.append(driver.qtest.store_line(4, driver.regs + register, value))
        lines += self.queue_lines(abi.SVIO_SEND) + self.queue_lines(abi.SVIO_RECEIVE)
        for direction in (abi.SVIO_SEND, abi.SVIO_RECEIVE):
            lines.append(driver.qtest.store_line(4, driver.regs + abi.SVIO_BELL(0, direction), 1))
        driver.qtest.batch(lines)
        self.look()
        lines = [self.register_write() for _ in range(rng.randrange(24))]
        if rng.random() < 0.3:
            lines += self.vector_write()
        driver.qtest.batch(lines)

    def look(self):
        """Gives the cores their turn: until the send queue has failed or rests."""
        driver, before = self.driver, None
        lines = [f"readl {driver.regs + register:#x}" for register in (
            abi.SVIO_QUEUE_REG(0, abi.SVIO_SEND, abi.SVIO_QUEUE_STATE),
            abi.SVIO_QUEUE_REG(0, abi.SVIO_SEND, abi.SVIO_QUEUE_POSITION),
            abi.SVIO_QUEUE_REG(0, abi.SVIO_RECEIVE, abi.SVIO_QUEUE_STATE))]
        while True:
            state, position, other = (int(word, 16) for word in driver.qtest.batch(lines))
            for word in (state, other):
                self.assertLess(abi.SVIO_QUEUE_ERROR_OF(word), abi.SVIO_QERR_COUNT)
                self.errors.add(abi.SVIO_QUEUE_ERROR_OF(word))
            if abi.SVIO_QUEUE_STATE_OF(state) != abi.SVIO_QUEUE_RUNNING or before == position:
                return
            before = position

    def interlude(self):
        """Now and then something from outside."""
        rng, machine, function = self.rng, self.machine, self.function
        what = rng.randrange(5)
        if what == 0:
            machine.stop()
            machine.cont()
        elif what == 1:
            function.command(master=False)
            function.command(master=True)
        elif what == 2:
            function.function_level_reset()
            function.assign()
            function.enable_msix()
        elif what == 3 and self.kind == "netdev":
            for up in (False, True):
                machine.qmp.command("set_link", {"name": "n0", "up": up})
        else:
            self.driver.write(abi.SVIO_REG_CONTROL, abi.SVIO_CONTROL_RESET)

    def neighbours(self):
        """Others on the card, who must not notice anything."""

    def missed(self, wanted):
        """Queue errors that nothing has provoked yet; in a short run they need not all come."""
        if wanted < 20000:
            return []
        return [abi.name_of("SVIO_QERR_", code) for code in range(1, abi.SVIO_QERR_COUNT)
                if code not in self.errors and code != abi.SVIO_QERR_OFFLOAD]

    def test_random(self):
        wanted = int(COUNT * self.share)
        print(f"{self.id()}: SVIO_SEED={SEED}, {wanted} descriptors and register writes", flush=True)
        self.driver.vectors()
        batches = 0
        with flood(self.wire, self.mac, (60, 60, 300, 1514, 5000), drains=True) as sender:
            # On a busy host the cores see fewer of them, and the rarest errors come later.
            while self.written < wanted or (self.missed(wanted) and self.written < 5 * wanted):
                self.batch()
                batches += 1
                answer = self.machine.qmp.command("query-status")
                self.assertTrue(answer["running"])
                if batches % 8 == 0:
                    self.interlude()
                    self.neighbours()
            # What is lost by the flood's socket when QEMU is slow is nobody's error.
            self.assertIsNone(sender.error)
        vif = self.machine.vif(slot=self.slot)
        self.assertGreater(vif["bad_register"], batches)
        self.assertGreater(vif["queue_errors"], batches // 4)
        # The cores have really looked at them, in both directions.
        self.assertGreater(vif["send"]["posted"], batches)
        self.assertGreater(vif["receive"]["posted"], batches // 4)
        self.assertEqual(self.missed(wanted), [], "errors that no descriptor has provoked")
        self.well_behaved()

    def well_behaved(self):
        """And now another driver, for the same function."""
        self.driver.vectors()
        self.driver.bring_up()
        self.settle()
        for seed in range(5):
            self.check_both(seed, size=1000)
        self.check_out(frame(9018, to=PEER, source=MAC), pieces=7)


class NativeHostile(Hostile):
    kind = "native"
    share = 1


class HostileBehindIommu(Hostile):
    iommu = True
    share = 0.5


class HostileVf(SriovCase, Hostile):
    """In a VF; it is flooded by the wire, and another one talks to itself meanwhile."""

    kind = "native"
    share = 0.4
    slot = 1

    def start_card(self):
        self.boot_sriov(2, cores=2)
        self.pf.enable(2)
        self.driver.bring_up()
        self.other = self.virtual(2, up=False).bring_up(features=FEATURES | abi.SVIO_F_LOOPBACK)
        self.driver = self.virtual(1, up=False)
        self.mac = self.driver.mac
        self.function = self.driver.function
        self.function.assign = self.function.command  # after a reset of this function
        self.said = 0

    def neighbours(self):
        self.said += 1
        send, receive = self.other.send, self.other.receive
        data = frame(100 + self.said * 37 % 1300, self.said, to=self.other.mac)
        send.post([(send.buffer(data), len(data))], flags=abi.SVIO_ENTRY_LOOP)
        found = self.wait(lambda: receive.take(loops=True), "the message to itself")
        self.assert_frame(found, data)

    def well_behaved(self):
        self.driver.vectors()
        self.driver.bring_up()
        for seed in range(5):
            data = frame(300 + seed, seed, to=PEER, source=self.driver.mac)
            self.driver.transmit(data)
            while self.wire.receive() != data:
                pass
        for slot in (0, 2):
            vif = self.machine.vif(slot=slot)
            for name in ("bad_register", "queue_errors"):
                self.assertEqual(vif[name], 0, f"VIF {slot}")


if __name__ == "__main__":
    unittest.main()
