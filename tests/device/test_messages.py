# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages each way, byte by byte, over each kind of wire."""
import os
import random
import unittest

import abi
from case import MAC_TEXT, DeviceCase
from driver import Driver
from wires import MAC, PEER, Background, arp_request, dhcp_discover, frame

SIZES = (14, 15, 42, 59, 60, 63, 64, 65, 128, 1499, 1514, 1518, 2047, 2048, 2049, 4096, 4097, 9014, 9018)


class Messages(DeviceCase):
    """Over a netdev; below once more over a native port."""

    kind = "netdev"

    def test_sizes_out(self):
        self.boot(self.kind).bring_up()
        for seed, size in enumerate(SIZES):
            with self.subTest(size=size):
                self.check_out(frame(size, seed, to=PEER, source=MAC))
        vif = self.machine.vif()
        self.assertEqual(vif["tx_frames"], len(SIZES))
        self.assertEqual(vif["tx_bytes"], sum(SIZES))
        self.assertEqual(vif["send"]["messages"], len(SIZES))

    def test_sizes_in(self):
        self.boot(self.kind).bring_up()
        for seed, size in enumerate(SIZES):
            with self.subTest(size=size):
                self.check_in(frame(size, seed))
        vif = self.machine.vif()
        self.assertEqual(vif["rx_frames"], len(SIZES))
        self.assertEqual(vif["rx_bytes"], sum(SIZES))
        # 2048 is the length of a buffer.
        self.assertEqual(vif["receive"]["chained"], sum(size > 2048 for size in SIZES))

    def test_chains_out(self):
        self.boot(self.kind).bring_up()
        for pieces in (2, 3, 5, 17, abi.SVIO_CHAIN_MAX - 1, abi.SVIO_CHAIN_MAX):
            for size in (64, 1514, 9018):
                with self.subTest(pieces=pieces, size=size):
                    self.check_out(frame(size, pieces, to=PEER, source=MAC), pieces)

    def test_chain_of_one_byte_pieces_anywhere(self):
        """Pieces at odd addresses, in no order, across page boundaries."""
        driver = self.boot(self.kind).bring_up()
        data = frame(32, 5, to=PEER, source=MAC)
        rng = random.Random(7)
        area = driver.allocate(3 * 4096)
        places = rng.sample(range(area, area + 3 * 4096), len(data))
        for address, byte in zip(places, data):
            driver.qtest.write(address, bytes([byte]))
        driver.send.post([(address, 1) for address in places])
        driver.send.wait_done()
        self.assert_frame(self.wire.receive(), data)

    def test_laps(self):
        """Small rings, several times around in both directions, in order."""
        driver = self.boot(self.kind).bring_up(send=16, receive=16)
        rng = random.Random(3)
        out = [frame(rng.randint(14, 3000), n, to=PEER, source=MAC) for n in range(100)]
        into = [frame(rng.randint(14, 3000), n) for n in range(100)]
        with Background(self.wire, into):
            for data_out, data_in in zip(out, into):
                driver.send.send(data_out, rng.randint(1, 3))
                self.assert_frame(self.wire.receive(), data_out)
                self.assert_frame(driver.expect(), data_in)
        driver.send.wait_done()
        self.assertGreater(driver.receive.next, 5 * 16)
        self.assertGreater(driver.send.posted, 5 * 16)

    def test_a_full_ring_at_once(self):
        """64 messages are posted before the one bell that announces them."""
        self.boot(self.kind).bring_up()
        self.check_full_ring()

    def test_two_cores(self):
        driver = self.boot(self.kind, cores=2).bring_up()
        for seed in range(50):
            self.check_both(seed, size=60 + seed)
        self.wait(lambda: sorted(self.machine.threads()) == ["svio-core0", "svio-core1"], "both cores")
        self.assertTrue(driver.status & abi.SVIO_STATUS_RUNNING)

    def test_long_frame_without_rx_chain_is_dropped(self):
        self.boot(self.kind).bring_up(features=0)
        self.assertTrue(self.wire.send(frame(2049)))
        self.wait_counter(1, "drop_rx_too_long")
        self.check_in(frame(2048, 2))

    def test_runt_and_longest_message(self):
        driver = self.boot(self.kind).bring_up()
        driver.transmit(b"x" * 13)
        self.wait_counter(1, "drop_tx_runt")
        # 17 buffers of 4 KiB are SVIO_MESSAGE_MAX.
        longest = frame(abi.SVIO_MESSAGE_MAX, 1, to=PEER, source=MAC)
        self.check_out(longest, 17)
        self.assertTrue(self.wire.send(b"y" * 13))
        self.wait_counter(1, "drop_rx_runt")
        self.check_both()

    def test_filters(self):
        """Own address, broadcast, groups; and what SET_MAC, MULTICAST and RX_MODE change."""
        driver = self.boot(self.kind).bring_up()
        other, group = bytes.fromhex("525400510077"), bytes.fromhex("01005e000042")

        def passes(to):
            # The second frame shows that the first has been dealt with.
            before = self.counter("drop_rx_filter")
            self.assertTrue(self.wire.send(frame(77, 1, to=to)))
            self.assertTrue(self.wire.send(frame(78, 2, to=b"\xff" * 6)))
            first = driver.expect()
            if len(first) == 77:
                self.assert_frame(first, frame(77, 1, to=to))
                self.assertEqual(len(driver.expect()), 78)
                return True
            self.assertEqual(self.counter("drop_rx_filter"), before + 1)
            return False

        self.assertTrue(passes(MAC))
        self.assertFalse(passes(other))
        self.assertFalse(passes(group))
        self.assertEqual(driver.order(abi.SVIO_OP_SET_MAC, payload=other), abi.SVIO_ST_OK)
        self.assertTrue(passes(other))
        self.assertFalse(passes(MAC))
        add = bytes([abi.SVIO_MC_ADD, 1, 0, 0]) + group
        self.assertEqual(driver.order(abi.SVIO_OP_MULTICAST, payload=add), abi.SVIO_ST_OK)
        self.assertTrue(passes(group))
        remove = bytes([abi.SVIO_MC_REMOVE, 1, 0, 0]) + group
        self.assertEqual(driver.order(abi.SVIO_OP_MULTICAST, payload=remove), abi.SVIO_ST_OK)
        self.assertFalse(passes(group))
        mode = abi.SVIO_RX_ALL_MULTICAST.to_bytes(4, "little")
        self.assertEqual(driver.order(abi.SVIO_OP_RX_MODE, payload=mode), abi.SVIO_ST_OK)
        self.assertTrue(passes(group))
        self.assertFalse(passes(MAC))
        mode = abi.SVIO_RX_PROMISC.to_bytes(4, "little")
        self.assertEqual(driver.order(abi.SVIO_OP_RX_MODE, payload=mode), abi.SVIO_ST_OK)
        self.assertTrue(passes(MAC))
        driver.bring_up()
        self.assertTrue(passes(MAC), "a reset brings the permanent address back")
        self.assertFalse(passes(other))

    def test_malformed_entries(self):
        """Each puts the send queue alone into its error, with the reason; stopping it mends it."""
        driver = self.boot(self.kind).bring_up()
        send, at = driver.send, driver.send.buffer(frame(2048, to=PEER, source=MAC))
        big = abi.SVIO_MESSAGE_MAX // 2 + 1
        cases = [
            (abi.SVIO_QERR_TORN, [(at, 64)], {"more": True}),
            (abi.SVIO_QERR_CHAIN, [(at, 64)] * (abi.SVIO_CHAIN_MAX + 1), {}),
            (abi.SVIO_QERR_LENGTH, [(at, big), (at, big)], {}),
            (abi.SVIO_QERR_LENGTH, [(at, 0xffffffff)], {}),
            (abi.SVIO_QERR_LENGTH, [(at, 1), (at, 0xffffffff)], {}),
            (abi.SVIO_QERR_EMPTY, [(at, 0)], {}),
            (abi.SVIO_QERR_EMPTY, [(at, 64), (at, 0)], {}),
        ]
        for bit in range(1, 30):
            cases.append((abi.SVIO_QERR_FLAGS, [(at, 64)], {"flags": 1 << bit}))
        errors = 0
        for code, pieces, options in cases:
            with self.subTest(error=abi.name_of("SVIO_QERR_", code), options=options):
                # A good message before it is carried, a good one after it is not.
                send.send(frame(60, 1, to=PEER, source=MAC), bell=False)
                send.post(pieces, bell=False, **options)
                if code != abi.SVIO_QERR_TORN:
                    send.send(frame(61, 2, to=PEER, source=MAC), bell=False)
                send.bell()
                send.wait_error(code)
                errors += 1
                self.assertEqual(send.read(abi.SVIO_QUEUE_POSITION), 1)
                self.assertEqual(send.done, 1)
                self.assert_frame(self.wire.receive(), frame(60, 1, to=PEER, source=MAC))
                self.check_in(frame(80, 3))
                send.disable()
                send.clear()
                self.assertEqual(send.enable(), abi.SVIO_QUEUE_RUNNING)
        self.check_out(frame(200, 9, to=PEER, source=MAC))
        self.assertEqual(self.wire.drain(), 0)
        self.wait_counter(errors, "queue_errors")
        self.assertEqual(self.counter("send", "errors"), errors)
        self.assertTrue(driver.read(abi.SVIO_REG_EVENT) & abi.SVIO_EVENT_QUEUE_ERROR)

    def test_empty_receive_buffer(self):
        driver = self.boot(self.kind).bring_up(fill=False)
        driver.receive.post(length=0)
        self.assertTrue(self.wire.send(frame(60)))
        driver.receive.wait_error(abi.SVIO_QERR_EMPTY)
        self.wait_counter(1, "drop_rx_queue_error")
        self.check_out(frame(60, to=PEER, source=MAC))


