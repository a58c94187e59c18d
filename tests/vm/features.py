# SPDX-License-Identifier: GPL-2.0-or-later
"""What ethtool asks and sets, XDP, and what befalls a card: a hung device, a wire that nobody reads."""
import re
import struct

import xdp
from basics import addresses
from case import Card, VmCase
from svio_tool.paths import ABI_HEADER
from wires import ByHand, PeerProgram, frame, mac_bytes

TEST_KIND = b"\x88\xb5"


class Tools:
    """What the mix-ins below need of any VM with such cards."""

    def hands(self):
        return [card for card in self.card.values() if isinstance(card.wire, ByHand)]

    def refused(self, command, sentence):
        result = self.vm.run(command, check=False)
        self.assertNotEqual(result.rc, 0, command)
        self.assertRegex(result.out + result.err, sentence)


class FeatureVm(Tools, VmCase):
    """"peer" answers, "hand" (native) and "handnet" (a netdev) are the test's."""

    @classmethod
    def cards(cls):
        return [Card("peer", 1, PeerProgram(cls.folder, "peer", native=False)),
                Card("hand", 2, ByHand(cls.folder, "hand", native=True)),
                Card("handnet", 3, ByHand(cls.folder, "handnet", native=False))]

    @classmethod
    def prepare(cls):
        cls.run_in("set -e" + addresses(cls.card["peer"].wire))

    def setUp(self):
        super().setUp()
        for card in self.hands():
            card.wire.drain()

    def ping_peer(self, words="", count=3):
        self.ping_exactly(count, f"{words} {self.card['peer'].wire.ip}")

    def dump(self, card):
        """The registers by name, as ethtool -d gives them: {"magic": (offset, value), ...}."""
        self.run_in(f"ethtool -d {card.dev} raw on >/tmp/regs")
        data = self.vm.get("/tmp/regs")
        self.assertEqual(len(data) % 32, 0)
        return {name.rstrip(b"\0").decode(): (offset, value)
                for name, offset, value in struct.iter_unpack("<24sII", data)}

    def device_path(self, card):
        return f"/sys/bus/pci/devices/0000:00:{0x10 + card.index:02x}.0"

    def master_off(self, card):
        """A device that does nothing any more, for want of the right to: the way to a hung queue."""
        self.run_in(rf"printf '\002\000' | dd of={self.device_path(card)}/config bs=1 seek=4 "
                    "conv=notrunc 2>/dev/null")

    def expect_problems(self, pattern):
        """Takes note of problems that this test has made, and of no others."""
        found = self.vm.kernel_problems()[self.old_problems:]
        self.assertEqual([line for line in found if not re.search(pattern, line)], [])
        self.old_problems += len(found)


