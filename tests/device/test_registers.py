# SPDX-License-Identifier: GPL-2.0-or-later
"""BAR 0: registers, bad accesses, negotiation, queue set-up, mailbox (SPEC.md chapters 3 to 5 and 7)."""
import random
import struct
import unittest

import abi
from case import DeviceCase
from machine import RAM, ROM_ADDRESS
from wires import MAC

READ_ONLY = [abi.SVIO_REG_MAGIC, abi.SVIO_REG_ABI_VERSION, abi.SVIO_REG_FUNCTION, abi.SVIO_REG_STATUS,
             abi.SVIO_REG_DEVICE_FEATURES_LO, abi.SVIO_REG_DEVICE_FEATURES_HI, abi.SVIO_REG_QUEUE_PAIRS,
             abi.SVIO_REG_QUEUE_SIZE_MAX, abi.SVIO_REG_QUEUE_SIZE_HINT, abi.SVIO_REG_MTU_MAX,
             abi.SVIO_REG_VIF_ID_LO, abi.SVIO_REG_VIF_ID_HI, abi.SVIO_REG_VIF_KIND, abi.SVIO_REG_MAC_LO,
             abi.SVIO_REG_MAC_HI, abi.SVIO_REG_LINK_SPEED, abi.SVIO_REG_MAILBOX_STATE,
             abi.SVIO_REG_ADMIN_SIZE_MAX]
READ_WRITE = [abi.SVIO_REG_CONTROL, abi.SVIO_REG_EVENT, abi.SVIO_REG_EVENT_VECTOR,
              abi.SVIO_REG_DRIVER_FEATURES_LO, abi.SVIO_REG_DRIVER_FEATURES_HI]
READ_WRITE += [abi.SVIO_REG_MAILBOX + 4 * n for n in range(16)]
WRITE_ONLY = [abi.SVIO_REG_MAILBOX_BELL]
for _direction in (abi.SVIO_SEND, abi.SVIO_RECEIVE):
    READ_ONLY += [abi.SVIO_QUEUE_REG(0, _direction, register)
                  for register in (abi.SVIO_QUEUE_STATE, abi.SVIO_QUEUE_POSITION)]
    READ_WRITE += [abi.SVIO_QUEUE_REG(0, _direction, register) for register in (
        abi.SVIO_QUEUE_BASE_LO, abi.SVIO_QUEUE_BASE_HI, abi.SVIO_QUEUE_EVENT_LO, abi.SVIO_QUEUE_EVENT_HI,
        abi.SVIO_QUEUE_SIZE, abi.SVIO_QUEUE_VECTOR, abi.SVIO_QUEUE_CONTROL, abi.SVIO_QUEUE_MODERATION)]
    WRITE_ONLY.append(abi.SVIO_BELL(0, _direction))


