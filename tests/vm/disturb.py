# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what happens to a card meanwhile: filters, link, stop, reset, changes under traffic, overrun."""
import re
import time

from capture import Capture
from case import sha256
from svio_tool import transfer
from svio_tool.paths import GUEST_SLOWNESS
from wires import DEADLINE, HOST_MAC, PAUSE, Flood, frame, mac_bytes, udp, udp_payload

MIB = 1 << 20
TYPE = "ether proto 0x88b5"
BROADCAST = b"\xff" * 6
STRANGER = bytes.fromhex("52540099aabb")
GROUP = bytes.fromhex("01005e010203")
OTHER_GROUP = bytes.fromhex("01005e010204")


class Frames:
    """Questions about which frames come in."""

    def settle(self, card, address, wanted):
        """Until frames to this address are (not) let in: the driver sets filters a moment later."""
        def done():
            before = self.vif(card.name)
            card.wire.send(frame(address, kind=0x88b6))
            self.wait(lambda: self.vif(card.name)["rx_frames"] + self.vif(card.name)["drop_rx_filter"]
                      > before["rx_frames"] + before["drop_rx_filter"], "the probe is counted")
            return (self.vif(card.name)["rx_frames"] > before["rx_frames"]) == wanted
        self.wait(done, f"the filter {'lets' if wanted else 'does not let'} frames to {address.hex(':')} in")

    def check(self, card, good, bad, promiscuous=False, kinds=None):
        """Of frames to these addresses exactly the good ones arrive, whole and in order."""
        with Capture(self.vm, card.dev, TYPE, promiscuous) as capture:
            if promiscuous:
                self.settle(card, STRANGER, True)
            frames = []
            before = self.vif(card.name)
            for number, address in enumerate((good + bad) * 3):
                data = frame(address, 60 + 7 * number, number)
                card.wire.send(data)
                if address in good:
                    frames.append(data)
            self.assertEqual([data.hex() for data in capture.wait_frames(len(frames))],
                             [data.hex() for data in frames])
            total = len(good + bad) * 3

            def counted():
                after = self.vif(card.name)
                return {key: after[key] - before[key] for key in
                        ("rx_frames", "drop_rx_filter", "rx_broadcast", "rx_multicast")}
            self.wait(lambda: sum(list(counted().values())[:2]) == total, counted)
            groups = [a for a in good if a[0] & 1 and a != BROADCAST]
            self.assertEqual(counted(), {"rx_frames": len(frames), "drop_rx_filter": 3 * len(bad),
                                         "rx_broadcast": 3 * good.count(BROADCAST),
                                         "rx_multicast": 3 * len(groups)})
            self.assertEqual(len(capture.frames()), len(frames))


class Filters(Frames):
    """Which frames a card lets in, by the bytes that arrive and by its counters."""

    def test_filter_unicast_and_broadcast(self):
        for card, _, _ in self.by_hand():
            self.check(card, [mac_bytes(card.mac), BROADCAST], [STRANGER, OTHER_GROUP])

    def test_filter_multicast(self):
        for card, _, _ in self.by_hand():
            self.run_in(f"ip maddress add {GROUP.hex(':')} dev {card.dev}")
            self.settle(card, GROUP, True)
            self.check(card, [GROUP, mac_bytes(card.mac)], [OTHER_GROUP])
            self.run_in(f"ip maddress del {GROUP.hex(':')} dev {card.dev}")
            self.settle(card, GROUP, False)
            self.check(card, [mac_bytes(card.mac)], [GROUP, OTHER_GROUP])

    def test_filter_more_groups_than_fit(self):
        """Above the size of the card's filter all groups are let in, and later again only those joined."""
        card = self.card["hand"]
        groups = [f"01:00:5e:7f:00:{n:02x}" for n in range(80)]
        self.run_in("".join(f"ip maddress add {group} dev {card.dev}\n" for group in groups))
        self.settle(card, OTHER_GROUP, True)
        self.check(card, [mac_bytes(groups[79]), OTHER_GROUP], [STRANGER])
        # 64 of them fill the filter exactly; the interface has groups of its own (all-hosts).
        own = int(self.run_in(f"ip maddress show dev {card.dev} | grep -c link")) - len(groups)
        keep = 64 - own
        self.run_in("".join(f"ip maddress del {group} dev {card.dev}\n" for group in groups[keep:]))
        self.settle(card, OTHER_GROUP, False)
        self.check(card, [mac_bytes(groups[0]), mac_bytes(groups[keep - 1])],
                   [mac_bytes(groups[keep]), OTHER_GROUP])
        self.run_in("".join(f"ip maddress del {group} dev {card.dev}\n" for group in groups[:keep]))
        self.settle(card, mac_bytes(groups[0]), False)

    def test_filter_promiscuous(self):
        card = self.card["hand"]
        self.check(card, [STRANGER, mac_bytes(card.mac), OTHER_GROUP, BROADCAST], [], promiscuous=True)
        self.settle(card, STRANGER, False)
        self.run_in(f"ip link set {card.dev} allmulticast on")
        self.settle(card, OTHER_GROUP, True)
        self.check(card, [OTHER_GROUP, mac_bytes(card.mac)], [STRANGER])
        self.run_in(f"ip link set {card.dev} allmulticast off")
        self.settle(card, OTHER_GROUP, False)

    def test_filter_frames_of_all_lengths(self):
        """From the shortest frame to the longest, tiny ones of less than 60 bytes included."""
        for card, _, _ in self.by_hand():
            lengths = [14, 15, 16, 20, 59, 60, 61, 64, 127, 128, 255, 256, 257, 1000, 1513, 1514, 1518, 1522]
            frames = [frame(mac_bytes(card.mac), length, length) for length in lengths]
            with Capture(self.vm, card.dev, TYPE) as capture:
                for data in frames:
                    card.wire.send(data)
                self.assertEqual([data.hex() for data in capture.wait_frames(len(frames))],
                                 [data.hex() for data in frames])