class Ethtool:
    """Questions and settings."""

    def test_ethtool_complete(self):
        for card in self.card.values():
            out = self.run_in(f"ethtool {card.dev}")
            for line in ("Speed: Unknown!", "Duplex: Full", "Auto-negotiation: off", "Port: Other",
                         "Link detected: yes", "Current message level: "):
                self.assertIn(line, out)
        self.run_in("ip link set hand down")
        self.assertIn("Duplex: Unknown!", self.run_in("ethtool hand"))
        self.prepare()

    def test_ethtool_not_supported(self):
        for command in ("ethtool -a hand", "ethtool -A hand rx on", "ethtool --show-eee hand",
                        "ethtool -s hand speed 1000 duplex full"):
            self.refused(command, "not supported")

    def test_ethtool_timestamps(self):
        out = self.run_in("ethtool -T hand")
        for word in ("software-transmit", "software-receive", "software-system-clock"):
            self.assertIn(word, out)

    def test_ethtool_statistics_are_no_duplicates(self):
        """What ip -s link shows is not shown again; queues and reasons are."""
        names = set(self.ethtool(self.card["hand"]))
        standard = set(self.link_stats(self.card["hand"]))
        self.assertEqual(names & standard, set())
        text = ABI_HEADER.read_text().replace("\\\n", " ")
        drops = re.findall(r"X\(DROP_\w+, (\w+)\)", text)
        self.assertGreater(len(drops), 14)
        self.assertLessEqual({f"dev_{name}" for name in drops}, names)
        self.assertLessEqual({"tx0_packets", "rx0_packets", "dev_tx0_posted", "dev_rx0_full"}, names)

    def test_ethtool_registers(self):
        card = self.card["hand"]
        found = self.dump(card)
        self.assertEqual(found["magic"], (0, 0x4f495653))
        self.assertEqual(found["tx0_size"], (0x4010, 256))
        self.assertEqual(found["rx0_size"], (0x4090, 256))
        self.assertEqual(found["rx0_state"][1], 1)
        self.assertEqual(found["vif_kind"][1], 1)
        mac = mac_bytes(card.mac)
        self.assertEqual(struct.pack("<II", found["mac_lo"][1], found["mac_hi"][1])[:6], mac)
        # Reading has no side effect.
        self.assertEqual(self.vif("hand")["bad_register"], 0)
        # All of the contract's registers of a function and its queues that can be read without one.
        text = ABI_HEADER.read_text()
        wanted = {name.lower() for name in re.findall(r"#define SVIO_REG_(\w+) 0x00[0-9a-f]{2} /\* R", text)}
        queue = {name.lower() for name in re.findall(r"#define SVIO_QUEUE_(\w+) 0x[0-9a-f]{2} /\* R", text)}
        wanted -= {"mailbox", "signals"}        # the latter is a hole but with shared signals
        self.assertEqual(len(queue), 10)
        self.assertGreater(len(wanted), 20)
        self.assertLessEqual(wanted | {f"{way}0_{name}" for way in ("rx", "tx") for name in queue},
                             set(found))

    def test_ethtool_message_level(self):
        """The link's messages come or not, as the level says."""
        def toggle():
            for up in (False, True):
                self.vm.qmp("set_link", name="peer", up=up)
                self.wait(lambda up=up: self.sysfs(self.card["peer"], "carrier") == up, "carrier")

        def messages():
            return self.run_in("dmesg | grep -c 'svio.*link is' || true").strip()
        before = messages()
        self.run_in("ethtool -s peer msglvl link off")
        self.assertNotIn("link", self.run_in("ethtool peer | grep -A1 'Current message level'"))
        toggle()
        self.assertEqual(messages(), before)
        self.run_in("ethtool -s peer msglvl link on")
        toggle()
        self.assertEqual(int(messages()), int(before) + 2)


class Coalesce:
    def coalesce(self, card):
        out = self.run_in(f"ethtool -c {card.dev}")
        found = dict(re.findall(r"^([\w-]+):\s+(\S+)", out, re.M))
        return re.search(r"Adaptive RX: (\w+)", out)[1], [
            int(found[key]) for key in ("rx-usecs", "rx-frames", "tx-usecs", "tx-frames")]

    def test_coalesce_settings(self):
        card = self.card["hand"]
        self.assertEqual(self.coalesce(card), ("off", [0, 0, 250, 64]))
        self.run_in("ethtool -C hand rx-usecs 200 rx-frames 16 tx-usecs 1000 tx-frames 8")
        self.assertEqual(self.coalesce(card), ("off", [200, 16, 1000, 8]))

        def in_force():
            found = self.dump(card)
            return found["rx0_moderation"][1], found["tx0_moderation"][1]
        self.assertEqual(in_force(), (16 << 16 | 200, 8 << 16 | 1000))
        # And after the queues have begun anew.
        self.run_in("ip link set hand down; ip link set hand up")
        self.assertEqual(in_force(), (16 << 16 | 200, 8 << 16 | 1000))
        for words, sentence in (("rx-frames 5 rx-usecs 0", "needs a time"), ("rx-usecs 65536", "65535"),
                                ("tx-frames 70000", "65535"), ("rx-usecs-irq 5", "unsupported")):
            self.refused(f"ethtool -C hand {words}", sentence)
            self.assertEqual(self.coalesce(card), ("off", [200, 16, 1000, 8]))
        self.run_in("ethtool -C hand rx-usecs 0 rx-frames 0 tx-usecs 250 tx-frames 64")
        self.assertEqual(in_force(), (0, 64 << 16 | 250))
        self.prepare()

    def test_coalesce_adaptive(self):
        """With adaptive-rx on the kernel's DIM moves the register under a flood; off brings the old value."""
        card = self.card["hand"]
        self.run_in("ethtool -C hand adaptive-rx on rx-usecs 33 rx-frames 0")
        self.assertEqual(self.coalesce(card)[0], "on")
        seen = set()
        data = frame(mac_bytes(card.mac), 60, kind=0x88b6)

        def moved():
            for _ in range(500):
                card.wire.try_send(data)
            seen.add(self.dump(card)["rx0_moderation"][1])
            return len(seen) > 1
        self.wait(moved, lambda: f"moderation changes, seen {seen}")
        self.run_in("ethtool -C hand adaptive-rx off")
        self.assertEqual(self.dump(card)["rx0_moderation"][1], 33)
        self.run_in("ethtool -C hand rx-usecs 0")


