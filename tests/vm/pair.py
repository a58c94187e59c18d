# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux at both ends of a wire: two cards of one VM, each in a network namespace of its own."""
from case import VmCase


class PairCase(VmCase):
    """Cards in namespaces: the first of each pair in "A", the second in "B"."""

    PAIRS = {}                  # name: (index, first card, second card)

    @classmethod
    def prepare(cls):
        cls.run_in("sysctl -q net.core.rmem_max=134217728; ip netns add A; ip netns add B; "
                   "for ns in A B; do ip -n $ns link set lo up; "
                   "ip netns exec $ns sysctl -q "
                   # What TCP learned while an interface was down says nothing of the next test.
                   "net.ipv4.tcp_no_metrics_save=1 "
                   "net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0 "
                   # What a test does not send should not be there.
                   "net.ipv6.conf.default.router_solicitations=0; done; "
                   # One answers, or each would answer itself as well.
                   "ip netns exec B sysctl -q net.ipv4.icmp_echo_ignore_broadcasts=0")
        for _, one, other in cls.PAIRS.values():
            cls.run_in(f"ip link set {one} netns A && ip link set {other} netns B")
        for name in cls.PAIRS:
            cls.set_up(name)

    @classmethod
    def set_up(cls, name):
        """Addresses and links as most tests want them."""
        index, one, other = cls.PAIRS[name]
        for ns, dev, host in (("A", one, 1), ("B", other, 2)):
            cls.run_in(f"""set -e
                ip -n {ns} link set {dev} up mtu 1500
                ip netns exec {ns} sysctl -q net.ipv6.conf.{dev}.accept_dad=0
                ip netns exec {ns} sysctl -q net.ipv6.conf.{dev}.disable_ipv6=0
                ip -n {ns} address replace 10.{index}.0.{host}/24 dev {dev}
                ip -n {ns} -6 address replace fd00:{index}::{host}/64 dev {dev} nodad""")

    def setUp(self):
        super().setUp()
        self.addCleanup(self.restore)

    def restore(self):
        for name in self.PAIRS:
            self.set_up(name)
        # A small MTU is remembered for the path, for ten minutes.
        self.run_in("ip -n A route flush cache; ip -n B route flush cache")

    # ---- questions ----

    def ends(self, name):
        """[(namespace, own interface, own IPv4 address, the other's)]"""
        index, one, other = self.PAIRS[name]
        first, second = f"10.{index}.0.1", f"10.{index}.0.2"
        return [("A", one, first, second), ("B", other, second, first)]

    def sysfs(self, card, name):
        return int(self.in_ns(card, f"cat /sys/class/net/{card.dev}/{name}"))

    def ethtool(self, card, prefix=""):
        return super().ethtool(card, f"ip netns exec {self.namespace(card)}")

    def namespace(self, card):
        return "A" if any(one == card.name for _, one, _ in self.PAIRS.values()) else "B"

    def in_ns(self, card, command):
        return self.run_in(f"ip netns exec {self.namespace(card)} sh -c '{command}'")

    def ping(self, name, words="", count=3, target=None):
        """From A to B, exactly as many answers as requests. Of jumbo frames no flood: ping's own socket
        holds nine of them."""
        ns, _, _, other = self.ends(name)[0]
        self.ping_exactly(count, f"{words} {target or other}", f"ip netns exec {ns}")

    def tcp_start(self, ns, to_ns, target, port, source, result, family=4):
        """A file from one namespace to the other: (sender, receiver), which wait() ends."""
        listen = f"TCP{family}-LISTEN:{port},reuseaddr"
        receiver = self.start_process(f"exec ip netns exec {to_ns} socat -u {listen} CREATE:{result}")
        self.wait(lambda: f":{port} " in self.run_in(f"ip netns exec {to_ns} ss -Hltn"),
                  "the receiver listens")
        sender = self.start_process(f"exec ip netns exec {ns} socat -u FILE:{source} "
                                    f"TCP{family}:{target}:{port}")
        return sender, receiver

    def tcp_end(self, processes):
        for process in processes:
            result = process.wait(300)
            self.assertEqual((result.rc, result.err), (0, ""))

    def tcp_both_ways(self, targets, mib, family=4, disturb=None):
        """Two files at once, one each way; sums compared. targets: the address of B, then that of A."""
        wanted = [self.make_file(f"/tmp/{ns}.in", mib) for ns in "AB"]
        processes = []
        for number, (ns, to_ns) in enumerate(("AB", "BA")):
            processes += self.tcp_start(ns, to_ns, targets[number], 5001 + number, f"/tmp/{ns}.in",
                                        f"/tmp/{ns}.out", family)
        if disturb:
            disturb(processes)
        self.tcp_end(processes)
        self.assertEqual([self.guest_sum(f"/tmp/{ns}.out") for ns in "AB"], wanted)
        self.run_in("rm -f /tmp/*.in /tmp/*.out")
