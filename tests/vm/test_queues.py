# SPDX-License-Identifier: GPL-2.0-or-later
"""Several queue pairs: which flows go where, ethtool -l/-L and -x/-X, interrupts and senders per CPU."""
import re

from case import Card, VmCase
from genl import NetdevGenl
from pair import PairCase
from svio_tool.worker import long
from wires import ByHand, cross, mac_bytes, udp

PAIRS = 4
# Microsoft's, so that flows can be chosen; the driver's own is another in each boot.
KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
KEY_TEXT = ":".join(f"{byte:02x}" for byte in KEY)


def toeplitz(data, key=KEY):
    """Bit by bit, as it is defined."""
    window, value = int.from_bytes(key, "big"), 0
    length = 8 * len(key)
    for number, bit in enumerate(f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}"):
        if bit == "1":
            value ^= window >> (length - 32 - number) & 0xffffffff
    return value


def flow_hash(source, target, from_port, port):
    def packed(address):
        return bytes(map(int, address.split(".")))
    return toeplitz(packed(source) + packed(target) + from_port.to_bytes(2, "big") + port.to_bytes(2, "big"))


class Queues:
    """Questions about the queues of a card. In front of PairCase or VmCase."""

    def guest(self, card, command):
        return self.in_ns(card, command) if isinstance(self, PairCase) else self.run_in(command)

    def counters(self, card, name, pairs=PAIRS):
        """Counter rx{n}_packets or the like of each pair."""
        values, names = self.ethtool(card), [name.format(n) for n in range(pairs)]
        # Seen once, and not understood: say what there was instead.
        self.assertLessEqual(set(names), set(values), f"{len(values)} counters; again: {self.ethtool(card)}")
        return [values[one] for one in names]

    def channels(self, card):
        out = self.guest(card, f"ethtool -l {card.dev}")
        return [int(n) for n in re.findall(r"^Combined:\s+(\d+)", out, re.M)]

    def table(self, card):
        out = self.guest(card, f"ethtool -x {card.dev}")
        return [int(n) for line in re.findall(r"^\s*\d+:((?:\s+\d+)+)$", out, re.M) for n in line.split()]

    def set_pairs(self, card, count):
        self.guest(card, f"ethtool -L {card.dev} combined {count}")

    def check_queues(self):
        """No queue of any card is in error, and nothing was reset."""
        self.assertEqual(self.vm.kernel_problems(), [])
        for card in self.card.values():
            vif = self.vif(card.name)
            bad = ("queue_errors", "bad_register", "drop_tx_runt", "drop_rx_runt", "drop_rx_too_long",
                   "drop_rx_queue_error", "drop_rx_backlog", "commands_refused")
            self.assertEqual({key: vif[key] for key in bad if vif[key]}, {}, card.name)
            for pair in vif["queues"].values():
                self.assertEqual([queue["errors"] for queue in pair.values()], [0, 0], card.name)
            driver = self.ethtool(card)
            self.assertEqual([driver["resets"], driver["tx_timeouts"]], [0, 0], card.name)


