# SPDX-License-Identifier: GPL-2.0-or-later
"""Every option of the card: files both ways between cards that are set differently."""
import re

from case import Card
from pair import PairCase
from wires import cross

# (native ports?, options of one card, of the other)
OPTIONS = ((True, "cores=2", "cores=1,queue-size=16"),
           (False, "cores=2,queue-size=16", "queue-size=4096,poll-us=1000"),
           (True, "queue-size=16,poll-us=1000", "queue-size=4096,cores=3,poll-us=0"),
           (False, "poll-us=0", "queue-size=4096,poll-us=0,cores=2,halt-poll=off"))


class TestOptions(PairCase):
    NAME, SMP = "options", 2
    PAIRS = {f"p{n}": (n + 10, f"a{n}", f"b{n}") for n in range(len(OPTIONS))}

    @classmethod
    def cards(cls):
        for n, (native, *options) in enumerate(OPTIONS):
            for side, (wire, option) in enumerate(zip(cross(cls.folder, f"w{n}", native), options)):
                yield Card(f"{'ab'[side]}{n}", 1 + 2 * n + side, wire, option)

    def transfer(self, name):
        targets = [end[3] for end in self.ends(name)]
        self.ping(name, "-f -s 700", 300)
        self.tcp_both_ways(targets, 6)
        for ns, dev, _, _ in self.ends(name):
            self.run_in(f"ip -n {ns} link set {dev} mtu 9000")
        self.ping(name, "-A -s 8972 -M do", 100)
        self.tcp_both_ways(targets, 4)

    def restore(self):
        for name in self.PAIRS:
            for ns, dev, _, _ in self.ends(name):
                self.run_in(f"ip -n {ns} link set {dev} mtu 1500")

    def test_native_cores(self):
        self.transfer("p0")

    def test_netdev_queue_sizes(self):
        self.transfer("p1")

    def test_native_polling(self):
        self.transfer("p2")

    def test_netdev_without_polling(self):
        self.transfer("p3")

    def test_options_are_in_force(self):
        for n, (_, *pair) in enumerate(OPTIONS):
            for letter, options in zip("ab", pair):
                card = self.card[f"{letter}{n}"]
                facts = dict(re.findall(r"([a-z-]+)=(\d+)", options))
                self.assertEqual(len(self.vm.stats(card.name)["cores"]), int(facts.get("cores", 1)))
                out = self.in_ns(card, f"ethtool -g {card.dev}")
                size = int(facts.get("queue-size", 256))
                self.assertEqual([int(v) for v in re.findall(r"^[RT]X:\s+(\d+)", out, re.M)],
                                 [max(size, 1024)] * 2 + [size] * 2)

    def test_yy_idle(self):
        """Also with poll-us=1000 the cores sleep in the end."""
        def polls():
            return {name: self.core_sum(name, "polls") for name in self.card}

        def still():
            before = polls()
            self.run_in("sleep 0.5")
            return polls() == before
        self.wait(still, "all cores sleep")

    def test_zz_healthy(self):
        self.check_health()