class NativeMessages(Messages):
    kind = "native"

    def test_peer_that_goes_and_comes(self):
        """Nobody at the other path is an error of the port, not of the queue; a new peer is found."""
        driver = self.boot("native").bring_up()
        self.check_both()
        path = self.wire.remote
        self.wire.close()
        os.unlink(path)
        driver.transmit(frame(60, to=PEER, source=MAC))
        self.wait_counter(1, "drop_tx_port_error")
        self.wire.__init__(self.folder, os.path.basename(path)[:-len("-peer")])
        self.check_both(5)


class UserNetwork(DeviceCase):
    """QEMU's own libslirp answers ARP at once, inside of our call that sends."""

    def setUp(self):
        super().setUp()
        self.machine = self.start("-netdev", "user,id=n0", "-device",
                                  f"svio-nic,id=svio0,netdev=n0,mac={MAC_TEXT}")
        self.function = self.machine.function()
        self.function.assign()
        self.driver = Driver(self.function).bring_up()

    def expect_matching(self, accept, what):
        return self.wait(lambda: next(filter(accept, iter(self.driver.receive.take, None)), None), what)

    def test_arp(self):
        for _ in range(20):
            self.driver.transmit(arp_request(MAC, (10, 0, 2, 15), (10, 0, 2, 2)))
            reply = self.expect_matching(lambda data: data[12:14] == b"\x08\x06" and data[20:22] == b"\0\2",
                                         "an ARP reply")
            self.assertEqual(reply[:6], MAC)
            self.assertEqual(reply[28:32], bytes((10, 0, 2, 2)))
            self.assertEqual(reply[32:38], MAC)
            self.assertEqual(reply[6:12], reply[22:28])

    def test_arp_a_ring_full_at_once(self):
        """Replies come while the core is still sending the batch."""
        for _ in range(60):
            self.driver.send.send(arp_request(MAC, (10, 0, 2, 15), (10, 0, 2, 2)), bell=False)
        self.driver.send.bell()
        for _ in range(60):
            self.expect_matching(lambda data: data[12:14] == b"\x08\x06" and data[20:22] == b"\0\2",
                                 "an ARP reply for each request")
        self.driver.send.wait_done()

    def test_dhcp(self):
        self.driver.transmit(dhcp_discover(MAC, b"svio"))
        offer = self.expect_matching(lambda data: data[12:14] == b"\x08\0" and data[34:38] == b"\0\x43\0\x44",
                                     "a DHCP answer")
        bootp = offer[42:]
        self.assertEqual(bootp[0], 2)
        self.assertEqual(bootp[4:8], b"svio")
        self.assertEqual(bootp[16:20], bytes((10, 0, 2, 15)))
        self.assertIn(b"\x35\1\2", bootp)  # message type: offer


if __name__ == "__main__":
    unittest.main()
