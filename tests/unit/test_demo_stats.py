# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo's arithmetic, and the wire peer spoken to over real sockets. No VM is needed."""
import json
import os
import signal
import socket
import struct
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from svio_tool import demo, latency, paths  # noqa: E402 (the path comes first)
from svio_tool.ui import SvioError  # noqa: E402

PING_PONG = """\
sockperf: [Total Run] RunTime=1.000 sec; Warm up time=400 msec; SentMessages=7748; ReceivedMessages=7747
sockperf: [Valid Duration] RunTime=0.550 sec; SentMessages=4318; ReceivedMessages=4318
sockperf: \x1b[2;35m====> avg-rtt=127.156 (std-dev=53.365)\x1b[0m
sockperf: # dropped messages = 0; # duplicated messages = 0; # out-of-order messages = 0
sockperf: Summary: Round trip is 127.156 usec
sockperf: ---> <MAX> observation = 2702.002
sockperf: ---> percentile 99.000 =  208.419
sockperf: ---> percentile 90.000 =  141.784
sockperf: ---> percentile 75.000 =  124.292
sockperf: ---> percentile 50.000 =  121.464
"""

INTERRUPTS = """\
           CPU0       CPU1
  0:        104          1   IO-APIC   2-edge      timer
 26:          7          3   PCI-MSIX-0000:00:02.0   0-edge      virtio1-config
 27:      15645          5   PCI-MSIX-0000:00:02.0   1-edge      virtio1-input.0
127:          9          9   PCI-MSIX-0000:00:03.0   1-edge      other
NMI:          0          0   Non-maskable interrupts
"""


def rtt(nic, port, number, p50, size=64):
    return {"nic": nic, "port": port, "kind": "rtt", "size": size, "round": number, "p50_us": p50,
            "p90_us": p50, "p99_us": p50, "messages": 10, "interrupts": 20, "cpu_s": {"vcpu": 0.001}}


class Parsing(unittest.TestCase):
    def test_ping_pong(self):
        found = latency.parse_ping_pong(PING_PONG)
        self.assertEqual(found, {"p50_us": 121.464, "p90_us": 141.784, "p99_us": 208.419, "mean_us": 127.156,
                                 "max_us": 2702.002, "samples": 4318, "dropped": 0})

    def test_half_round_trips_are_refused(self):
        with self.assertRaises(SvioError):
            latency.parse_ping_pong(PING_PONG.replace("Round trip is", "Latency is"))

    def test_throughput(self):
        self.assertEqual(latency.parse_throughput("sockperf: Total of 69350 messages sent in 2.001 sec\n"),
                         (69350, 2.001))

    def test_interrupts(self):
        self.assertEqual(latency.interrupts(INTERRUPTS, {"26", "27"}), 15660)
        self.assertEqual(latency.interrupts(INTERRUPTS, set()), 0)

    def test_board_difference(self):
        before = {"vifs": {"0": {"queues": {"0": {"send": {"bells": 1}, "receive": {"bells": 2}}}}}}
        queues = {"0": {"send": {"bells": 5}, "receive": {"bells": 2}}}
        after = {"vifs": {"0": {"queues": queues, "up": True}},
                 "cores": [{"sleeps": 3}, {"sleeps": 4}]}
        self.assertEqual(latency.board_difference(before, after), {"bells": 4, "sleeps": 7})

    def test_cpu_difference(self):
        found = latency.cpu_difference({"CPU 0/TCG": 1.0, "qemu": 2.0},
                                       {"CPU 0/TCG": 1.5, "qemu": 2.25, "svio-core0": 0.125})
        self.assertEqual(found, {"vcpu": 0.5, "on_board": 0.125, "qemu_other": 0.25})


