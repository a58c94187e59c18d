# SPDX-License-Identifier: GPL-2.0-or-later
"""Traffic between two cards, over a netdev (QEMU's dgram) and between native ports alike."""
from case import Card
from pair import PairCase
from wires import cross

MIB_NETDEV, MIB_NATIVE = 8, 12
VLAN = 5


def on_each_wire(cls):
    """A test_... for each check_... and each pair of cards."""
    for check in [name for name in vars(cls) if name.startswith("check_")]:
        for wire in cls.PAIRS:
            def test(self, check=check, wire=wire):
                getattr(self, check)(wire)
            test.__doc__ = getattr(cls, check).__doc__
            setattr(cls, f"test_{check[6:]}_{wire}", test)
    return cls


@on_each_wire
class TestPair(PairCase):
    NAME, SMP = "pair", 2
    PAIRS = {"netdev": (1, "na", "nb"), "native": (2, "pa", "pb")}
    MIB = {"netdev": MIB_NETDEV, "native": MIB_NATIVE}

    @classmethod
    def cards(cls):
        one, other = cross(cls.folder, "net", native=False)
        first, second = cross(cls.folder, "port", native=True)
        return [Card("na", 1, one), Card("nb", 2, other), Card("pa", 3, first), Card("pb", 4, second)]

    def check_arp_and_ping(self, name):
        """Floods from both ends at once, with exact numbers; ARP by broadcast before that."""
        self.run_in("ip -n A neighbour flush all; ip -n B neighbour flush all")
        before = [self.vif(card)["rx_broadcast"] for card in self.PAIRS[name][1:]]
        ns, _, _, target = self.ends(name)[1]
        wanted = self.echo_answers(f"ip netns exec {ns}") + 1000
        process = self.start_process(f"exec ip netns exec {ns} ping -qf -W 60 -c 1000 -s 1472 {target}")
        self.ping(name, "-f", 1000)
        self.assertIn("1000 packets transmitted, ", process.wait(200).out)
        self.wait(lambda: self.echo_answers(f"ip netns exec {ns}") == wanted, f"{wanted} answers")
        # Who is asked learns the asker's address as well.
        self.assertNotEqual([self.vif(card)["rx_broadcast"] for card in self.PAIRS[name][1:]], before)

    def check_broadcast_ping(self, name):
        index, one, other = self.PAIRS[name]
        before = self.vif(other)["rx_broadcast"]
        self.ping(name, f"-b -I {one} -i 0.05", 5, target=f"10.{index}.0.255")
        self.assertGreaterEqual(self.vif(other)["rx_broadcast"], before + 5)

    def check_tcp_both_ways(self, name):
        self.tcp_both_ways([end[3] for end in self.ends(name)], self.MIB[name])

    def check_frames_held_by_gro(self, name):
        """GRO may keep frames from poll to poll, and the driver then passes it with none."""
        def hold(flush_ns, polls):
            for ns, dev, _, _ in self.ends(name):
                self.run_in(f"ip netns exec {ns} sh -c 'cd /sys/class/net/{dev} && "
                            f"echo {flush_ns} >gro_flush_timeout && echo {polls} >napi_defer_hard_irqs'")
        hold(200_000, 2)
        self.ping(name, "-f -s 56", 500)
        self.ping(name, "-i 0.02 -s 1400")
        self.tcp_both_ways([end[3] for end in self.ends(name)], 3)
        hold(0, 0)
        self.ping(name, "-f -s 56", 500)

    def check_tcp_over_ipv6(self, name):
        index, one, other = self.PAIRS[name]
        self.ping(name, "-6 -i 0.02 -s 0", target=f"fd00:{index}::2")
        self.ping(name, "-6 -i 0.02 -s 1452 -M do", target=f"fd00:{index}::2")
        self.ping(name, "-6 -f -s 200", 500, target=f"fd00:{index}::2")
        self.tcp_both_ways([f"[fd00:{index}::2]", f"[fd00:{index}::1]"], 3, family=6)
        local = [self.run_in(f"ip -n {ns} -6 -br address show dev {dev} scope link").split()[2]
                 for ns, dev, _, _ in self.ends(name)]
        self.assertTrue(all(address.startswith("fe80:") for address in local), local)
        local = [address.split("/")[0] for address in local]
        self.ping(name, "-6 -i 0.02", target=f"{local[1]}%{one}")
        self.tcp_both_ways([f"[{local[1]}%{one}]", f"[{local[0]}%{other}]"], 2, family=6)

    def check_large_mtu(self, name):
        """9000 bytes: the frame just fits, one byte more does not, TCP uses it."""
        for ns, dev, _, _ in self.ends(name):
            self.run_in(f"ip -n {ns} link set {dev} mtu 9000")
        for size in (1473, 3000, 4082, 4083, 8191, 8971, 8972):
            self.ping(name, f"-M do -i 0.02 -s {size}")
        ns, _, _, other = self.ends(name)[0]
        self.assertNotEqual(self.vm.run(f"ip netns exec {ns} ping -q -M do -c 1 -W 1 -s 8973 {other}",
                                        check=False).rc, 0)
        self.ping(name, "-A -s 8972", 300)
        other_card = self.card[self.PAIRS[name][2]]
        before = self.ethtool(other_card)
        self.tcp_both_ways([end[3] for end in self.ends(name)], self.MIB[name])
        after = self.ethtool(other_card)
        frames, size = (after[key] - before[key] for key in ("rx0_packets", "rx0_bytes"))
        self.assertGreater(size / frames, 1600, "TCP does not use the large MTU")
        self.assertGreater(after["rx0_chained"], before["rx0_chained"])
        self.ping(name, "-M do -s 1472")

    def check_mtu_of_one_end_alone(self, name):
        """A jumbo frame that the receiver did not expect is whole all the same, or dropped, but never cut."""
        ns, dev, _, other = self.ends(name)[0]
        self.run_in(f"ip -n {ns} link set {dev} mtu 9000")
        # Its answer comes in fragments of 1500.
        self.ping(name, "-i 0.05 -s 8972")

    def check_small_mtus(self, name):
        """Fragments, and at the smallest MTU packets that just fit."""
        for mtu, words in ((300, "-s 1400"), (68, "-M do -s 40")):
            for ns, dev, _, _ in self.ends(name):
                self.run_in(f"ip -n {ns} link set {dev} mtu {mtu}")
            self.ping(name, f"-i 0.01 {words}", 20)
            self.tcp_both_ways([end[3] for end in self.ends(name)], 0.25)

    def check_vlan(self, name):
        index, one, other = self.PAIRS[name]
        for ns, dev, own, _ in self.ends(name):
            address = own.replace(f"10.{index}.", f"10.{index + 100}.")
            self.run_in(f"ip -n {ns} link add link {dev} name {dev}.v type vlan id {VLAN} && "
                        f"ip -n {ns} address add {address}/24 dev {dev}.v && ip -n {ns} link set {dev}.v up")
        targets = [f"10.{index + 100}.0.2", f"10.{index + 100}.0.1"]
        before = self.vif(other)
        # A full frame has 1518 bytes with its tag.
        for size in (0, 1000, 1472):
            self.ping(name, f"-M do -i 0.02 -s {size}", target=targets[0])
        moved = self.vif(other)["rx_bytes"] - before["rx_bytes"]
        self.assertGreaterEqual(moved, 3 * 1518 + 3 * 1046 + 3 * 46)
        self.tcp_both_ways(targets, 4)
        for ns, dev, _, _ in self.ends(name):
            self.run_in(f"ip -n {ns} link set {dev} mtu 9000; ip -n {ns} link set {dev}.v mtu 9000")
        self.ping(name, "-M do -i 0.02 -s 8972", target=targets[0])
        self.ping(name, "-A -s 8972", 200, target=targets[0])
        for ns, dev, _, _ in self.ends(name):
            self.run_in(f"ip -n {ns} link del {dev}.v")
        self.ping(name)

    def check_multicast_join_and_leave(self, name):
        """Datagrams to a group arrive while somebody has joined it, otherwise the card filters them."""
        index, one, other = self.PAIRS[name]
        self.run_in(f"ip -n A route replace 224.0.0.0/4 dev {one}")

        def send(text, count=5):
            self.run_in(f"for n in $(seq {count}); do printf '{text}%d;' $n | "
                        "ip netns exec A socat -u - "
                        f"UDP4-DATAGRAM:239.9.8.7:6000,ip-multicast-if=10.{index}.0.1; done")
        filtered = self.vif(other)["drop_rx_filter"]
        send("alone")
        self.wait(lambda: self.vif(other)["drop_rx_filter"] >= filtered + 5, "the card filters the group")
        receiver = self.start_process("exec ip netns exec B socat -u UDP4-RECV:6000,reuseaddr,"
                                      f"ip-add-membership=239.9.8.7:10.{index}.0.2 CREATE:/tmp/group")
        self.wait(lambda: "239.9.8.7" in self.run_in("ip -n B maddress show"), "the group is joined")

        def probe():
            send("probe", 1)
            return "probe" in self.run_in("cat /tmp/group 2>/dev/null; true")
        self.wait(probe, "the filter lets the group in")
        before = self.vif(other)
        send("member", 20)
        self.wait(lambda: "member20;" in self.run_in("cat /tmp/group"), "all has arrived")
        found = self.run_in("cat /tmp/group")
        self.assertIn("".join(f"member{n};" for n in range(1, 21)), found)
        self.assertNotIn("alone", found)
        after = self.vif(other)
        # A few of the kernels' own (reports of IGMP and MLD) may be among them.
        self.assertLess(after["drop_rx_filter"] - before["drop_rx_filter"], 10)
        self.assertGreaterEqual(after["rx_multicast"], before["rx_multicast"] + 20)
        receiver.kill()
        self.wait(lambda: "239.9.8.7" not in self.run_in("ip -n B maddress show"), "the group is left")

        def filtered_again():
            before = self.vif(other)["drop_rx_filter"]
            send("left", 1)
            return self.vif(other)["drop_rx_filter"] > before
        self.wait(filtered_again, "the card filters the group again")
        self.run_in("rm -f /tmp/group")

    def check_promiscuous(self, name):
        """tcpdump sees what is for others only without -p, and ping does not care."""
        index, one, other = self.PAIRS[name]
        self.run_in(f"ip -n A neighbour replace 10.{index}.0.77 lladdr 52:54:00:00:00:77 nud permanent "
                    f"dev {one}")
        for mode, sees in (("-p", False), ("", True)):
            dump = self.start_process("exec ip netns exec B tcpdump -Z root -n -l --immediate-mode "
                                      f"{mode} -i {other} icmp >/tmp/seen 2>/tmp/seen.err")
            self.wait(lambda: "listening on" in self.run_in("cat /tmp/seen.err; true"), "tcpdump listens")

            def probe():
                # The last of each batch is for B and ends the wait.
                self.run_in(f"ip netns exec A ping -q -c 2 -i 0.01 -W 1 10.{index}.0.77; true")
                self.ping(name, "-i 0.01 -p 5a -s 99", 1)
                self.wait(lambda: "length 107" in self.run_in("cat /tmp/seen"), "tcpdump sees B's")
                return f"> 10.{index}.0.77" in self.run_in("cat /tmp/seen")
            if sees:
                self.wait(probe, "tcpdump sees what is for others")
            else:
                self.assertFalse(probe())
            dump.kill(2)
            dump.wait()
        self.ping(name)

    def check_down_and_up_under_traffic(self, name):
        """Each end 20 times down and up while files go both ways."""
        # The addresses of IPv4 stay, and TCP sends again what was lost.
        def disturb(processes):
            for number in range(20):
                ns, dev, _, _ = self.ends(name)[number % 2]
                self.run_in(f"ip -n {ns} link set {dev} down; ip -n {ns} link set {dev} up")
                self.assertEqual(self.sysfs(self.card[dev], "carrier"), 1)
        self.tcp_both_ways([end[3] for end in self.ends(name)], 16, disturb=disturb)
        self.ping(name, "-f", 200)

    def test_zz_healthy(self):
        self.check_health()