class Transfers:
    """A transfer over the user network during which something happens."""

    def exchange_while(self, disturb, size=12 * MIB, rounds=6):
        """A file goes down and up while disturb(number) is called again and again. All sums agree."""
        said = []
        with transfer.server(self.noise(size)) as daemon:
            wanted = sha256(daemon.content)
            url = f"http://10.0.2.2:{daemon.server_address[1]}/file"
            for words in (f"-o /tmp/file {url}", f"-T /tmp/file {url}"):
                # Slow enough to be under way at each disturbance, also on a fast machine.
                process = self.start_process(f"curl -sS --fail --limit-rate 6M {words} 2>&1")
                for number in range(rounds):
                    self.wait_bytes(128 * 1024, process)
                    said.append(disturb(number))
                result = process.wait(300)
                self.assertEqual(result.rc, 0, result.out + result.err)
            self.assertEqual(self.guest_sum("/tmp/file"), wanted)
            self.assertEqual([upload["sha256"] for upload in daemon.uploads], [wanted])
        self.run_in("rm -f /tmp/file")
        return said

    @staticmethod
    def noise(size):
        with open("/dev/urandom", "rb") as source:
            return source.read(size)

    def wait_bytes(self, count, process):
        """Until so many more bytes went through the card, or the process has ended."""
        def total():
            vif = self.vif("user")
            return vif["rx_bytes"] + vif["tx_bytes"]
        before = total()
        self.wait(lambda: total() >= before + count or process.poll(), "the transfer goes on", 300)