class Registers(DeviceCase):
    def setUp(self):
        super().setUp()
        self.boot()

    def test_values(self):
        read = self.driver.read
        self.assertEqual(read(abi.SVIO_REG_MAGIC), int.from_bytes(b"SVIO", "little"))
        self.assertEqual(read(abi.SVIO_REG_ABI_VERSION), abi.SVIO_ABI_MAJOR << 16 | abi.SVIO_ABI_MINOR)
        self.assertEqual(read(abi.SVIO_REG_FUNCTION), abi.SVIO_FUNCTION_PF)
        self.assertEqual(read(abi.SVIO_REG_STATUS), abi.SVIO_STATUS_READY | abi.SVIO_STATUS_LINK_UP)
        self.assertEqual(read(abi.SVIO_REG_DEVICE_FEATURES_LO),
                         abi.SVIO_F_RX_CHAIN | abi.SVIO_F_MODERATION | abi.SVIO_F_MULTICAST
                         | abi.SVIO_F_RX_HASH | abi.SVIO_F_LOOPBACK | abi.SVIO_F_CSUM_TX | abi.SVIO_F_CSUM_RX
                         | abi.SVIO_F_SEG_TCP4 | abi.SVIO_F_SEG_TCP6 | abi.SVIO_F_SEG_UDP | abi.SVIO_F_RX_SEG
                         | abi.SVIO_F_VLAN_TX | abi.SVIO_F_VLAN_RX | abi.SVIO_F_QOS_REQUEST)
        self.assertEqual(read(abi.SVIO_REG_DEVICE_FEATURES_HI), 0)
        self.assertEqual(read(abi.SVIO_REG_QUEUE_PAIRS), 1)
        self.assertEqual(read(abi.SVIO_REG_QUEUE_SIZE_HINT), 256)
        self.assertGreaterEqual(read(abi.SVIO_REG_QUEUE_SIZE_MAX), 256)
        self.assertEqual(read(abi.SVIO_REG_MTU_MAX), abi.SVIO_MTU_MAX)
        self.assertEqual(read(abi.SVIO_REG_VIF_KIND), abi.SVIO_KIND_NET)
        self.assertEqual(read(abi.SVIO_REG_ADMIN_SIZE_MAX), 0)
        self.assertNotEqual(read(abi.SVIO_REG_VIF_ID_LO) | read(abi.SVIO_REG_VIF_ID_HI) << 32, 0)
        self.assert_fresh()
        # All of it was allowed.
        self.assertEqual(self.counter("bad_register"), 0)

    def test_every_hole(self):
        """Each aligned word that is no register reads 0 and swallows writes, and counts both."""
        driver, qtest = self.driver, self.driver.qtest
        known = set(READ_ONLY + READ_WRITE + WRITE_ONLY)
        holes = [at for at in range(0, abi.SVIO_BAR_REGS_SIZE, 4) if at not in known]
        before = self.counter("bad_register")
        values = qtest.batch([f"readl {driver.regs + at:#x}" for at in holes])
        self.assertEqual({int(value, 16) for value in values}, {0})
        self.assertEqual(self.counter("bad_register") - before, len(holes))
        qtest.batch([qtest.store_line(4, driver.regs + at, 0xffffffff) for at in holes])
        self.assertEqual(self.counter("bad_register") - before, 2 * len(holes))
        self.assert_fresh()

    def test_read_only_and_write_only(self):
        for register in READ_ONLY:
            value = self.driver.read(register)
            self.assert_bad_access(lambda: self.driver.write(register, ~value))
            self.assertEqual(self.driver.read(register), value, f"register {register:#x}")
        for register in WRITE_ONLY:
            self.assertEqual(self.assert_bad_access(lambda: self.driver.read(register)), 0)
        for register in READ_WRITE:
            self.assert_bad_access(lambda: self.driver.read(register), count=0)

    def test_narrow_and_unaligned(self):
        qtest, regs = self.driver.qtest, self.driver.regs
        for size, offset in ((1, 0), (1, 3), (2, 0), (2, 2), (4, 1), (4, 2), (4, 3), (8, 4), (8, 1)):
            for register in (abi.SVIO_REG_MAGIC, abi.SVIO_REG_QUEUE_SIZE_HINT, abi.SVIO_QUEUE_REG(0, 0, 0)):
                with self.subTest(size=size, offset=offset, register=register):
                    at = regs + register + offset
                    before = self.counter("bad_register")
                    self.assertEqual(qtest.load(size, at), 0)
                    qtest.store(size, at, 0x41)
                    self.assertGreaterEqual(self.counter("bad_register") - before, 2)
        self.assert_fresh()

    def test_64_bit_access_is_two_registers(self):
        qtest, regs = self.driver.qtest, self.driver.regs
        version = abi.SVIO_ABI_MAJOR << 16 | abi.SVIO_ABI_MINOR
        self.assertEqual(qtest.load(8, regs), version << 32 | abi.SVIO_MAGIC)
        base = abi.SVIO_QUEUE_REG(0, abi.SVIO_SEND, abi.SVIO_QUEUE_BASE_LO)
        qtest.store(8, regs + base, 0x123456789abcdef0)
        self.assertEqual(self.driver.read(base), 0x9abcdef0)
        self.assertEqual(self.driver.read(base + 4), 0x12345678)
        self.assertEqual(self.counter("bad_register"), 0)
        # A pair of which one half is read-only is bad by half.
        self.assert_bad_access(lambda: qtest.store(8, regs + abi.SVIO_REG_MAGIC, 0), count=2)
        # Beyond the end of the BAR is not ours.
        self.assert_bad_access(lambda: qtest.load(8, regs + abi.SVIO_BAR_REGS_SIZE - 8), count=2)

    def test_negotiation(self):
        driver = self.driver
        offered = driver.read(abi.SVIO_REG_DEVICE_FEATURES_LO)
        for bit in range(64):
            if not offered >> bit & 1:
                self.assertFalse(driver.negotiate(1 << bit), f"feature bit {bit} was not offered")
                self.assertFalse(driver.negotiate(offered | 1 << bit))
        self.assertTrue(driver.negotiate(abi.SVIO_F_RX_CHAIN))
        # Frozen until the next reset.
        self.assert_bad_access(lambda: driver.write(abi.SVIO_REG_DRIVER_FEATURES_LO, offered))
        self.assert_bad_access(lambda: driver.write(abi.SVIO_REG_DRIVER_FEATURES_HI, 1))
        self.assertEqual(driver.read(abi.SVIO_REG_DRIVER_FEATURES_LO), abi.SVIO_F_RX_CHAIN)
        driver.write(abi.SVIO_REG_CONTROL, 0)
        self.assertTrue(driver.status & abi.SVIO_STATUS_FEATURES_OK, "only a reset takes them back")
        driver.reset()
        self.assert_fresh()
        self.assertTrue(driver.negotiate(0))

    def test_run(self):
        driver = self.driver
        # Without FEATURES_OK: ignored and counted.
        self.assert_bad_access(lambda: driver.write(abi.SVIO_REG_CONTROL, abi.SVIO_CONTROL_RUN))
        self.assertFalse(driver.status & abi.SVIO_STATUS_RUNNING)
        self.assertFalse(driver.negotiate(1 << 40))
        self.assert_bad_access(driver.run)
        self.assertFalse(driver.status & abi.SVIO_STATUS_RUNNING)
        self.assertTrue(driver.negotiate())
        driver.run()
        self.assertEqual(driver.read(abi.SVIO_REG_CONTROL),
                         abi.SVIO_CONTROL_FEATURES_OK | abi.SVIO_CONTROL_RUN)
        self.assertTrue(driver.status & abi.SVIO_STATUS_RUNNING)
        driver.run(False)
        self.assertFalse(driver.status & abi.SVIO_STATUS_RUNNING)
        # Reset wins over everything that is written with it.
        driver.write(abi.SVIO_REG_CONTROL, 7)
        self.assert_fresh()

    def test_vectors_out_of_range(self):
        vectors = [abi.SVIO_REG_EVENT_VECTOR] + [abi.SVIO_QUEUE_REG(0, direction, abi.SVIO_QUEUE_VECTOR)
                                                 for direction in (abi.SVIO_SEND, abi.SVIO_RECEIVE)]
        for register in vectors:
            for good in (0, abi.SVIO_VECTORS - 1, abi.SVIO_NO_VECTOR):
                self.assert_bad_access(lambda: self.driver.write(register, good), count=0)
                self.assertEqual(self.driver.read(register), good)

    def check_start(self, code, **where):
        """Both queues refuse to start like this; a stop clears it."""
        driver = self.driver
        for queue in (driver.send, driver.receive):
            errors = self.counter("queue_errors")
            state = queue.enable(**where)
            self.assertEqual(abi.SVIO_QUEUE_STATE_OF(state), abi.SVIO_QUEUE_ERROR)
            self.assertEqual(abi.SVIO_QUEUE_ERROR_OF(state), code, abi.name_of("SVIO_QERR_", code))
            self.assertEqual(self.counter("queue_errors"), errors + 1)
            self.assertTrue(driver.read(abi.SVIO_REG_EVENT) & abi.SVIO_EVENT_QUEUE_ERROR)
            driver.write(abi.SVIO_REG_EVENT, abi.SVIO_EVENT_QUEUE_ERROR)
            self.assertEqual(driver.read(abi.SVIO_REG_EVENT), 0)
            queue.disable()
            self.assertEqual(queue.state, abi.SVIO_QUEUE_DISABLED)

    def test_start_with_bad_configuration(self):
        driver = self.driver
        self.assertTrue(driver.negotiate())
        driver.queues()
        largest = driver.read(abi.SVIO_REG_QUEUE_SIZE_MAX)
        smallest = abi.SVIO_QUEUE_MIN
        for size in (0, 1, smallest // 2, smallest + 1, 48, 100, largest * 2, 1 << 31, 0xffffffff):
            with self.subTest(size=size):
                self.check_start(abi.SVIO_QERR_CONFIG, size=size)
        for delta in (1, 4, 32, 63):
            with self.subTest(misaligned=delta):
                self.check_start(abi.SVIO_QERR_CONFIG, base=driver.send.base + delta)
                self.check_start(abi.SVIO_QERR_CONFIG, event=driver.send.event + delta)

    def test_start_with_bad_addresses(self):
        driver, bars = self.driver, self.function.bars
        self.assertTrue(driver.negotiate())
        driver.queues()
        bad = {"a hole": 0xd0000000, "beyond RAM": RAM, "half beyond RAM": RAM - 64,
               "own registers": bars[abi.SVIO_BAR_REGS], "own doorbells": bars[0] + abi.SVIO_REG_BELLS,
               "own MSI-X table": bars[abi.SVIO_BAR_MSIX], "local APIC": 0xfee00000, "I/O APIC": 0xfec00000,
               "HPET": 0xfed00000, "firmware ROM": ROM_ADDRESS, "below the ROM": 0xfffc0000,
               "the end of all": (1 << 64) - 64, "wraps": (1 << 64) - 1024, "above 2^48": 1 << 60}
        for what, address in bad.items():
            with self.subTest(what):
                self.check_start(abi.SVIO_QERR_DMA, base=address)
                self.check_start(abi.SVIO_QERR_DMA, event=address)
        driver.enable()
        self.assertTrue(self.machine.qmp.command("query-status")["running"])

    def test_set_up_is_frozen_while_enabled(self):
        driver = self.driver
        self.assertTrue(driver.negotiate())
        driver.queues()
        driver.enable()
        for queue in (driver.send, driver.receive):
            for register in (abi.SVIO_QUEUE_BASE_LO, abi.SVIO_QUEUE_BASE_HI, abi.SVIO_QUEUE_EVENT_LO,
                             abi.SVIO_QUEUE_EVENT_HI, abi.SVIO_QUEUE_SIZE):
                value = queue.read(register)
                self.assert_bad_access(lambda: queue.write(register, value ^ 0x1000))
                self.assertEqual(queue.read(register), value)
            for register, value in ((abi.SVIO_QUEUE_VECTOR, 3), (abi.SVIO_QUEUE_MODERATION, 0x80010)):
                self.assert_bad_access(lambda: queue.write(register, value), count=0)
                self.assertEqual(queue.read(register), value)
        driver.reset()
        self.assert_fresh()

    def test_queue_stop_and_start(self):
        """A stopped queue starts again at position 0."""
        driver = self.driver.bring_up(send=16, receive=16)
        for n in range(20):
            self.check_both(n)
        for queue in (driver.send, driver.receive):
            self.assertEqual(queue.read(abi.SVIO_QUEUE_POSITION), 20)
            queue.disable()
            self.assertEqual(queue.read(abi.SVIO_QUEUE_POSITION), 0)
        driver.enable()
        for n in range(20):
            self.check_both(n)

    def test_values_survive_a_reset_of_the_board_only_where_they_should(self):
        """Counters and the unique ID stay, all else goes."""
        driver = self.driver.bring_up()
        self.check_both()
        identity = driver.read(abi.SVIO_REG_VIF_ID_LO)
        driver.write(abi.SVIO_REG_EVENT_VECTOR, 1)
        driver.command(abi.SVIO_OP_NOP)
        frames, resets = self.counter("tx_frames"), self.counter("resets")
        driver.reset()
        self.assert_fresh()
        self.assertEqual(driver.read(abi.SVIO_REG_VIF_ID_LO), identity)
        self.assertEqual(self.counter("tx_frames"), frames)
        self.assertEqual(self.counter("resets"), resets + 1)


class Mailbox(DeviceCase):
    def setUp(self):
        super().setUp()
        self.boot()

    def test_refusals(self):
        driver = self.driver
        self.assertEqual(driver.order(abi.SVIO_OP_NOP), abi.SVIO_ST_OK)
        for slot in (0, 1, 0xfffffffe):
            self.assertEqual(driver.order(abi.SVIO_OP_NOP, slot=slot), abi.SVIO_ST_DENIED)
        for opcode in (0, 1, 0xff, abi.SVIO_OP_DESCRIBE_OPTIONS, abi.SVIO_OP_VIF_CREATE, 0xffff):
            self.assertEqual(driver.order(opcode), abi.SVIO_ST_UNSUPPORTED, f"{opcode:#x}")
        for opcode in (abi.SVIO_OP_VLAN_FILTER, abi.SVIO_OP_QOS_REQUEST):
            self.assertEqual(driver.order(opcode), abi.SVIO_ST_INVALID, f"{opcode:#x}")
        for mac in (b"\0" * 6, b"\xff" * 6, b"\x01" + MAC[1:]):
            self.assertEqual(driver.order(abi.SVIO_OP_SET_MAC, payload=mac), abi.SVIO_ST_INVALID)
        for flags in (4, 0x80000000):
            self.assertEqual(driver.order(abi.SVIO_OP_RX_MODE, payload=struct.pack("<I", flags)),
                             abi.SVIO_ST_INVALID)
        for mtu, status in ((67, abi.SVIO_ST_INVALID), (68, abi.SVIO_ST_OK), (9000, abi.SVIO_ST_OK),
                            (9001, abi.SVIO_ST_INVALID), (0xffffffff, abi.SVIO_ST_INVALID)):
            self.assertEqual(driver.order(abi.SVIO_OP_SET_MTU, payload=struct.pack("<I", mtu)), status)
        self.assertEqual(self.counter("commands"), 1 + 3 + 8 + 3 + 2 + 5)
        self.assertEqual(self.counter("commands_refused"), 3 + 8 + 3 + 2 + 3)

    def test_multicast_table(self):
        driver = self.driver
        groups = [bytes.fromhex("01005e0000") + bytes([n]) for n in range(abi.SVIO_MULTICAST_MAX + 1)]

        def order(op, *macs, count=None):
            head = bytes([op, len(macs) if count is None else count, 0, 0])
            return driver.order(abi.SVIO_OP_MULTICAST, payload=head + b"".join(macs))

        self.assertEqual(order(abi.SVIO_MC_ADD, MAC), abi.SVIO_ST_INVALID)
        self.assertEqual(order(3, groups[0]), abi.SVIO_ST_INVALID)
        self.assertEqual(order(abi.SVIO_MC_ADD, count=7), abi.SVIO_ST_INVALID)
        for first in range(0, 60, 6):
            self.assertEqual(order(abi.SVIO_MC_ADD, *groups[first:first + 6]), abi.SVIO_ST_OK)
        self.assertEqual(order(abi.SVIO_MC_ADD, *groups[59:65]), abi.SVIO_ST_NO_SPACE)
        self.assertEqual(order(abi.SVIO_MC_ADD, *groups[58:64]), abi.SVIO_ST_OK)
        self.assertEqual(order(abi.SVIO_MC_ADD, groups[0]), abi.SVIO_ST_OK)
        self.assertEqual(order(abi.SVIO_MC_ADD, groups[64]), abi.SVIO_ST_NO_SPACE)
        self.assertEqual(order(abi.SVIO_MC_REMOVE, groups[0]), abi.SVIO_ST_OK)
        self.assertEqual(order(abi.SVIO_MC_ADD, groups[64]), abi.SVIO_ST_OK)
        self.assertEqual(order(abi.SVIO_MC_CLEAR, groups[0]), abi.SVIO_ST_OK)

    def test_identify(self):
        driver = self.driver
        at, size = driver.allocate(4096), abi.svio_vif_info.size
        driver.qtest.fill(at, 256, 0xee)
        status = driver.order(abi.SVIO_OP_IDENTIFY, data_addr=at, data_len=size - 1)
        self.assertEqual(status, abi.SVIO_ST_NO_SPACE)
        answer = driver.command(abi.SVIO_OP_IDENTIFY, data_addr=at, data_len=256)
        self.assertEqual((answer["status"], answer["data_len"]), (abi.SVIO_ST_OK, size))
        info = abi.svio_vif_info.unpack(driver.qtest.read(at, size))
        self.assertEqual(driver.qtest.read(at + size, 256 - size), b"\xee" * (256 - size))
        self.assertEqual(info["id"], self.counter("id"))
        self.assertEqual(info["kind"], abi.SVIO_KIND_NET)
        self.assertEqual(info["mac"], MAC)
        self.assertEqual(info["features"], driver.read(abi.SVIO_REG_DEVICE_FEATURES_LO))
        self.assertEqual((info["mtu_max"], info["queue_pairs"], info["link_up"]), (abi.SVIO_MTU_MAX, 1, 1))
        self.assertEqual(info["queue_size_max"], driver.read(abi.SVIO_REG_QUEUE_SIZE_MAX))

    def test_stats(self):
        """The mailbox tells the same figures as QEMU's monitor."""
        driver = self.driver.bring_up()
        for seed in range(5):
            self.check_both(seed)
        at = driver.allocate(4096)

        def ask(pair, length):
            answer = driver.command(abi.SVIO_OP_STATS, data_addr=at, data_len=length,
                                    payload=struct.pack("<I", pair))
            self.assertEqual(answer["status"], abi.SVIO_ST_OK)
            data = driver.qtest.read(at, answer["data_len"])
            return list(struct.unpack(f"<{len(data) // 8}Q", data))

        before = self.machine.vif()
        values = dict(zip(abi.SVIO_STATS, ask(abi.SVIO_STATS_VIF, 4096)))
        self.assertEqual(values, {name: before[name] for name in abi.SVIO_STATS})
        self.assertEqual(values["tx_frames"], 5)
        queues = ask(0, 4096)
        half = len(abi.SVIO_QSTATS)
        self.assertEqual(len(queues), 2 * half)
        for name, sent, received in zip(abi.SVIO_QSTATS, queues[:half], queues[half:]):
            if not name.startswith("bells"):  # cores may go to sleep meanwhile
                self.assertEqual((sent, received), (before["send"][name], before["receive"][name]), name)
        # A shorter buffer gets the first of them.
        self.assertEqual(len(ask(abi.SVIO_STATS_VIF, 31)), 3)
        for arguments, status in (({"payload": struct.pack("<I", 1), "data_len": 64}, abi.SVIO_ST_NOT_FOUND),
                                  ({"payload": struct.pack("<I", 0), "data_len": 7}, abi.SVIO_ST_NO_SPACE)):
            self.assertEqual(driver.order(abi.SVIO_OP_STATS, data_addr=at, **arguments), status)

    def test_data_addresses(self):
        bars = self.function.bars
        for address in (0xd0000000, RAM - 8, RAM, bars[0], bars[2], 0xfee00000, ROM_ADDRESS, (1 << 64) - 32):
            for opcode in (abi.SVIO_OP_IDENTIFY, abi.SVIO_OP_STATS):
                status = self.driver.order(opcode, data_addr=address, data_len=64, payload=b"\xff" * 4)
                self.assertEqual(status, abi.SVIO_ST_DMA, f"{address:#x}")
        self.function.command(master=False)
        status = self.driver.order(abi.SVIO_OP_IDENTIFY, data_addr=4 << 20, data_len=64)
        self.assertEqual(status, abi.SVIO_ST_DMA)

    def test_any_command(self):
        """Commands with arbitrary bits get a status; the device goes on."""
        rng = random.Random(11)
        for _ in range(300):
            opcode = rng.choice((rng.randrange(1 << 16), rng.randrange(0x100, 0x10c)))
            status = self.driver.order(opcode, data_addr=rng.choice((rng.getrandbits(64), 4 << 20)),
                                       data_len=rng.choice((rng.getrandbits(32), 64)),
                                       payload=rng.randbytes(40),
                                       slot=rng.choice((abi.SVIO_SLOT_SELF, rng.getrandbits(32))))
            self.assertLess(status, abi.SVIO_ST_COUNT)
        self.driver.bring_up()
        self.check_both()


if __name__ == "__main__":
    unittest.main()