class Rings:
    def sizes(self):
        out = self.run_in("ethtool -g peer")
        return [int(n) for n in re.findall(r"^[RT]X:\s+(\d+)", out, re.M)][2:]

    def test_rings_under_traffic(self):
        """The queues change their sizes while a flood goes through them, and all of it goes on."""
        flood = self.start_process(f"ping -q -f {self.card['peer'].wire.ip}")
        for rx, tx in ((16, 1024), (1024, 16), (512, 64), (256, 256)):
            before = self.vif("peer")["rx_frames"]
            self.run_in(f"ethtool -G peer rx {rx} tx {tx}")
            self.assertEqual(self.sizes(), [rx, tx])
            self.wait(lambda: self.vif("peer")["rx_frames"] > before + 50, "frames go both ways")
        flood.kill()
        self.ping_peer("-f", 100)

    def test_rings_failure(self):
        """Queues that do not start with new sizes: those of before are in force, and work again."""
        card = self.card["peer"]
        resets = self.ethtool(card)["resets"]
        self.master_off(card)
        self.refused("ethtool -G peer rx 64 tx 64", "do not start with these sizes")
        self.assertEqual(self.sizes(), [256, 256])
        # The old ones cannot start either before the device may use memory again: a reset sees to that.
        self.wait(lambda: self.ethtool(card)["resets"] > resets, "the driver resets the VIF")
        self.wait_ping(card.wire.ip)
        self.ping_peer("-f", 100)
        self.assertEqual(self.dump(card)["tx0_size"][1], 256)


class SelfTest:
    def self_test(self, card, mode, good=True):
        result = self.vm.run(f"ethtool -t {card.dev} {mode}", check=False)
        self.assertIn(f"The test result is {'PASS' if good else 'FAIL'}", result.out)
        values = dict(re.findall(r"^(\w+)\s.*?\s(\d+)$", result.out, re.M))
        self.assertEqual(set(values), {"registers", "interrupts", "loopback", "link"})
        return {name: int(value) for name, value in values.items()}

    def test_self_test(self):
        for card in self.card.values():
            for mode in ("online", "offline"):
                before, driver = self.vif(card.name), self.ethtool(card)
                self.assertEqual(set(self.self_test(card, mode).values()), {0})
                after, now = self.vif(card.name), self.ethtool(card)
                self.assertEqual(after["looped"] - before["looped"], 3)
                self.assertEqual(after["commands_refused"], before["commands_refused"])
                self.assertEqual(after["bad_register"], before["bad_register"])
                self.assertGreater(now["event_irqs"], driver["event_irqs"])
                self.assertGreater(now["pair0_irqs"], driver["pair0_irqs"])
        for card in self.hands():
            while (data := card.wire.receive(0)) is not None:
                self.assertNotEqual(data[12:14], TEST_KIND, "a frame of the self test on the wire")
        self.ping_peer("-f", 100)

    def test_self_test_finds_what_is_wrong(self):
        card = self.card["peer"]
        self.vm.qmp("set_link", name="peer", up=False)
        values = self.self_test(card, "online", good=False)
        self.assertEqual([name for name, value in values.items() if value], ["link"])
        self.vm.qmp("set_link", name="peer", up=True)
        self.wait(lambda: self.sysfs(card, "carrier") == 1, "carrier is back")
        self.run_in("ip link set peer down")
        values = self.self_test(card, "offline", good=False)
        self.assertEqual([name for name, value in values.items() if value], ["interrupts", "loopback"])
        self.run_in("ip link set peer up")
        self.prepare()
        self.master_off(card)
        values = self.self_test(card, "online", good=False)
        self.assertEqual([name for name, value in values.items() if value], ["interrupts", "loopback"])
        self.run_in(f"echo 1 >{self.device_path(card)}/reset")
        self.assertEqual(set(self.self_test(card, "offline").values()), {0})
        self.wait_ping(card.wire.ip)

    def test_self_test_under_traffic(self):
        flood = self.start_process(f"ping -q -f {self.card['peer'].wire.ip}")
        for mode in ("online", "offline") * 3:
            self.assertEqual(set(self.self_test(self.card["peer"], mode).values()), {0})
        flood.kill()
        self.ping_peer("-f", 100)


