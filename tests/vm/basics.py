# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of one card after the other: what it says of itself, ping, transfers, counters, load and unload."""
import json
import re

from case import Card, VmCase
from svio_tool import transfer
from svio_tool.paths import ABI_HEADER
from wires import PAUSE, ByHand, Flood, HOST_MAC, PeerProgram, frame, mac_bytes, udp, user

MIB = 1 << 20
LOADS = 20
USER_MAC = "52:55:0a:00:02:02"      # libslirp's own


def addresses(peer):
    """Shell words that set up "peer", whose wire this is, "hand" and "handnet"."""
    host = HOST_MAC.hex(":")
    return f"""
        ip address replace {peer.guest_ip}/24 dev peer && ip link set peer up
        ip neighbour replace {peer.ip} lladdr {peer.mac} nud permanent dev peer
        ip address replace 10.88.0.2/24 dev hand && ip link set hand up
        ip neighbour replace 10.88.0.1 lladdr {host} nud permanent dev hand
        ip address replace 10.89.0.2/24 dev handnet && ip link set handnet up
        ip neighbour replace 10.89.0.1 lladdr {host} nud permanent dev handnet"""


class BasicVm(VmCase):
    """Four cards, one on each kind of wire but tap; "peer" answers, "hand" and "handnet" are the test's."""

    @classmethod
    def cards(cls):
        return [Card("peer", 1, PeerProgram(cls.folder, "peer", native=False)),
                # They wait for a test that reads late, however slow the machine is.
                Card("hand", 2, ByHand(cls.folder, "hand", native=True), "port-stall-ms=0"),
                Card("handnet", 3, ByHand(cls.folder, "handnet", native=False), "port-stall-ms=0"),
                Card("user", 4, user("user"))]

    @classmethod
    def prepare(cls):
        # A flood of datagrams must fit a socket: what is tested is the card, not this limit.
        cls.run_in("sysctl -q net.core.rmem_max=134217728")
        cls.set_addresses()

    @classmethod
    def set_addresses(cls):
        peer = cls.card["peer"]
        cls.run_in(f"""set -e
            {addresses(peer.wire)}
            ip address replace 10.0.2.15/24 dev user && ip link set user up
            ip route replace default via 10.0.2.2""")

    def setUp(self):
        super().setUp()
        for card, _, _ in self.by_hand():
            card.wire.drain()

    def by_hand(self):
        """(card, IPv4 address of the host, of the guest) on the native port and on the netdev."""
        for name, net in (("hand", 88), ("handnet", 89)):
            yield self.card[name], (10, net, 0, 1), (10, net, 0, 2)

    def ping_peer(self, words="", count=3):
        self.ping_exactly(count, f"{words} {self.card['peer'].wire.ip}")