class Life(Frames, Transfers):
    """The link, the machine's stop and continue, and function-level reset."""

    def test_life_stop_and_continue(self):
        """While the machine is stopped the cores stand still and nothing gets lost."""
        def disturb(number):
            self.vm.qmp("stop")
            before = [self.core_sum(name, "polls") for name in self.card]
            time.sleep(0.05)
            after = [self.core_sum(name, "polls") for name in self.card]
            self.vm.qmp("cont")
            self.assertEqual(before, after)
            return before
        before = self.vif("user")
        self.exchange_while(disturb)
        after = self.vif("user")
        self.assertEqual(after["drop_rx_not_running"], before["drop_rx_not_running"])
        self.ping_peer("-f", 200)

    def test_life_stopped_machine_holds_frames_back(self):
        """Frames that come while the machine is stopped arrive when it goes on, in order, none lost."""
        for card, _, _ in self.by_hand():
            with Capture(self.vm, card.dev, TYPE) as capture:
                frames = [frame(mac_bytes(card.mac), 200 + n, n) for n in range(300)]
                self.vm.qmp("stop")
                taken = 0
                while taken < len(frames) and card.wire.try_send(frames[taken]):
                    taken += 1
                self.assertLess(taken, len(frames), "a stopped machine takes frames for ever")
                self.vm.qmp("cont")
                for data in frames[taken:]:
                    card.wire.send(data)
                self.assertEqual([data.hex() for data in capture.wait_frames(len(frames))],
                                 [data.hex() for data in frames])

    def test_life_link_follows(self):
        """QMP's set_link and the carrier in the guest, idle and under traffic."""
        card = self.card["peer"]
        for busy in (False, True):
            flood = self.start_process(f"ping -q -f {card.wire.ip}") if busy else None
            for _ in range(3):
                for up in (False, True):
                    self.vm.qmp("set_link", name="peer", up=up)
                    self.wait(lambda up=up: self.sysfs(card, "carrier") == up, f"carrier is {up}")
                    self.assertEqual("state UP" in self.run_in(f"ip link show {card.dev}"), up)
                self.wait_ping(card.wire.ip)
            if busy:
                flood.kill()
        self.ping_peer("-f", 200)
        # A card that comes up without link.
        self.vm.qmp("set_link", name="peer", up=False)
        self.run_in("ip link set peer down; ip link set peer up")
        self.assertEqual(self.sysfs(card, "carrier"), 0)
        self.vm.qmp("set_link", name="peer", up=True)
        self.wait(lambda: self.sysfs(card, "carrier") == 1, "carrier is back")
        self.set_addresses()
        self.wait_ping(card.wire.ip)

    def test_life_function_level_reset(self):
        """FLR under traffic: the driver brings all back, filters included, and the transfer goes on."""
        path = f"/sys/bus/pci/devices/0000:00:{0x10 + self.card['user'].index:02x}.0"
        hand = self.card["hand"]
        if "flr" not in self.run_in(f"cat {path}/reset_method 2>/dev/null; true").split():
            self.skipTest("not on PCI Express: this machine has no function-level reset")
        before = self.vif("user")
        self.exchange_while(lambda number: self.run_in(f"echo 1 >{path}/reset"), rounds=5)
        after = self.vif("user")
        self.assertGreaterEqual(after["resets"] - before["resets"], 10)
        # What the device has forgotten: groups, and an address that is not the card's own.
        self.run_in(f"ip maddress add {GROUP.hex(':')} dev hand; ip link set dev hand address "
                    f"{STRANGER.hex(':')}")
        self.run_in(f"echo 1 >{path[:-4]}{0x10 + hand.index:02x}.0/reset")
        self.settle(hand, GROUP, True)
        self.check(hand, [GROUP, STRANGER], [mac_bytes(hand.mac), OTHER_GROUP])
        self.run_in(f"ip maddress del {GROUP.hex(':')} dev hand; ip link set dev hand address {hand.mac}")
        self.set_addresses()

    def test_life_down_and_up(self):
        """20 times down and up while a transfer runs and the wires deliver."""
        cards = [card for card, _, _ in self.by_hand()]

        def send(number):
            for card in cards:
                card.wire.drain()
            return sum(card.wire.try_send(udp(mac_bytes(card.mac), bytes(18))) for card in cards)

        def disturb(number):
            for card in [*cards, self.card["user"]]:
                self.run_in(f"ip link set {card.dev} down && ip link set {card.dev} up")
            self.run_in("ip route replace default via 10.0.2.2")
        with Flood(send, PAUSE) as flood:
            self.exchange_while(disturb, rounds=10)
            seen = flood.sent
            self.wait(lambda: flood.sent > seen + 200, "frames are taken")
        self.set_addresses()
        self.ping_peer("-f", 200)