class Xdp(Tools):
    """Native XDP: what the program says of each frame comes true, by the bytes on the wires and counters."""

    def attach(self, card, other=None):
        index = self.sysfs(other, "ifindex") if other else 0
        self.vm.put("/tmp/xdp.o", xdp.elf(xdp.program(index)))
        self.run_in(f"ip link set dev {card.dev} xdpdrv obj /tmp/xdp.o sec xdp")
        self.addCleanup(self.run_in, f"ip link set dev {card.dev} xdpdrv off")

    def make(self, card, verdict, number=0, length=200):
        data = frame(mac_bytes(card.mac), length, number)
        return data[:14] + bytes([verdict]) + data[15:]

    def count(self, card, verdict, counter, **options):
        """Sends a frame and waits until the driver has counted what became of it."""
        before = self.ethtool(card)[counter]
        data = self.make(card, verdict, **options)
        card.wire.send(data)
        self.wait(lambda: self.ethtool(card)[counter] == before + 1, f"{counter} goes up")
        return data

    def next_frame(self, card):
        return card.wire.wait_for(lambda data: data[12:14] == TEST_KIND or data[:16] == xdp.GROWN_HEAD,
                                  f"a frame on the wire of {card.name}")

    def test_xdp_verdicts(self):
        for card in self.hands():
            self.attach(card)
            self.assertRegex(self.run_in(f"ip link show {card.dev}"), r"\bprog/xdp\b")
            before = self.vif(card.name)["tx_frames"]
            for verdict, counter in ((xdp.DROP, "rx0_xdp_drop"), (xdp.ABORTED, "rx0_xdp_errors"),
                                     (xdp.UNKNOWN, "rx0_xdp_errors"), (xdp.PASS, "rx0_xdp_pass")):
                self.count(card, verdict, counter)
            self.assertEqual(self.vif(card.name)["tx_frames"], before)
            for length in (60, 200, 1514):
                data = self.count(card, xdp.TX, "rx0_xdp_tx", length=length)
                self.assertEqual(self.next_frame(card).hex(), data.hex())
            data = self.count(card, xdp.GROW, "rx0_xdp_tx")
            found = self.next_frame(card)
            self.assertEqual(len(found), len(data) + xdp.GROWN_BY)
            self.assertEqual(found[xdp.GROWN_BY:].hex(), data.hex())

    def test_xdp_redirect(self):
        """From a wire through the guest to the other wire, both ways."""
        hands = self.hands()
        for card, other in (hands, hands[::-1]):
            self.attach(card, other)
            sent = self.ethtool(other)["tx0_xdp_sent"]
            for number in range(200):
                data = self.make(card, xdp.REDIRECT, number, 60 + 7 * number)
                card.wire.send(data)
                self.assertEqual(self.next_frame(other).hex(), data.hex())
            self.assertEqual(self.ethtool(other)["tx0_xdp_sent"], sent + 200)

    def test_xdp_many(self):
        """More frames than the queues have entries go back; each of them is counted."""
        for card in self.hands():
            self.attach(card)
            before = self.ethtool(card)
            for number in range(1000):
                card.wire.send(self.make(card, (xdp.TX, xdp.DROP)[number % 2], number))

            def counted():
                now = self.ethtool(card)
                return [now[key] - before[key] for key in
                        ("rx0_xdp_tx", "rx0_xdp_errors", "rx0_xdp_drop", "tx0_xdp_full")]
            self.wait(lambda: sum(counted()[:3]) == 1000, counted)
            sent, errors, dropped, full = counted()
            self.assertEqual((sent + errors, dropped, full), (500, 500, errors))
            for _ in range(sent):
                self.assertEqual(self.next_frame(card)[14], xdp.TX)

    def test_xdp_traffic_of_the_stack(self):
        """ping with a program, while it comes and goes, and while the queues change."""
        card = self.card["peer"]
        self.attach(card)
        for size in (0, 56, 300, 1472):
            self.ping_peer(f"-i 0.01 -s {size}", 3)
        self.ping_peer("-f -s 1400", 200)
        flood = self.start_process(f"ping -q -f {card.wire.ip}")
        again = "link set dev peer xdpdrv obj /tmp/xdp.o sec xdp"
        for command in ("ip link set dev peer xdpdrv off", f"ip {again}", "ethtool -G peer rx 64 tx 64",
                        f"ip -force {again}", "ip link set peer down; ip link set peer up",
                        "ethtool -G peer rx 256 tx 256"):
            self.run_in(command)
            if "down" in command:
                self.prepare()
            before = self.vif("peer")["rx_frames"]
            self.wait(lambda: self.vif("peer")["rx_frames"] > before + 30, f"frames go on after {command}")
        flood.kill()
        self.ping_peer("-f", 100)
        self.assertEqual(self.ethtool(card)["rx0_xdp_errors"], 0)

    def test_xdp_mtu(self):
        card = self.card["hand"]
        self.run_in("ip link set hand mtu 9000")
        self.vm.put("/tmp/xdp.o", xdp.elf(xdp.program()))
        self.refused("ip link set dev hand xdpdrv obj /tmp/xdp.o sec xdp", "MTU is too large for XDP")
        self.assertNotIn("xdp", self.run_in("ip link show hand"))
        limit = 3498
        self.run_in(f"ip link set hand mtu {limit}")
        self.attach(card)
        self.refused(f"ip link set hand mtu {limit + 1}", "mtu greater than device maximum")
        self.count(card, xdp.PASS, "rx0_xdp_pass", length=limit + 14)
        data = self.count(card, xdp.TX, "rx0_xdp_tx", length=limit + 14)
        self.assertEqual(self.next_frame(card).hex(), data.hex())
        # Longer ones than the interface has asked for are in pieces, which no program sees.
        self.count(card, xdp.TX, "rx0_xdp_too_long", length=5000)
        self.run_in("ip link set dev hand xdpdrv off; ip link set hand mtu 9000; ip link set hand mtu 1500")


