# SPDX-License-Identifier: GPL-2.0-or-later
"""Offloads between two cards: TCP, UDP in segments, VLANs; with all on, and with each turned off live."""
from case import Card
from pair import PairCase
from wires import cross

TX = ("tx-checksumming", "tcp-segmentation-offload", "tx-udp-segmentation", "tx-vlan-offload")
RX = ("rx-checksumming", "rx-gro-hw", "rx-vlan-offload")


class TestOffload(PairCase):
    NAME, SMP = "offload", 1
    PAIRS = {"native": (3, "oa", "ob")}

    @classmethod
    def cards(cls):
        first, second = cross(cls.folder, "port", native=True)
        return [Card("oa", 1, first), Card("ob", 2, second)]

    def features(self, card):
        lines = self.in_ns(card, f"ethtool -k {card.dev}").splitlines()[1:]
        return {key.strip(): value.split()[0] for key, value in (line.split(":") for line in lines)}

    def turn(self, words):
        for name in ("oa", "ob"):
            card = self.card[name]
            self.in_ns(card, f"ethtool -K {card.dev} {words}")

    def counters(self):
        return {name: self.vif(name) for name in ("oa", "ob")}

    def transfer(self, mib=2):
        self.tcp_both_ways([end[3] for end in self.ends("native")], mib)

    def test_offered(self):
        for name in ("oa", "ob"):
            features = self.features(self.card[name])
            self.assertEqual({key: features[key] for key in TX + RX}, dict.fromkeys(TX + RX, "on"))

    def test_segments(self):
        """Each message of TCP is cut on the board: fewer messages than frames, and no byte is another."""
        card = self.card["oa"]
        before, sent = self.counters(), self.ethtool(card)
        self.transfer(8)
        after, now = self.counters(), self.ethtool(card)
        frames = after["oa"]["tx_frames"] - before["oa"]["tx_frames"]
        messages = now["tx0_packets"] - sent["tx0_packets"]
        self.assertGreater(frames, 8 * (1 << 20) // 1448)
        self.assertLess(2 * messages, frames)
        for name in ("oa", "ob"):
            self.assertEqual((after[name]["drop_tx_offload"], after[name]["drop_rx_offload"],
                              after[name]["queue_errors"]), (0, 0, 0))

    def test_turned_off_and_on(self):
        for words in ("rx off", "rx on", "tx off", "rx off", "tx on tso on gso on", "rxvlan off",
                      "txvlan off", "rx on", "rx-gro-hw on rxvlan on txvlan on"):
            self.turn(words)
            self.transfer(1)
        self.test_offered()

    def test_turned_while_traffic_runs(self):
        def disturb(_):
            for words in ("rx off", "tx off", "rx on", "rx-gro-hw on", "tx on tso on", "rxvlan off",
                          "rxvlan on"):
                self.turn(words)
        self.tcp_both_ways([end[3] for end in self.ends("native")], 8, disturb=disturb)
        self.turn("rx on tx on tso on rx-gro-hw on")

    def test_udp_segments(self):
        """One send of 20000 bytes is 20 datagrams of 1000, whoever cuts it."""
        (ns, _, _, target), (to_ns, *_rest) = self.ends("native")
        wanted = self.make_file("/tmp/udp", 20000 / (1 << 20))
        for words in ("tx-udp-segmentation on", "tx-udp-segmentation off", "tx-udp-segmentation on"):
            self.turn(words)
            receiver = self.start_process(f"exec ip netns exec {to_ns} socat -u -T 20 "
                                          "UDP4-RECV:7000,rcvbuf=1000000 CREATE:/tmp/udp.out")
            self.wait(lambda: ":7000 " in self.run_in(f"ip netns exec {to_ns} ss -Hlun"),
                      "the receiver listens")
            before = self.counters()["oa"]["tx_frames"], self.ethtool(self.card["oa"])["tx0_packets"]
            self.run_in(f"ip netns exec {ns} socat -u -b 20000 FILE:/tmp/udp "
                        f"UDP4-SENDTO:{target}:7000,setsockopt-int=17:103:1000")
            self.wait(lambda: self.run_in("stat -c %s /tmp/udp.out").strip() == "20000", "all of it")
            self.assertEqual(self.guest_sum("/tmp/udp.out"), wanted)
            after = self.counters()["oa"]["tx_frames"], self.ethtool(self.card["oa"])["tx0_packets"]
            self.assertGreaterEqual(after[0] - before[0], 20)
            if words.endswith("on"):
                self.assertLess(after[1] - before[1], 20)
            receiver.kill()
            self.run_in("rm -f /tmp/udp.out")

    def test_vlan(self):
        for ns, dev, own, _ in self.ends("native"):
            self.run_in(f"ip -n {ns} link add link {dev} name {dev}.7 type vlan id 7 && "
                        f"ip -n {ns} address add {own.replace('10.3.', '10.107.')}/24 dev {dev}.7 && "
                        f"ip -n {ns} link set {dev}.7 up")
        targets = [end[3].replace("10.3.", "10.107.") for end in self.ends("native")]
        for words in ("rxvlan on txvlan on", "rxvlan off", "txvlan off", "rxvlan on txvlan on"):
            self.turn(words)
            self.ping("native", "-M do -i 0.02 -s 1472", target=targets[0])
            self.tcp_both_ways(targets, 1)
        for ns, dev, _, _ in self.ends("native"):
            self.run_in(f"ip -n {ns} link del {dev}.7")

    def test_zz_healthy(self):
        self.check_health()