class Changes(Frames, Transfers):
    def test_change_mtu_under_traffic(self):
        # Below 552 Linux lets TCP's packets be fragmented, and libslirp is not what is tested here.
        sizes = [600, 9000, 576, 4000, 1280, 1500]

        def disturb(number):
            self.run_in(f"ip link set user mtu {sizes[number]}")
        self.exchange_while(disturb, size=8 * MIB, rounds=len(sizes))
        self.assertEqual(self.sysfs(self.card["user"], "mtu"), 1500)

    def change_mac(self, card, host, guest):
        host_text = ".".join(map(str, host))
        sender = self.start_process(f"ping -q -i 0.002 {host_text}")
        for number in range(1, 6):
            mac = bytes.fromhex("52540000cc") + bytes([number])
            old = mac_bytes(self.run_in(f"cat /sys/class/net/{card.dev}/address").strip())
            # The kernel forgets the neighbours of an interface whose address changes.
            self.run_in(f"ip link set dev {card.dev} address {mac.hex(':')} && ip neighbour replace "
                        f"{host_text} lladdr {HOST_MAC.hex(':')} nud permanent dev {card.dev}")
            card.wire.drain()
            found = card.wire.wait_for(lambda data, mac=mac: data[6:14] == mac + b"\x08\0",
                                       "an IPv4 frame from the new MAC")
            self.assertEqual((found[:6], found[26:34]), (HOST_MAC, bytes(guest) + bytes(host)))
            self.settle(card, mac, True)
            self.settle(card, old, False)
        sender.kill()
        self.run_in(f"ip link set dev {card.dev} address {card.mac}")
        card.wire.drain()
        self.settle(card, mac_bytes(card.mac), True)
        self.assertNotEqual(self.vm.run(f"ip link set dev {card.dev} address 01:00:00:00:00:01",
                                        check=False).rc, 0)

    def test_change_mac_under_traffic(self):
        for card, host, guest in self.by_hand():
            with card.wire.reading():
                self.change_mac(card, host, guest)
        self.set_addresses()


class Overrun(Frames):
    """A host that sends faster than the guest takes. A wire of one VIF is held back, and loses nothing."""

    PAYLOAD = 200

    def payload(self, number):
        return b"%08d" % number + bytes((number + k) % 251 for k in range(self.PAYLOAD - 8))

    def slow(self, card, on):
        """NAPI waits between two polls, and signals are off meanwhile: the queue runs full."""
        timeout, count = (100_000_000, 1) if on else (0, 0)
        self.run_in(f"cd /sys/class/net/{card.dev} && echo {timeout} >gro_flush_timeout && "
                    f"echo {count} >napi_defer_hard_irqs")

    def receiver(self, card):
        """A program in the guest that writes every datagram into a file."""
        process = self.start_process("socat -u -b 4096 UDP4-RECV:7777,rcvbuf=67108864,so-bindtodevice="
                                     f"{card.dev} CREATE:/tmp/{card.dev}.got")
        self.wait(lambda: "7777" in self.run_in("ss -Hlun"), "the receiver listens")
        return process

    def wait_file(self, card, count):
        seen = {}

        def whole():
            seen["size"] = int(self.run_in(f"stat -c %s /tmp/{card.dev}.got 2>/dev/null || echo 0"))
            return seen["size"] >= count * self.PAYLOAD
        self.wait(whole, lambda: f"{count} datagrams of {self.PAYLOAD} bytes, now {seen['size']} bytes")
        wanted = b"".join(self.payload(n) for n in range(count))
        found = self.vm.get(f"/tmp/{card.dev}.got")
        if found != wanted:
            short = min(len(found), len(wanted))
            at = next((i for i in range(short) if found[i] != wanted[i]), short)
            self.fail(f"datagram {at // self.PAYLOAD} of {count} is missing or wrong, {len(found)} bytes")

    def test_overrun_is_held_back(self):
        for card, host, guest in self.by_hand():
            before = self.vif(card.name)
            full = before["queues"]["0"]["receive"]["full"]
            process = self.receiver(card)
            self.slow(card, True)
            number = 0
            while number < 3000 or self.vif(card.name)["queues"]["0"]["receive"]["full"] == full:
                for number in range(number + 1, number + 501):
                    card.wire.send(udp(mac_bytes(card.mac), self.payload(number - 1), 7777, host, guest))
                self.assertLess(number, 200000, "the receive queue is never full")
            self.slow(card, False)
            self.wait_file(card, number)
            process.kill()
            after = self.vif(card.name)
            self.assertEqual({key: after[key] - before[key] for key in after
                              if key.startswith("drop_") and after[key] != before[key]}, {})
            self.assertEqual(after["rx_frames"] - before["rx_frames"], number)
            self.check(card, [mac_bytes(card.mac)], [STRANGER])

    def test_overrun_smallest_queue(self):
        """16 entries: full often enough without any delay made for it."""
        for card, host, guest in self.by_hand():
            self.run_in(f"ethtool -G {card.dev} rx 16 tx 16")
            process = self.receiver(card)
            before = self.vif(card.name)
            number = 0
            while number < 2000 or (self.vif(card.name)["queues"]["0"]["receive"]["full"]
                                    == before["queues"]["0"]["receive"]["full"]):
                for number in range(number + 1, number + 201):
                    card.wire.send(udp(mac_bytes(card.mac), self.payload(number - 1), 7777, host, guest))
                self.assertLess(number, 200000, "the receive queue is never full")
            self.wait_file(card, number)
            process.kill()
            after = self.vif(card.name)
            self.assertEqual({key: after[key] - before[key] for key in after
                              if key.startswith("drop_") and after[key] != before[key]}, {})
            self.run_in(f"ethtool -G {card.dev} rx 256 tx 256")
        self.set_addresses()

    def test_overrun_of_an_interface_that_is_down(self):
        """Each frame is delivered or dropped for a reason that is counted; afterwards all works."""
        for card, host, guest in self.by_hand():
            before, sent = self.vif(card.name), 0
            data = udp(mac_bytes(card.mac), self.payload(0), 7778, host, guest)

            def counted():
                after = self.vif(card.name)
                return sum(after[key] - before[key] for key in after
                           if key == "rx_frames" or re.match("drop_rx_", key))
            for down in (False, True, False):
                self.run_in(f"ip link set {card.dev} {'down' if down else 'up'}")
                for _ in range(1000):
                    card.wire.send(data)
                sent += 1000
                if down:
                    self.wait(lambda: self.vif(card.name)["drop_rx_not_running"]
                              >= before["drop_rx_not_running"] + 1000, "frames are dropped as not running")
            self.wait(lambda: counted() == sent, lambda: f"{sent} frames sent, {counted()} counted")
            self.set_addresses()
            self.check(card, [mac_bytes(card.mac)], [STRANGER])

    def test_overrun_of_the_hosts_socket(self):
        """A host that does not read: the guest's frames wait, and arrive in order when it reads again."""
        for card, host, _ in self.by_hand():
            card.wire.drain()
            count = 2000
            self.run_in("rm -f /tmp/send; for n in $(seq 20); do head -c 20000 /dev/urandom; done >/tmp/send")
            data = self.vm.get("/tmp/send")
            blocked = self.core_sum(card.name, "port_blocked")
            # 200 bytes in each datagram; a socket whose buffer is full waits.
            sender = self.start_process("exec socat -u -b 200 FILE:/tmp/send "
                                        f"UDP4-SENDTO:{'.'.join(map(str, host))}:7779")
            if card.wire.netdev is None:
                self.wait(lambda: self.core_sum(card.name, "port_blocked") > blocked, "the port is blocked")
            found = b""
            for _ in range(count):
                found += udp_payload(card.wire.wait_for(
                    lambda data: udp_payload(data, 7779) is not None, "a datagram"))
            self.assertEqual(sha256(found), sha256(data))
            self.assertEqual(sender.wait().rc, 0)