class Facts:
    """What the driver and ethtool say."""

    def link(self, card):
        return json.loads(self.run_in(f"ip -j -d -s link show dev {card.dev}"))[0]

    def test_facts_driver(self):
        for card in self.card.values():
            out = self.run_in(f"ethtool -i {card.dev}")
            self.assertIn("driver: svio\n", out)
            self.assertIn("firmware-version: ABI 1.0\n", out)
            self.assertIn(f"bus-info: 0000:00:{0x10 + card.index:02x}.0\n", out)

    def test_facts_link(self):
        for card in self.card.values():
            out = self.run_in(f"ethtool {card.dev}")
            self.assertIn("Link detected: yes", out)
            self.assertIn("Duplex: Full", out)
            self.assertIn("Auto-negotiation: off", out)
            self.assertEqual(self.sysfs(card, "carrier"), 1)
            facts = self.link(card)
            self.assertEqual(facts["address"], card.mac)
            self.assertIn("LOWER_UP", facts["flags"])
            self.assertEqual((facts["mtu"], facts["min_mtu"], facts["max_mtu"]), (1500, 68, 9000))

    def test_facts_log(self):
        for card in self.card.values():
            place = f"0000:00:{0x10 + card.index:02x}.0"
            self.assertRegex(self.vm.log(), rf"svio {place} .*: VIF 0000000000000001"
                             rf", ABI 1\.0, 1 queue pair, MAC {card.mac}\s")

    def test_facts_mtu_limits(self):
        card = self.card["peer"]
        for mtu, good in ((67, False), (68, True), (9001, False), (9000, True), (0, False), (1500, True)):
            before = self.sysfs(card, "mtu")
            result = self.vm.run(f"ip link set dev {card.dev} mtu {mtu}", check=False)
            self.assertEqual(result.rc == 0, good, f"MTU {mtu}: {result.err}")
            self.assertEqual(self.sysfs(card, "mtu"), mtu if good else before)
        self.set_addresses()
        self.ping_peer()

    def test_facts_rings(self):
        card = self.card["peer"]

        def sizes():
            out = self.run_in(f"ethtool -g {card.dev}")
            return [int(n) for n in re.findall(r"^[RT]X:\s+(\d+)", out, re.M)]

        self.assertEqual(sizes(), [1024, 1024, 256, 256])
        # Sizes that are no powers of two are rounded up, those out of range refused.
        for rx, tx, found in ((16, 16, [16, 16]), (1024, 33, [1024, 64]), (256, 256, [256, 256])):
            self.run_in(f"ethtool -G {card.dev} rx {rx} tx {tx}")
            self.assertEqual(sizes()[2:], found)
            self.ping_peer("-f", 100)
        self.assertNotEqual(self.vm.run(f"ethtool -G {card.dev} rx 1025", check=False).rc, 0)
        self.assertEqual(sizes(), [1024, 1024, 256, 256])

    def test_facts_statistics(self):
        """ethtool -S has every counter of the contract, and shows what the board itself says."""
        card = self.card["peer"]
        self.ping_peer()
        text = ABI_HEADER.read_text().replace("\\\n", " ")
        names = {list_name: re.findall(r"X\([A-Z_]+, (\w+)\)", re.search(
            rf"#define {list_name}\(X\)(.*)", text)[1]) for list_name in ("SVIO_STATS", "SVIO_QSTATS")}
        self.assertGreater(len(names["SVIO_STATS"]), 20)
        seen = {}

        def agree():
            # The reading itself is a command, and signals may still come: until both stand still.
            before, driver, after = self.vif("peer"), self.ethtool(card), self.vif("peer")
            board = {f"dev_{name}": after[name] for name in names["SVIO_STATS"]
                     if before[name] == after[name]}
            for short, queue in (("tx", "send"), ("rx", "receive")):
                board.update({f"dev_{short}0_{name}": after["queues"]["0"][queue][name]
                              for name in names["SVIO_QSTATS"]})
            seen.update(differ={key: (value, driver.get(key)) for key, value in board.items()
                                if driver.get(key) != value})
            self.assertLessEqual({f"dev_{name}" for name in names["SVIO_STATS"]}, set(driver))
            return not seen["differ"] and board.get("dev_tx_frames", 0) >= 3
        self.wait(agree, lambda: f"board and ethtool agree; (board, ethtool): {seen['differ']}")

    def test_facts_counters_equal_the_peers(self):
        """ip -s link, the board and the peer have counted the same frames and bytes."""
        card = self.card["peer"]
        self.ping_peer(count=1)
        card.wire.reset()
        before, board = self.link_stats(card), self.vif("peer")
        count = 0
        for size in (0, 56, 777, 1472):
            self.ping_peer(f"-i 0.01 -s {size}", 10)
            count += 10

        def moved():
            now, vif, peer = self.link_stats(card), self.vif("peer"), card.wire.counters()
            return {"guest": [now[key] - before[key] for key in
                              ("tx_packets", "tx_bytes", "rx_packets", "rx_bytes")],
                    "board": [vif[key] - board[key] for key in
                              ("tx_frames", "tx_bytes", "rx_frames", "rx_bytes")],
                    "peer": [peer["received"], peer["received_bytes"], peer["sent"], peer["received_bytes"]]}
        # What was sent is counted by the driver when it cleans up behind it.
        self.wait(lambda: len({str(value) for value in moved().values()}) == 1, moved)
        self.assertEqual(moved()["peer"][:2], [count, 10 * (60 + 98 + 819 + 1514)])
        peer = card.wire.counters()
        self.assertEqual(peer["icmp_echo"], count)
        self.assertEqual({key: peer[key] for key in ("malformed", "bad_checksum", "ignored", "send_errors")
                          if peer[key]}, {})
        now = self.link_stats(card)
        self.assertEqual({key: value for key, value in now.items()
                          if re.search("dropped|errors", key) and value != before[key]}, {})


class Ping:
    def test_ping_sizes(self):
        """ping compares each byte of the answers itself."""
        card = self.card["peer"]
        card.wire.reset()
        sizes = [0, 1, 2, 15, 16, 17, 18, 19, 45, 46, 47, 64, 100, 214, 215, 255, 256, 257, 511, 512, 1000,
                 1023, 1024, 1400, 1470, 1471, 1472]
        out = self.run_in(f"for size in {' '.join(map(str, sizes))}; do "
                          f"ping -q -c 1 -W 60 -s $size {card.wire.ip} || exit 1; "
                          f"ping -q -c 1 -W 60 -s $size {card.wire.ip} || exit 1; done")
        self.assertEqual(out.count("1 packets transmitted, 1 received, 0% packet loss"), 2 * len(sizes))
        self.assertNotRegex(out, "wrong data|truncated|corrupted|duplicates|errors")
        peer = card.wire.counters()
        self.assertEqual((peer["icmp_echo"], peer["malformed"], peer["bad_checksum"]), (2 * len(sizes), 0, 0))

    def test_ping_flood(self):
        card = self.card["peer"]
        for size in (18, 1400):
            card.wire.reset()
            self.ping_peer(f"-f -s {size}", 1500)
            peer = card.wire.counters()
            self.assertEqual((peer["icmp_echo"], peer["bad_checksum"]), (1500, 0))

    def test_ping_tiny_frames_are_padded(self):
        """A frame of 42 bytes leaves with 60, the rest zero: nothing of the guest's memory leaks."""
        for card, host, guest in self.by_hand():
            card.wire.drain()
            ping = self.start_process(f"ping -q -c 1 -W 1 -s 0 {'.'.join(map(str, host))}")
            found = card.wire.wait_for(lambda data: data[12:14] == b"\x08\0", "a ping")
            self.assertEqual(len(found), 60)
            self.assertEqual(found[:12], HOST_MAC + mac_bytes(card.mac))
            self.assertEqual(found[26:34], bytes(guest) + bytes(host))
            self.assertEqual(found[42:], bytes(18))
            ping.wait()

    def test_ping_user_network(self):
        self.ping_exactly(20, "-i 0.02 -s 1000 10.0.2.2")