class Figures(unittest.TestCase):
    def cells(self):
        rows = (("svio-nic", "native", (30, 40, 20)), ("svio-nic", "netdev", (60, 90, 60)),
                ("virtio-net-pci", "netdev", (100, 160, 120)))
        return [rtt(nic, port, number, value) for nic, port, values in rows
                for number, value in enumerate(values, 1)]

    def test_rows_are_ordered(self):
        self.assertEqual(latency.keys_of(self.cells()),
                         ["virtio-net-pci/netdev", "svio-nic/netdev", "svio-nic/native"])

    def test_ratio_is_of_the_medians_and_spread_of_single_rounds(self):
        found = latency.ratios(self.cells())["svio-nic/netdev"]["p50_64"]
        self.assertEqual(found, {"value": 0.5, "min": 0.5, "max": 0.6})

    def test_missing_load_has_no_ratio(self):
        self.assertIsNone(latency.ratios(self.cells())["svio-nic/native"]["tx"])

    def test_per_message(self):
        self.assertEqual(latency.counters(self.cells())["svio-nic/native"]["rtt_64"],
                         {"messages": 10, "interrupts": 2, "cpu_us_vcpu": 100})

    def test_a_nic_that_stopped_was_not_fast(self):
        sink = {"datagrams": 1000, "first_ns": 0, "last_ns": 100_000_000, "longest_gap_ns": 2_000_000}
        found = latency.tx_rate(sink, 1001, 1.0)
        self.assertEqual((found["per_s"], found["lost"], found["longest_gap_ms"]), (1000, 1, 900))
        sink["last_ns"] = 2_000_000_000
        self.assertEqual(latency.tx_rate(sink, 1000, 1.0)["per_s"], 500)

    def test_json_of_the_rounds_so_far(self):
        result = demo.empty_result(3, 1)
        demo.fill(result, self.cells())
        self.assertEqual(set(result["latency"][0]),
                         {"nic", "port", "size", "p50_us", "p90_us", "p99_us", "round"})
        with tempfile.TemporaryDirectory() as folder:
            name = Path(folder) / "out.json"
            demo.Writer(str(name)).write(result)
            self.assertEqual(json.loads(name.read_text()), json.loads(json.dumps(result)))
            self.assertEqual(os.listdir(folder), ["out.json"])

    def test_a_file_that_cannot_be_written(self):
        with self.assertRaises(SvioError):
            demo.Writer("/nonexistent/out.json").write({})


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


GUEST_MAC, GUEST_IP = bytes.fromhex("525400000001"), bytes([10, 9, 0, 2])


def ipv4(protocol, payload, to, target_ip, fragment=0, source=GUEST_IP):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, fragment, 64, protocol, 0, source,
                       target_ip)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return to + GUEST_MAC + b"\x08\x00" + head + payload


def udp(payload, port, to, target_ip, summed=True):
    head = struct.pack("!HHHH", 4000, port, 8 + len(payload), 0)
    pseudo = GUEST_IP + target_ip + struct.pack("!BBH", 0, 17, 8 + len(payload))
    total = (checksum(pseudo + head + payload) or 0xffff) if summed else 0
    return ipv4(17, head[:6] + struct.pack("!H", total) + payload, to, target_ip)