class ByHandTests(Queues):
    """One card whose frames the test makes: each goes where the table says."""

    def flood_flows(self, flows, each=3):
        """`each` frames of every flow (a source port); how many more each pair received, and should have."""
        card = self.card["hand"]
        table = self.table(card)
        before = self.counters(card, "rx{}_packets")
        wanted = [0] * PAIRS
        for _ in range(each):
            for port in flows:
                card.wire.send(udp(mac_bytes(card.mac), bytes(20), from_port=port))
        for port in flows:
            wanted[table[flow_hash("10.88.0.1", "10.88.0.2", port, 9) % len(table)]] += each

        def found():
            return [now - then for now, then in zip(self.counters(card, "rx{}_packets"), before)]
        self.wait(lambda: sum(found()) >= sum(wanted), lambda: f"{wanted}, now {found()}")
        self.assertEqual(found(), wanted)
        return wanted

    def test_hand_flows_are_spread(self):
        card = self.card["hand"]
        self.assertEqual(self.table(card), [n % PAIRS for n in range(128)])
        self.assertTrue(all(self.flood_flows(range(3000, 3048))))
        # One flow, one pair.
        wanted = self.flood_flows([3001], 60)
        self.assertEqual(sorted(wanted), [0, 0, 0, 60])

    def test_hand_table(self):
        card = self.card["hand"]
        try:
            self.guest(card, f"ethtool -X {card.dev} weight 5 1 0 2")
            table = self.table(card)
            self.assertEqual([table.count(n) for n in range(PAIRS)], [80, 16, 0, 32])
            self.assertEqual(self.flood_flows(range(4000, 4048))[2], 0)
            self.guest(card, f"ethtool -X {card.dev} equal 2")
            self.assertEqual(self.flood_flows(range(5000, 5024))[2:], [0, 0])
            # A table that the user has set outlives more pairs, and forbids fewer than it speaks of.
            self.assertNotEqual(self.vm.run(f"ethtool -L {card.dev} combined 1", check=False).rc, 0)
            self.set_pairs(card, 2)
            self.set_pairs(card, PAIRS)
            self.assertEqual(self.table(card), [n % 2 for n in range(128)])
            self.flood_flows(range(5000, 5024))
        finally:
            self.guest(card, f"ethtool -X {card.dev} default")
        self.assertEqual(self.table(card), [n % PAIRS for n in range(128)])

    def test_hand_hash_types(self):
        """Without the type of UDP by ports all flows between two addresses are one."""
        card = self.card["hand"]
        out = self.guest(card, f"ethtool -n {card.dev} rx-flow-hash udp4")
        self.assertIn("L4 bytes 0 & 1", out)
        self.guest(card, f"ethtool -N {card.dev} rx-flow-hash udp4 sd")
        self.assertNotIn("L4 bytes", self.guest(card, f"ethtool -n {card.dev} rx-flow-hash udp4"))
        before = self.counters(card, "rx{}_packets")
        for port in range(6000, 6020):
            card.wire.send(udp(mac_bytes(card.mac), bytes(20), from_port=port))

        def found():
            return [now - then for now, then in zip(self.counters(card, "rx{}_packets"), before)]
        self.wait(lambda: sum(found()) >= 20, "20 frames")
        self.assertEqual(sorted(found()), [0, 0, 0, 20])
        self.guest(card, f"ethtool -N {card.dev} rx-flow-hash udp4 sdfn")
        self.flood_flows(range(6000, 6024))
        # ethtool says so, but with status 0.
        refused = self.vm.run(f"ethtool -N {card.dev} rx-flow-hash udp4 m", check=False)
        self.assertIn("Invalid argument", refused.err)
        self.assertIn("L4 bytes 0 & 1", self.guest(card, f"ethtool -n {card.dev} rx-flow-hash udp4"))

    def test_hand_while_down(self):
        """What is set while the interface is down holds when it comes up, and what was set outlives that."""
        card = self.card["hand"]
        self.run_in(f"ip link set {card.dev} down")
        self.set_pairs(card, 3)
        self.assertEqual(self.channels(card), [PAIRS, 3])
        self.assertEqual(self.table(card), [n % 3 for n in range(128)])
        self.run_in(f"ip link set {card.dev} up")
        self.assertEqual(self.flood_flows(range(7000, 7024))[3], 0)
        self.set_pairs(card, PAIRS)
        self.run_in(f"ip link set {card.dev} down && ip link set {card.dev} up")
        self.assertTrue(all(self.flood_flows(range(3000, 3048))))

    def test_hand_totals_never_go_back(self):
        card = self.card["hand"]
        before = self.link_stats(card)["rx_packets"]
        self.assertGreater(self.counters(card, "rx{}_packets")[3], 0)
        self.set_pairs(card, 1)
        self.assertGreaterEqual(self.link_stats(card)["rx_packets"], before)
        self.flood_flows(range(8000, 8010))
        self.set_pairs(card, PAIRS)

    def test_refusals(self):
        card = self.card["hand"]
        for words in ("combined 0", "combined 5", "rx 1", "other 0"):
            self.assertNotEqual(self.vm.run(f"ethtool -L {card.dev} {words}", check=False).rc, 0, words)
        self.assertEqual(self.channels(card), [PAIRS, PAIRS])

    def make_by_hand(self):
        card = self.card["hand"]
        self.set_pairs(card, PAIRS)
        self.guest(card, f"ethtool -X {card.dev} hkey {KEY_TEXT}")
        self.assertIn(KEY_TEXT, self.guest(card, f"ethtool -x {card.dev}"))


def by_hand(folder):
    return Card("hand", 1, ByHand(folder, "hand", native=True), f"queues={PAIRS},cores=2")


HAND_ADDRESSES = ("ip address replace 10.88.0.2/24 dev hand && ip link set hand up && "
                  "ip neighbour replace 10.88.0.1 lladdr 02:73:76:69:6f:10 nud permanent dev hand")


