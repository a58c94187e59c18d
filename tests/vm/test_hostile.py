# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that attacks a card from its own kernel, while another card of the same VM carries a transfer.

svio_hostile.ko (tests/vm/hostile) takes the place of svio.ko on one card and writes nonsense into all that a
guest can write, from several threads. Afterwards svio.ko must find a card that works.
"""
import random

from case import Card
from pair import PairCase
from svio_tool.paths import hostile_module
from svio_tool.worker import long
from wires import cross

# The attack lasts for so many operations of all threads, and until the other card has moved so many bytes.
THREADS, OPERATIONS, MOVED = 4, 100_000, 1 << 20
# What random entries run into soon, of the counters by reason.
REASONS = ("error_dma", "error_torn", "error_chain", "error_length", "error_flags")


class TestHostile(PairCase):
    NAME, SMP = "hostile", 2
    PAIRS = {"netdev": (1, "na", "nb"), "native": (2, "pa", "pb"), "steady": (3, "sa", "sb")}

    @classmethod
    def cards(cls):
        cards = []
        for name, (index, one, other) in cls.PAIRS.items():
            ends = cross(cls.folder, name, native=name == "native")
            cards += [Card(one, 2 * index - 1, ends[0]), Card(other, 2 * index, ends[1])]
        return cards

    @classmethod
    def prepare(cls):
        super().prepare()
        cls.vm.put("/tmp/svio_hostile.ko", hostile_module(cls.vm.kernel).read_bytes())

    def restore(self):
        self.run_in("ip -n A route flush cache; ip -n B route flush cache")

    def place(self, card):
        return f"0000:00:{0x10 + card.index:02x}.0"

    def begin_attack(self, card, words):
        place = self.place(card)
        self.run_in(f"""set -e
            echo {place} >/sys/bus/pci/drivers/svio/unbind
            echo svio-hostile >/sys/bus/pci/devices/{place}/driver_override
            insmod /tmp/svio_hostile.ko threads={THREADS} ops={100 * OPERATIONS} \
                ram_end={self.vm.memory << 20} {words}
            [ "$(basename "$(readlink /sys/bus/pci/devices/{place}/driver)")" = svio-hostile ]""")

    def operations(self, card):
        """Operations and interrupts of the attack."""
        text = self.run_in(f"cat /sys/bus/pci/devices/{self.place(card)}/done")
        return [int(word) for word in text.split()]

    def end_attack(self, card):
        """Back to svio.ko."""
        place = self.place(card)
        self.run_in(f"""set -e
            rmmod svio_hostile
            echo >/sys/bus/pci/devices/{place}/driver_override
            echo {place} >/sys/bus/pci/drivers/svio/bind""")
        self.name_interfaces(card)
        self.run_in(f"ip link set {card.dev} netns A")

    def flood(self, name, card):
        """Frames for the attacked card to deliver: datagrams of any length, also in fragments."""
        index, _, other = self.PAIRS[name]
        self.run_in(f"ip -n B neighbour replace 10.{index}.0.1 lladdr {card.mac} nud permanent dev {other}")
        target = f"UDP4:10.{index}.0.1:9"
        return self.start_process("while :; do head -c 200000 /dev/urandom | "
                                  f"ip netns exec B socat -u -b 3000 STDIN {target}; done 2>/dev/null")

    def begin_transfer(self):
        """Random bytes between the other two cards, until end_transfer() compares the sums."""
        target = self.ends("steady")[0][3]
        self.run_in("rm -f /tmp/sent /tmp/sum; mkfifo /tmp/sum; touch /tmp/steady")
        receiver = self.start_process("ip netns exec B socat -u TCP4-LISTEN:5009,reuseaddr STDOUT | "
                                      "sha256sum")
        self.wait(lambda: ":5009 " in self.run_in("ip netns exec B ss -Hltn"), "the receiver listens")
        sender = self.start_process(
            "sha256sum </tmp/sum & "
            "while [ -e /tmp/steady ]; do head -c 200000 /dev/urandom; done | tee /tmp/sum | "
            f"ip netns exec A socat -u STDIN TCP4:{target}:5009; wait")
        return sender, receiver

    def end_transfer(self, processes):
        self.run_in("rm /tmp/steady")
        sums = [process.wait(300).out.split() for process in processes]
        self.assertEqual(len(sums[0]), 2)
        self.assertEqual(sums[0], sums[1])

    def moved(self):
        return self.vif("sb")["rx_bytes"]

    def errors_of(self, card):
        queues = self.vif(card.name)["queues"]["0"].values()
        reasons = {key for queue in queues for key in queue if key.startswith("error_")}
        return {key: sum(queue[key] for queue in queues) for key in reasons | {"errors"}}

    def attack(self, name, words):
        seed = random.randrange(1 << 31)
        print(f"attack on {name}: {words} seed={seed}")
        card = self.card[self.PAIRS[name][1]]
        before, before_errors = self.vif(card.name), self.errors_of(card)
        steady = self.errors_of(self.card["sa"])
        transfer = self.begin_transfer()
        self.begin_attack(card, f"{words} seed={seed}")
        try:
            flood = self.flood(name, card)
            start = self.moved()
            self.wait(lambda: self.operations(card)[0] >= OPERATIONS and self.moved() >= start + MOVED,
                      lambda: f"{self.operations(card)} operations, {self.moved() - start} bytes moved")
            flood.kill()
        finally:
            self.end_attack(card)
        self.end_transfer(transfer)
        after, errors = self.vif(card.name), self.errors_of(card)
        moved = {key: errors[key] - before_errors[key] for key in errors}
        self.assertEqual(moved["errors"], sum(moved.values()) - moved["errors"], moved)
        self.assertEqual(after["queue_errors"] - before["queue_errors"], moved["errors"])
        self.assertEqual([key for key in REASONS if not moved[key]], [], moved)
        self.assertGreater(after["bad_register"], before["bad_register"])
        self.assertGreater(after["commands_refused"], before["commands_refused"])
        # It was no attack on a card that stood still.
        for counter in ("tx_frames", "rx_frames", "drop_rx_not_running", "resets"):
            self.assertGreater(after[counter], before[counter], counter)
        self.assertEqual(self.errors_of(self.card["sa"]), steady)
        self.set_up(name)
        index, _, other = self.PAIRS[name]
        self.run_in(f"ip -n B neighbour del 10.{index}.0.1 dev {other}; ip -n B neighbour flush dev {other}")
        first = f"ip netns exec A ping -q -c 1 -W 2 10.{index}.0.2"
        self.wait(lambda: self.vm.run(first, check=False).rc == 0, "an answer after the attack")
        self.ping(name, "-i 0.02", 10)
        self.tcp_both_ways([end[3] for end in self.ends(name)], 2)
        self.assertEqual(self.errors_of(card), errors)

    @long
    def test_attack_netdev_overlapping(self):
        """Rings and event blocks lie over each other."""
        self.attack("netdev", "overlap=1")

    def test_attack_netdev_freed(self):
        """Senders name memory that was freed, or that reaches over the end of RAM."""
        self.attack("netdev", "overlap=0")

    @long
    def test_attack_native_freed(self):
        self.attack("native", "overlap=0")

    def test_attack_native_overlapping(self):
        self.attack("native", "overlap=1")