class Faults:
    """A device that hangs, and a wire that nobody reads."""

    def flood_wires(self):
        """The guest sends on both wires of the test's, which nobody reads."""
        before = {card.name: self.vif(card.name)["drop_tx_stalled"] for card in self.hands()}
        for host in ("10.88.0.1", "10.89.0.1"):
            self.start_process(f"exec ping -q -f -s 1400 {host}")
        for card in self.hands():
            self.wait(lambda card=card: self.vif(card.name)["drop_tx_stalled"] > before[card.name],
                      f"frames of {card.name} are dropped as stalled")

    def test_faults(self):
        """A device that stops under traffic is a hung queue: the driver resets it, and all goes on. A wire
        that nobody reads is none: its frames wait for two seconds and are dropped with that reason."""
        peer = self.card["peer"]
        before = {card.name: self.ethtool(card) for card in self.card.values()}
        flood = self.start_process(f"ping -q -f {peer.wire.ip}")
        self.flood_wires()
        frames = self.vif("peer")["rx_frames"]
        self.wait(lambda: self.vif("peer")["rx_frames"] > frames + 50, "traffic")
        self.master_off(peer)
        self.wait(lambda: self.ethtool(peer)["tx_timeouts"] > before["peer"]["tx_timeouts"],
                  "a transmit timeout")
        self.wait(lambda: self.ethtool(peer)["resets"] > before["peer"]["resets"], "a reset by the driver")
        frames = self.vif("peer")["rx_frames"]
        self.wait(lambda: self.vif("peer")["rx_frames"] > frames + 50, "traffic after the reset")
        flood.kill()
        self.ping_peer("-f -s 1000", 200)
        self.assertEqual(self.vif("peer")["drop_tx_stalled"], 0)
        self.expect_problems("NETDEV WATCHDOG|WARNING.*dev_watchdog|Call Trace")
        # As long as it took the watchdog to find the one, it found nothing on the others.
        for card in self.hands():
            now, seen = self.ethtool(card), self.vif(card.name)["drop_tx_stalled"]
            for key in ("tx_timeouts", "resets"):
                self.assertEqual(now[key], before[card.name][key], f"{key} of {card.name}")
            self.wait(lambda: self.vif(card.name)["drop_tx_stalled"] > seen, "frames are still dropped")
            # It is read again: what is sent from now on arrives.
            card.wire.drain()
            sent = self.vif(card.name)["tx_frames"]
            self.wait(lambda: card.wire.drain() + 1 and self.vif(card.name)["tx_frames"] > sent + 50,
                      "frames leave again")