class TestQueues(ByHandTests, PairCase):
    """Four pairs on two vCPUs and two cores, between two cards on a native port and on a netdev."""
    NAME, SMP = "queues", 2
    PAIRS = {"native": (3, "qa", "qb"), "netdev": (4, "ra", "rb")}

    @classmethod
    def cards(cls):
        yield by_hand(cls.folder)
        for index, (name, native) in enumerate((("q", True), ("r", False))):
            for side, wire in zip("ab", cross(cls.folder, name, native)):
                yield Card(name + side, 2 + 2 * index + (side == "b"), wire, f"queues={PAIRS},cores=2")

    @classmethod
    def prepare(cls):
        super().prepare()
        cls.run_in(HAND_ADDRESSES)

    def guest(self, card, command):
        return self.run_in(command) if card.name == "hand" else self.in_ns(card, command)

    def ethtool(self, card, prefix=""):
        if card.name == "hand":
            return VmCase.ethtool(self, card)
        return super().ethtool(card)

    def link_stats(self, card):
        return VmCase.link_stats(self, card)

    def setUp(self):
        super().setUp()
        self.make_by_hand()

    def test_0_defaults(self):
        """As many pairs as vCPUs; interrupts and senders spread over them."""
        card = self.card["qa"]
        self.assertEqual(self.channels(card), [PAIRS, 2])
        self.assertEqual(self.table(card), [n % 2 for n in range(128)])
        out = self.guest(card, f"ethtool -x {card.dev}; ethtool -k {card.dev}")
        self.assertNotIn(KEY_TEXT, out)
        self.assertIn("receive-hashing: on", out)
        self.set_pairs(card, PAIRS)
        interrupts = self.run_in("cat /proc/interrupts")
        hints = []
        for n in range(PAIRS):
            number = re.search(rf"^\s*(\d+):.* qa-{n}$", interrupts, re.M).group(1)
            hints.append(int(self.run_in(f"cat /proc/irq/{number}/affinity_hint").replace(",", ""), 16))
        self.assertEqual(hints, [1, 2, 1, 2])
        senders = self.guest(card, f"cat /sys/class/net/{card.dev}/queues/tx-*/xps_cpus").split()
        self.assertEqual([int(mask.replace(",", ""), 16) for mask in senders], [1, 2, 1, 2])

    def test_1_netdev_genl(self):
        """The kernel knows each queue's NAPI, its interrupt, and its counters."""
        card = self.card["hand"]
        ifindex = self.sysfs_of_hand("ifindex")
        genl = NetdevGenl(self.vm, self.wait)
        self.flood_flows(range(3000, 3048))
        napi = {row["id"]: row["irq"] for row in genl.napi(ifindex)}
        self.assertEqual(len(napi), PAIRS)
        queues = {(row["type"], row["id"]): row["napi"] for row in genl.queues(ifindex)}
        self.assertEqual(sorted(queues), [(kind, n) for kind in (0, 1) for n in range(PAIRS)])
        interrupts = self.run_in("cat /proc/interrupts")
        for n in range(PAIRS):
            self.assertEqual(queues[0, n], queues[1, n])
            self.assertRegex(interrupts, rf"(?m)^\s*{napi[queues[0, n]]}:.* {card.dev}-{n}$")
        stats = {(row["type"], row["id"]): row for row in genl.queue_stats(ifindex)}
        self.assertEqual([stats[0, n]["rx_packets"] for n in range(PAIRS)],
                         self.counters(card, "rx{}_packets"))
        self.assertEqual([stats[1, n]["tx_bytes"] for n in range(PAIRS)], self.counters(card, "tx{}_bytes"))
        self.set_pairs(card, 2)
        self.assertEqual(len(genl.napi(ifindex)), 2)
        self.assertEqual(sorted((row["type"], row["id"]) for row in genl.queues(ifindex)),
                         [(0, 0), (0, 1), (1, 0), (1, 1)])

    def sysfs_of_hand(self, name):
        return int(self.run_in(f"cat /sys/class/net/hand/{name}"))

    # ---- TCP over many flows ----

    def many_streams(self, name, streams, mib, disturb=None):
        """Files over `streams` connections each way, from ports that the test has chosen; sums compared."""
        wanted = [self.make_file(f"/tmp/{ns}.in", mib) for ns in "AB"]
        running = []
        for (ns, _, own, other), (to_ns, _, _, _) in zip(self.ends(name), reversed(self.ends(name))):
            running.append(self.start_process(
                f"cd /tmp; for n in {streams}; do ip netns exec {to_ns} socat -u "
                f"TCP4-LISTEN:$((n + 1000)),reuseaddr CREATE:{ns}.out.$n & done; wait"))
            running.append(self.start_process(
                f"cd /tmp; for n in {streams}; do ip netns exec {ns} socat -u FILE:{ns}.in "
                f"TCP4:{other}:$((n + 1000)),bind={own}:$n,reuseaddr,retry=600,interval=0.1 & done; wait"))
        if disturb:
            disturb(running)
        for process in running:
            result = process.wait(300)
            self.assertEqual((result.rc, result.err), (0, ""))
        for number, ns in enumerate("AB"):
            sums = {line.split()[0] for line in self.run_in(f"sha256sum /tmp/{ns}.out.*").splitlines()}
            self.assertEqual(sums, {wanted[number]})
            self.assertEqual(int(self.run_in(f"ls /tmp/{ns}.out.* | wc -l")), len(streams.split()))
        self.run_in("rm -f /tmp/*.in /tmp/*.out.*")

    def streams_for(self, name, first):
        """Source ports such that each pair of both cards has two of the flows: the same on both sides, as
        the acknowledgements of one side's flows count for the other."""
        chosen, count = [], {}
        _, _, own, other = self.ends(name)[0]
        for port in range(first, first + 900):
            forth = flow_hash(own, other, port, port + 1000) % 128 % PAIRS
            back = flow_hash(other, own, port, port + 1000) % 128 % PAIRS
            if count.get(("forth", forth), 0) < 2 and count.get(("back", back), 0) < 2:
                chosen.append(port)
                for key in (("forth", forth), ("back", back)):
                    count[key] = count.get(key, 0) + 1
        self.assertEqual(sorted(count.values()), [2] * 2 * PAIRS)
        return " ".join(map(str, chosen))

    def check_streams(self, name):
        cards = [self.card[dev] for dev in self.PAIRS[name][1:]]
        for card in cards:
            self.set_pairs(card, PAIRS)
            self.guest(card, f"ethtool -X {card.dev} hkey {KEY_TEXT}")
        before = [self.counters(card, "rx{}_bytes") for card in cards]
        sent = [self.counters(card, "tx{}_packets") for card in cards]
        mib = 2
        self.many_streams(name, self.streams_for(name, 20000), mib)
        for card, old in zip(cards, before):
            for n, (now, then) in enumerate(zip(self.counters(card, "rx{}_bytes"), old)):
                # Two flows of the other side each.
                self.assertGreaterEqual(now - then, 2 * mib << 20, f"{card.name} pair {n}")
        for card, old in zip(cards, sent):
            more = [now > then for now, then in zip(self.counters(card, "tx{}_packets"), old)]
            self.assertTrue(any(more[0::2]) and any(more[1::2]), f"both vCPUs send: {more}")
        cores = self.vm.stats(cards[0].name)["cores"]
        self.assertTrue(all(core["picked_up"] for core in cores.values()), cores)

    def test_streams_native(self):
        self.check_streams("native")

    def test_streams_netdev(self):
        self.check_streams("netdev")

    def check_change_under_traffic(self, name):
        """4, 1, 3 pairs and again while files go both ways: the interface stays, no byte is wrong."""
        cards = [self.card[dev] for dev in self.PAIRS[name][1:]]
        carrier = [self.guest(card, f"cat /sys/class/net/{card.dev}/carrier_changes") for card in cards]
        rounds = []

        def disturb(running):
            while not rounds or any(process.poll() is None for process in running) and len(rounds) < 3:
                for count in (PAIRS, 1, 3):
                    for card in cards:
                        self.set_pairs(card, count)
                        self.assertEqual(self.channels(card)[1], count)
                rounds.append(1)
        self.many_streams(name, "30001 30002 30003 30004 30005 30006", 2, disturb)
        self.assertEqual([self.guest(card, f"cat /sys/class/net/{card.dev}/carrier_changes")
                          for card in cards], carrier)
        self.ping(name, "-f", 200)

    def test_change_under_traffic_native(self):
        self.check_change_under_traffic("native")

    def test_change_under_traffic_netdev(self):
        self.check_change_under_traffic("netdev")

    def test_zz_healthy(self):
        self.check_queues()


@long
class TestQueuesLinux61(ByHandTests, VmCase):
    """The older kernel has other interfaces for this."""
    NAME, SMP, KERNEL = "queues-6.1", 2, "6.1"

    @classmethod
    def cards(cls):
        yield by_hand(cls.folder)

    @classmethod
    def prepare(cls):
        cls.run_in(HAND_ADDRESSES)

    def setUp(self):
        super().setUp()
        self.make_by_hand()

    def test_zz_healthy(self):
        self.check_queues()