class SystemReset(Transfers):
    RESETS = 2

    def test_yy_system_reset(self):
        """The machine is reset under traffic; it boots again, and everything works."""
        card = self.card["hand"]
        self.vm.qmp("set-action", reboot="reset")
        data = udp(mac_bytes(card.mac), bytes(100))
        for _ in range(self.RESETS):
            resets = self.vif("hand")["resets"]

            def send(number):
                for name in ("hand", "handnet"):
                    self.card[name].wire.drain()
                return card.wire.try_send(data) + self.card["handnet"].wire.try_send(data)
            with Flood(send, PAUSE) as flood, transfer.server(self.noise(16 * MIB)) as daemon:
                # Its client goes away in the middle of it.
                daemon.handle_error = lambda *ignored: None
                url = f"http://10.0.2.2:{daemon.server_address[1]}/file"
                process = self.start_process(f"curl -sS --limit-rate 4M -o /dev/null {url}")
                self.start_process("ping -q -f 10.88.0.1")
                self.wait_bytes(MIB, process)
                self.vm.qmp("system_reset")
                self.vm.agent.close()
                self.vm.agent.connect(180 * GUEST_SLOWNESS)
                self.assertGreater(self.vif("hand")["resets"], resets)
                self.name_interfaces()
                self.prepare()
                seen = flood.sent
                self.wait(lambda: flood.sent > seen + 200, "frames are taken after the reset", DEADLINE)
            self.ping_peer("-f", 100)
            self.assertTrue(transfer.exchange(self.vm, 2 * MIB)["agree"])
