# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest under traffic moves to other QEMUs, into files, and back in time."""
from moving import MovingCase
from svio_tool.worker import long


class Moves:
    # What comes in may be a frame by which the other card tells where it is.
    KEPT = ("tx_frames", "tx_bytes", "resets", "drop_rx_filter")

    def test_a_quiet(self):
        """What a card is and has counted, when nothing else happens."""
        def facts():
            found = {}
            for card in self.card.values():
                vif = self.vif(card.name)
                found[card.name] = ({key: vif[key] for key in self.KEPT},
                                    self.in_ns(card, f"ethtool -P {card.dev}; ethtool -l {card.dev}"),
                                    self.sysfs(card, "carrier"))
            return found
        before = facts()
        self.assertIn(self.card["pa"].mac, before["pa"][1])
        self.move()
        self.assertEqual(facts(), before)
        self.ping("native", "-f", 50)

    def test_b_under_traffic(self):
        self.start_traffic()
        self.move()
        self.flows()
        self.move_by_file()
        self.flows()
        self.end_traffic()

    def test_c_snapshots_under_traffic(self):
        self.start_traffic()
        self.assertEqual(self.vm.hmp("savevm now"), "")
        for _ in range(2):
            self.flows()
            self.go_back("now")
        self.flows()
        self.end_traffic(returns=2)

    def test_zz_healthy(self):
        self.check_health()


class TestMigration(Moves, MovingCase):
    NAME = "migration"


@long
class TestMigrations(MovingCase):
    """One guest, whose traffic never ends."""
    NAME = "migrations"
    MOVES = 100
    svio_patience = 3600

    def test_again_and_again(self):
        self.start_traffic()
        for number in range(self.MOVES):
            self.move_by_file() if number % 10 == 9 else self.move()
            self.flows()
        self.end_traffic()
        self.check_health()


@long
class TestMigration61(Moves, MovingCase):
    NAME, KERNEL, MACHINE, SMP, QUEUES = "migration-6.1", "6.1", "pc", 1, 1