class Peer(unittest.TestCase):
    """The real program with one wire whose other end is a socket of ours."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        row = latency.Row("test", "netdev", "w", 9, Path(self.folder.name), False)
        self.ip = bytes(int(part) for part in row.peer_ip.split("."))
        self.far, self.near = f"{self.folder.name}/w.peer", f"{self.folder.name}/w.vm"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.bind(self.near)
        self.socket.settimeout(5)
        self.peer = latency.WirePeer([row], os.environ.get("SVIO_WIRE_PEER", paths.WIRE_PEER))
        self.addCleanup(self.peer.close)

    def counters(self):
        return self.peer.ask("counters")["wires"]["w"]

    def ask(self, frame):
        self.socket.sendto(frame, self.far)
        return self.socket.recv(65536)

    def mac(self):
        request = struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, GUEST_MAC, GUEST_IP, bytes(6), self.ip)
        answer = self.ask(b"\xff" * 6 + GUEST_MAC + b"\x08\x06" + request)
        self.assertEqual(answer[:6], GUEST_MAC)
        self.assertEqual(answer[14:22], struct.pack("!HHBBH", 1, 0x800, 6, 4, 2))
        self.assertEqual(answer[28:42], self.ip + GUEST_MAC + GUEST_IP)
        self.assertEqual(answer[6:12], answer[22:28])
        return answer[6:12]

    def check_udp(self, frame, payload):
        """A UDP answer to the guest's port 4000 with valid sums."""
        self.assertEqual(checksum(frame[14:34]), 0)
        self.assertEqual(frame[26:34], self.ip + GUEST_IP)
        self.assertEqual(struct.unpack("!H", frame[36:38])[0], 4000)
        datagram = frame[34:34 + 8 + len(payload)]
        pseudo = frame[26:34] + struct.pack("!BBH", 0, 17, len(datagram))
        if datagram[6:8] != b"\0\0":
            self.assertEqual(checksum(pseudo + datagram), 0)
        self.assertEqual(datagram[8:], payload)

    def test_icmp_echo(self):
        request = struct.pack("!BBHHH", 8, 0, 0, 1, 2) + b"hello"
        request = request[:2] + struct.pack("!H", checksum(request)) + request[4:]
        frame = self.ask(ipv4(1, request, self.mac(), self.ip))
        # Emulated NICs drop frames that are shorter than Ethernet's shortest.
        self.assertEqual((len(frame), frame[34 + len(request):]), (60, bytes(60 - 34 - len(request))))
        answer = frame[34:34 + len(request)]
        self.assertEqual((answer[0], checksum(answer), answer[4:]), (0, 0, request[4:]))

    def test_udp_echo(self):
        self.check_udp(self.ask(udp(b"abc", 7, self.mac(), self.ip)), b"abc")

    def test_sockperf(self):
        mac = self.mac()
        for summed in (True, False):
            for sequence in range(300):     # some of them have a sum that needs care
                body = struct.pack("!QHI", sequence, 3, 64) + os.urandom(50)
                answer = self.ask(udp(body, 11111, mac, self.ip, summed))
                self.check_udp(answer, body[:8] + b"\0\x02" + body[10:])
                self.assertEqual(answer[40:42] != b"\0\0", summed)
        self.socket.sendto(udp(struct.pack("!QHI", 1, 5, 14), 11111, mac, self.ip), self.far)
        self.assertEqual((self.counters()["udp_echo"], self.counters()["udp_warmup"]), (600, 1))

    def test_sink(self):
        mac = self.mac()
        for flags in (5, 1, 1, 1):
            body = struct.pack("!QHI", 1, flags, 1400) + bytes(1386)
            self.socket.sendto(udp(body, 9, mac, self.ip), self.far)
        sink = self.counters()["sink"]
        self.assertEqual((sink["datagrams"], sink["bytes"], sink["warmup"]), (3, 4200, 1))
        self.assertLessEqual(sink["first_ns"], sink["last_ns"])
        self.peer.ask("reset")
        self.assertEqual(self.counters()["sink"]["datagrams"], 0)

    def test_malformed_frames_are_counted_and_survived(self):
        mac = self.mac()
        good = udp(b"abc", 7, mac, self.ip)
        bad = [b"", b"x", good[:13], good[:20], good[:33], good[:14] + b"\x4f" + good[15:],
               good[:16] + b"\xff\xff" + good[18:], good[:38] + b"\0\x07" + good[40:],
               good[:38] + b"\xff\xff" + good[40:], mac + GUEST_MAC + b"\x08\x06" + bytes(27)]
        for frame in bad:
            self.socket.sendto(frame, self.far)
        self.socket.sendto(good[:-1] + b"x", self.far)
        self.socket.sendto(ipv4(17, bytes(8), mac, self.ip, 0x2000), self.far)
        found = self.counters()
        self.assertEqual(found["malformed"] + found["bad_checksum"], len(bad) + 1)
        self.assertEqual(found["ignored"], 1)
        for _ in range(2000):
            self.socket.sendto(os.urandom(6) + os.urandom(60), self.far)
            self.socket.sendto(good[:14] + os.urandom(40), self.far)
        self.check_udp(self.ask(good), b"abc")

    def test_the_vm_goes_and_comes_again(self):
        good = udp(b"abc", 7, self.mac(), self.ip)
        for number, bound in enumerate((True, False), 1):
            self.socket.close()
            if not bound:
                os.unlink(self.near)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(good, self.far)
            self.assertEqual(self.counters()["send_no_peer"], number)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.settimeout(5)
        self.socket.bind(self.near)
        self.check_udp(self.ask(good), b"abc")

    def check_flood(self, frame, number, size=64):
        self.assertEqual(frame[:6] + frame[12:14], GUEST_MAC + b"\x08\x00")
        self.assertEqual(checksum(frame[14:34]), 0)
        self.assertEqual(struct.unpack("!H", frame[16:18])[0], len(frame) - 14)
        self.assertEqual((frame[23], frame[26:34]), (17, self.ip + GUEST_IP))
        self.assertEqual(struct.unpack("!4H", frame[34:42]), (9, 9, 8 + size, 0))
        self.assertEqual((len(frame), struct.unpack("!Q", frame[42:50])[0]), (42 + size, number))

    def flood(self, words):
        return self.peer.ask(f"flood w {GUEST_MAC.hex(':')} {'.'.join(map(str, GUEST_IP))} {words}")

    def test_flood_fills_the_wire_and_answers_go_first(self):
        good = udp(b"abc", 7, self.mac(), self.ip)
        self.assertEqual(self.flood(64), {"ok": True})
        for number in range(1000):
            self.check_flood(self.socket.recv(65536), number)
        self.socket.sendto(good, self.far)
        number = 1000
        while (frame := self.socket.recv(65536))[36:38] == b"\0\x09":
            self.check_flood(frame, number)
            number += 1
        self.check_udp(frame, b"abc")
        self.assertEqual(self.peer.ask("flood w off"), {"ok": True})
        sent = self.counters()["flood_sent"]
        while number < sent:
            self.check_flood(self.socket.recv(65536), number)
            number += 1
        self.assertEqual((self.counters()["flood_sent"], self.counters()["flood_missed"]), (sent, 0))
        self.check_udp(self.ask(good), b"abc")

    def test_floods_of_one_wire_take_turns(self):
        """Each has its own address and numbers; one that is started again begins again."""
        macs = [GUEST_MAC[:5] + bytes([n]) for n in (1, 2, 3)]
        for words in ([(mac, f"10.9.0.{n}", "64") for n, mac in enumerate(macs, 1)]
                      + [(macs[1], "10.9.0.2", "100")]):
            self.assertEqual(self.peer.ask(f"flood w {words[0].hex(':')} {words[1]} {words[2]}"),
                             {"ok": True})
        frames, numbers = [], {mac: [] for mac in macs}
        while min(map(len, numbers.values())) < 1000 or len(frames[-1]) != 142:
            frames.append(self.socket.recv(65536))
            numbers[frames[-1][:6]].append(struct.unpack("!Q", frames[-1][42:50])[0])
            self.assertEqual(frames[-1][30:34], bytes([10, 9, 0, frames[-1][5]]))
        self.assertEqual(numbers[macs[0]], list(range(len(numbers[macs[0]]))))
        again = [number for frame, number in zip((one for one in frames if one[:6] == macs[1]),
                                                 numbers[macs[1]]) if len(frame) == 142]
        self.assertEqual(again, list(range(len(again))))
        # All three run from the first frame of the last one on.
        turns = [frame[:6] for frame in frames[next(n for n, one in enumerate(frames) if len(one) == 142):]]
        self.assertLessEqual(max(map(turns.count, macs)) - min(map(turns.count, macs)), 1)
        self.assertEqual(self.peer.ask("flood w off"), {"ok": True})
        sent = self.counters()["flood_sent"]
        while len(frames) < sent:
            frames.append(self.socket.recv(65536))
        self.assertEqual(self.counters()["flood_sent"], sent)

    def test_a_wire_has_a_limit_of_floods(self):
        answers = [self.peer.ask(f"flood w {GUEST_MAC.hex(':')} 10.9.1.{n} 64 1") for n in range(65)]
        self.assertEqual(answers[:64], [{"ok": True}] * 64)
        self.assertIn("at most 64", answers[64]["error"])
        self.assertEqual(self.peer.ask(f"flood w {GUEST_MAC.hex(':')} 10.9.1.7 64 1"), {"ok": True})
        self.assertEqual(self.peer.ask("flood w off"), {"ok": True})

    def test_flood_with_a_rate(self):
        begin = time.monotonic()
        self.assertEqual(self.flood("100 1000"), {"ok": True})
        for number in range(100):
            self.check_flood(self.socket.recv(65536), number, 100)
        # A late program sends fewer, none sends more.
        self.assertGreaterEqual(time.monotonic() - begin, 0.099)
        # A wire that nobody reads: what does not fit is told, not sent later.
        while self.counters()["flood_missed"] < 50:
            time.sleep(0.01)
        self.assertEqual(self.peer.ask("flood w off"), {"ok": True})

    def test_flood_ends_when_nobody_is_there(self):
        for words in ("64", "64 1000"):
            self.peer.ask("reset")
            self.flood(words)
            self.check_flood(self.socket.recv(65536), 0)
            self.socket.close()
            os.unlink(self.near)
            while not self.counters()["send_no_peer"]:
                time.sleep(0.01)
            before = self.counters()
            time.sleep(0.05)
            self.assertEqual(self.counters(), before)
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.addCleanup(self.socket.close)
            self.socket.settimeout(5)
            self.socket.bind(self.near)

    def test_bad_floods_are_refused(self):
        mac, ip = GUEST_MAC.hex(":"), "10.9.0.2"
        for words in ("", "w", "w on", "x off", f"w {mac} {ip}", f"w {mac} {ip} 7", f"w {mac} {ip} 9000",
                      f"w {mac} {ip} 64 -1", f"w {mac} {ip} 64 1x", f"w {mac}:00 {ip} 64",
                      f"w {mac[:-3]} {ip} 64", f"w {mac} 10.9.0 64", f"w {mac} {ip} 64 1 2",
                      f"w {mac} {ip} 64 99999999999999999999"):
            self.assertIn("error", self.peer.ask("flood " + words), words)
        self.assertEqual(self.counters()["flood_sent"], 0)

    def test_a_host_with_many_addresses(self):
        self.peer.close()
        row = f"w,{self.far},{self.near},10.9.0.1/16"
        self.peer = latency.WirePeer([row],
                                     os.environ.get("SVIO_WIRE_PEER", paths.WIRE_PEER))
        self.addCleanup(self.peer.close)
        for address in (bytes((10, 9, 0, 1)), bytes((10, 9, 255, 254))):
            self.ip = address
            self.check_udp(self.ask(udp(b"abc", 7, self.mac(), address)), b"abc")
        self.socket.sendto(udp(b"abc", 7, self.mac(), bytes((10, 8, 0, 1))), self.far)
        self.assertEqual(self.counters()["ignored"], 1)

    def test_ends_with_its_input_and_leaves_no_socket(self):
        self.peer.close()
        self.assertEqual(self.peer.process.returncode, 0)
        self.assertFalse(os.path.exists(self.far))

    def test_sigterm(self):
        self.peer.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.peer.process.wait(5), 0)
        self.assertFalse(os.path.exists(self.far))


class HostSpeed(unittest.TestCase):
    def test_spread(self):
        """The slowest tenth to the quickest; a single odd value of many is no spread."""
        self.assertIsNone(latency.speed_spread([{}]))
        self.assertEqual(latency.speed_spread([{"probe_ms": 2.0}, {"probe_ms": 3.0}, {}]), 1.5)
        self.assertEqual(latency.speed_spread([{"probe_ms": 1.0}] * 19 + [{"probe_ms": 9.0}]), 1)
        self.assertEqual(latency.speed_spread([{"probe_ms": 1.0}] * 5 + [{"probe_ms": 2.0}] * 5), 2)

    def test_what_is_said(self):
        facts = {"others_cores": 0.0}
        self.assertNotIn("slow", demo.noise_text(facts))
        self.assertNotIn("slow", demo.noise_text({**facts, "speed_spread": 1.1}))
        self.assertIn("1.8 times as slow", demo.noise_text({**facts, "speed_spread": 1.8}))
        self.assertGreater(latency.probe_ms(), 0)


if __name__ == "__main__":
    unittest.main()
