# SPDX-License-Identifier: GPL-2.0-or-later
"""Every option of the card: files both ways between cards that are set differently."""
import re

from case import Card
from pair import PairCase
from wires import cross

OPTIONS = (("cores=2", "cores=1,queue-size=16"),
           ("cores=2,queue-size=16", "queue-size=4096,poll-us=1000"),
           ("poll-us=0", "queue-size=4096,poll-us=0,cores=2"))


class OptionsCase(PairCase):
    NATIVE = False
    # The test of class PairCase's users would otherwise run here once more.
    PAIRS = {f"p{n}": (n + 10, f"a{n}", f"b{n}") for n in range(len(OPTIONS))}

    @classmethod
    def cards(cls):
        for n, options in enumerate(OPTIONS):
            wires = cross(cls.folder, f"w{n}", native=cls.NATIVE)
            for side, (letter, wire, option) in enumerate(zip("ab", wires, options)):
                yield Card(f"{letter}{n}", 1 + 2 * n + side, wire, option)


class Options:
    def transfer(self, name):
        self.ping(name, "-f -s 700", 300)
        self.tcp_both_ways([end[3] for end in self.ends(name)], 6)
        for ns, dev, _, _ in self.ends(name):
            self.run_in(f"ip -n {ns} link set {dev} mtu 9000")
        self.ping(name, "-A -s 8972 -M do", 100)
        self.tcp_both_ways([end[3] for end in self.ends(name)], 6)

    def test_cores(self):
        self.transfer("p0")

    def test_queue_sizes(self):
        self.transfer("p1")

    def test_polling(self):
        self.transfer("p2")

    def test_options_are_in_force(self):
        for n, pair in enumerate(OPTIONS):
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
        def still(name):
            before = self.core_sum(name, "polls")
            self.run_in("sleep 0.5")
            return self.core_sum(name, "polls") == before
        for name in self.card:
            self.wait(lambda name=name: still(name), f"the cores of {name} sleep")

    def test_zz_healthy(self):
        self.check_health()


class TestOptionsOnNetdev(Options, OptionsCase):
    NAME, SMP = "options-netdev", 1


class TestOptionsOnNativePorts(Options, OptionsCase):
    NAME, SMP, NATIVE = "options-native", 2, True