class Transfer:
    def test_transfer_down_and_up(self):
        """8 MiB from a server on the host, and back."""
        before = self.vif("user")
        figures = transfer.exchange(self.vm, 8 * MIB)
        self.assertEqual(len(set(figures["sha256"].values())), 1, figures["sha256"])
        after = self.vif("user")
        self.assertGreater(after["rx_bytes"] - before["rx_bytes"], 8 * MIB)
        self.assertGreater(after["tx_bytes"] - before["tx_bytes"], 8 * MIB)
        self.assertEqual(after["drop_tx_port_error"], before["drop_tx_port_error"])


class Idle:
    def test_idle_cores_sleep(self):
        """After traffic the on-board cores stop looking."""
        self.ping_peer("-f", 200)
        seen = {}

        def still(name):
            before = self.core_sum(name, "polls")
            self.run_in("sleep 0.5")
            seen[name] = (before, self.core_sum(name, "polls"))
            return before == seen[name][1]
        for name in self.card:
            self.wait(lambda name=name: still(name), lambda: f"polls before and after half a second: {seen}")
        # And they wake up again.
        self.ping_peer("-f", 200)


class LoadUnload:
    """The driver comes and goes; "loads" of it, with traffic on the wires in every second round."""

    LOADS = LOADS

    def memory_kib(self):
        out = self.run_in("sync; echo 3 >/proc/sys/vm/drop_caches; cat /proc/meminfo")
        facts = {key: int(value) for key, value in re.findall(r"^(\w+):\s+(\d+)", out, re.M)}
        return facts["MemFree"], facts["SUnreclaim"]

    def _round(self):
        """Unload, see that nothing is left, load, see that all is back."""
        self.run_in("rmmod svio")
        left = self.run_in("cat /proc/interrupts /proc/iomem /proc/vmallocinfo /proc/modules; "
                           "ls /sys/class/net /sys/bus/pci/drivers")
        self.assertNotRegex(left, r"svio|\bhand\b|\bpeer\b")
        self.run_in("modprobe svio")
        # By their MACs: a card that came back with another one is not found.
        self.name_interfaces()
        self.set_addresses()
        self.ping_peer("-i 0.05")

    def test_load_unload(self):
        card = self.card["peer"]
        memory = None
        ids = {name: self.vif(name)["id"] for name in self.card}
        for number in range(self.LOADS):
            if number % 2:
                self._with_traffic()
            else:
                self._round()
            if number == min(4, self.LOADS - 1):
                memory = self.memory_kib()
        free, slab = self.memory_kib()
        # A card's buffers alone are half a MiB: a leak in each round is far above the noise.
        self.assertLess(memory[0] - free, 6 * 1024, f"KiB free after 5 and all: {memory[0]}, {free}")
        self.assertLess(slab - memory[1], 2 * 1024, f"KiB of slabs after 5 and all: {memory[1]}, {slab}")
        self.assertEqual(self.sysfs(card, "carrier"), 1)
        self.assertEqual({name: self.vif(name)["id"] for name in self.card}, ids)
        for other in self.card.values():
            self.assertEqual(self.run_in(f"cat /sys/class/net/{other.dev}/address").strip(), other.mac)

    def _with_traffic(self):
        """Both wires deliver, and the guest sends, while the driver goes and comes."""
        cards = [card for card, _, _ in self.by_hand()]
        small = {card.name: udp(mac_bytes(card.mac), bytes(100)) for card in cards}
        large = {card.name: frame(mac_bytes(card.mac), 1514) for card in cards}

        def send(number):
            taken = 0
            for card in cards:
                card.wire.drain()
                taken += card.wire.try_send((small if number % 3 else large)[card.name])
            return taken
        sender = self.start_process("while :; do ping -q -f -w 1 10.88.0.1; "
                                    "ping -q -f -w 1 10.89.0.1; done")
        with Flood(send, PAUSE) as flood:
            self._round()
            seen = flood.sent
            self.wait(lambda: flood.sent > seen + 200, "frames are taken after the driver came back")
        sender.kill()
