# SPDX-License-Identifier: GPL-2.0-or-later
"""svio-wire-peer with a kernel behind it: who answers what, and what bench reads of iperf3 and pktgen."""
import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from test_demo_stats import GUEST_MAC, checksum, ipv4  # noqa: E402 (the path comes first)
from svio_tool import host, lab, lab_host, latency, setup, vm  # noqa: E402 (the path comes first)
from svio_tool.ui import SvioError  # noqa: E402

GUEST_IP = bytes((10, 77, 9, 2))        # on the network that the kernel behind the wire knows
PEER_MAC, PEER_IP = bytes.fromhex("027376696f01"), bytes((10, 77, 9, 1))
ARP, IP = 0x0806, 0x0800
SYN, RST, ACK = 2, 4, 16
PKTGEN = """\
Params: count 0  min_pkt_size: 60  max_pkt_size: 60
Current:
     pkts-sofar: 51234  errors: 17
Result: OK: 1003220(c1000000+d3220) usec, 51234 (60byte,0frags)
  51069pps 24Mb/sec (24513120bps) errors: 17
"""


def ethernet(kind, body):
    return PEER_MAC + GUEST_MAC + struct.pack("!H", kind) + body


def arp(code, mac, ip):
    return struct.pack("!HHBBH6s4s6s4s", 1, IP, 6, 4, code, GUEST_MAC, GUEST_IP, mac, ip)


def syn(port, sequence):
    head = struct.pack("!HHIIBBHHH", 4000, port, sequence, 0, 5 << 4, SYN, 8192, 0, 0)
    total = checksum(GUEST_IP + PEER_IP + struct.pack("!BBH", 0, 6, len(head)) + head)
    return ipv4(6, head[:16] + struct.pack("!H", total) + head[18:], PEER_MAC, PEER_IP, source=GUEST_IP)


class Hosted(unittest.TestCase):
    """With a kernel of its own behind the peer."""

    def check_host(self):
        why = lab_host.tun_missing()
        if why:
            self.skipTest(why)
        words = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--net", "true"]
        made = subprocess.run(words, capture_output=True, text=True, check=False)
        if made.returncode:
            self.skipTest(f"this host lets nobody make a network namespace: {made.stderr.strip()}")
        setup.ensure(["packages-bench"])


class Behind(Hosted):
    """The test is the guest on the wire."""

    def setUp(self):
        self.check_host()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.row = latency.Row("test", "netdev", "w", 9, Path(folder.name), False)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.bind(f"{folder.name}/w.vm")
        self.socket.settimeout(10)
        self.far = f"{folder.name}/w.peer"
        self.peer = lab_host.HostPeer([self.row])
        self.addCleanup(self.peer.close)

    def frame(self, kind):
        """The next frame of this kind; the kernel may ask for the guest's MAC in between."""
        while True:
            found = self.socket.recv(65536)
            if found[12:14] == struct.pack("!H", kind):
                return found
            if found[12:14] == struct.pack("!H", ARP):
                self.socket.sendto(ethernet(ARP, arp(2, PEER_MAC, PEER_IP)), self.far)

    def ask(self, port):
        """The flags and the acknowledged number of what answers a SYN there."""
        self.socket.sendto(syn(port, 1000), self.far)
        found = self.frame(IP)
        self.assertEqual((found[:12], found[26:34]), (GUEST_MAC + PEER_MAC, PEER_IP + GUEST_IP))
        source, target, _, acknowledged, _, flags = struct.unpack("!HHIIBB", found[34:48])
        self.assertEqual((source, target), (port, 4000))
        return flags, acknowledged

    def test_tcp_is_the_kernels(self):
        self.assertEqual(self.ask(1), (RST | ACK, 1001))
        with self.peer.server(self.row):
            self.assertEqual(self.ask(lab_host.PORT), (SYN | ACK, 1001))
        counters = self.peer.ask("counters")["wires"]["w"]
        self.assertEqual(counters["tap_refused"], 0)
        self.assertGreaterEqual(counters["tap_in"], 3)      # two of ours, and the answer to the kernel's ARP
        self.assertGreaterEqual(counters["tap_out"], 3)

    def test_the_rest_is_the_peers(self):
        """What it answered before it answers still, and the kernel hears nothing of it."""
        self.socket.sendto(ethernet(ARP, arp(1, bytes(6), PEER_IP)), self.far)
        self.assertEqual(self.socket.recv(2048)[20:28], struct.pack("!H", 2) + PEER_MAC)
        datagram = struct.pack("!HHHH", 4000, 7, 13, 0) + b"hello"
        self.socket.sendto(ipv4(17, datagram, PEER_MAC, PEER_IP, source=GUEST_IP), self.far)
        answer = self.socket.recv(2048)
        self.assertEqual(answer[34:47], struct.pack("!HH", 7, 4000) + datagram[4:8] + b"hello")
        datagram = struct.pack("!HHHH", 4000, 9, 8, 0)
        self.socket.sendto(ipv4(17, datagram, PEER_MAC, PEER_IP, source=GUEST_IP), self.far)
        counters = self.peer.ask("counters")["wires"]["w"]
        self.assertEqual((counters["tap_in"], counters["tap_out"], counters["sink"]["datagrams"]), (0, 0, 1))

    def test_an_interface_that_is_no_tap(self):
        words = self.row.peer_argument().replace("w.peer", "v.peer")
        for name, says in (("lo", "cannot open the TAP interface lo"), ("a" * 16, "no name of an interface")):
            with self.assertRaisesRegex(SvioError, says):
                try:
                    latency.WirePeer([f"{words},{name}"]).close()
                except SvioError as error:
                    raise SvioError(error.detail) from error
        with contextlib.suppress(FileNotFoundError):
            self.fail(f"{os.stat(self.far.replace('w.peer', 'v.peer'))} is left")


# QEMU's end of a TAP interface, opened in the namespace that has it: the frames begin with a virtio_net_hdr.
OPEN = """
import fcntl, os, socket, struct, sys
name, flags = sys.argv[1].encode(), 0x5002      # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454ca, struct.pack("16sH22x", name, flags))
socket.send_fds(socket.socket(fileno=int(sys.argv[2])), [b"tap"], [tap])
"""
NEEDS_CSUM = 1


class OnTap(Hosted):
    """The wire is a TAP interface; the test is the NIC that has opened it."""

    def setUp(self):
        self.check_host()
        self.row = lab.nics(("svio-tap",), Path("/nowhere"))[0]
        self.peer = lab_host.HostPeer([self.row])
        self.addCleanup(self.peer.close)
        self.guest_ip, self.peer_ip = (socket.inet_aton(ip) for ip in (self.row.guest_ip, self.row.peer_ip))
        here, there = socket.socketpair()
        with here, there:
            done = subprocess.run([*self.peer.within(), "/usr/bin/python3", "-c", OPEN,
                                   lab_host.wire_tap_of(self.row), str(there.fileno())],
                                  pass_fds=(there.fileno(),), capture_output=True, text=True, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.tap = socket.recv_fds(here, 8, 1)[1][0]
        self.addCleanup(os.close, self.tap)

    def put(self, frame, flags=0, start=0, offset=0):
        os.write(self.tap, struct.pack("BBHHHH", flags, 0, 0, 0, start, offset) + frame)

    def get(self, kind):
        """The next frame of this kind, after its header: nothing is left to do for us."""
        while True:
            self.assertTrue(select.select([self.tap], [], [], 10)[0], "no frame came")
            found = os.read(self.tap, 65550)
            if found[22:24] == struct.pack("!H", kind):
                self.assertEqual(found[:10], bytes(10))
                return found[10:]

    def counters(self):
        return self.peer.ask("counters")["wires"][self.row.wire]

    def udp(self, port, data, partial=False):
        """A datagram whose checksum is whole, or left to others as a driver does it."""
        head = struct.pack("!HHHH", 4000, port, 8 + len(data), 0)
        pseudo = self.guest_ip + self.peer_ip + struct.pack("!BBH", 0, 17, 8 + len(data))
        total = checksum(pseudo + (b"" if partial else head + data))
        total = ~total & 0xffff if partial else total
        return ipv4(17, head[:6] + struct.pack("!H", total) + data, PEER_MAC, self.peer_ip,
                    source=self.guest_ip)

    def test_what_the_peer_answers(self):
        request = struct.pack("!HHBBH6s4s6s4s", 1, IP, 6, 4, 1, GUEST_MAC, self.guest_ip, bytes(6),
                              self.peer_ip)
        self.put(b"\xff" * 6 + GUEST_MAC + struct.pack("!H", ARP) + request)
        self.assertEqual(self.get(ARP)[20:32], struct.pack("!H", 2) + PEER_MAC + self.peer_ip)
        self.put(self.udp(7, b"hello"))
        found = self.get(IP)
        self.assertEqual((found[:12], found[42:47], len(found)), (GUEST_MAC + PEER_MAC, b"hello", 60))
        found = self.counters()
        self.assertEqual((found["arp"], found["udp_echo"], found["malformed"], found["bad_checksum"],
                          found["tap_in"]), (1, 1, 0, 0, 0))

    def test_checksums_that_are_left_to_the_host(self):
        """They are made; and one that is merely wrong is told apart."""
        for size in (0, 1, 64, 1401):
            self.put(self.udp(7, b"x" * size, partial=True), NEEDS_CSUM, 34, 6)
            self.assertEqual(self.get(IP)[42:42 + size], b"x" * size)
        self.put(self.udp(7, b"wrong", partial=True))
        self.put(self.udp(7, b"right"))
        self.assertEqual(self.get(IP)[42:47], b"right")
        found = self.counters()
        self.assertEqual((found["udp_echo"], found["bad_checksum"]), (5, 1))

    def test_tcp_is_the_kernels(self):
        """What the peer does not answer goes from one interface to the other, and back."""
        with self.peer.server(self.row):
            head = struct.pack("!HHIIBBHHH", 4000, lab_host.PORT, 1000, 0, 5 << 4, SYN, 8192, 0, 0)
            pseudo = self.guest_ip + self.peer_ip + struct.pack("!BBH", 0, 6, len(head))
            head = head[:16] + struct.pack("!H", ~checksum(pseudo) & 0xffff) + head[18:]
            self.put(ipv4(6, head, PEER_MAC, self.peer_ip, source=self.guest_ip), NEEDS_CSUM, 34, 16)
            asked = self.get(ARP)       # the kernel wants to know where we are
            self.assertEqual(asked[28:32], self.peer_ip)
            self.put(PEER_MAC + GUEST_MAC + struct.pack("!HHHBBH6s4s6s4s", ARP, 1, IP, 6, 4, 2, GUEST_MAC,
                                                        self.guest_ip, PEER_MAC, self.peer_ip))
            found = self.get(IP)
            self.assertEqual(struct.unpack("!HHIIBB", found[34:48])[3:], (1001, 6 << 4, SYN | ACK))

    def test_a_flood_that_nobody_reads(self):
        """The interface has a queue; what it has no room for is lost, and the peer lives on."""
        mac = GUEST_MAC.hex(":")
        self.peer.ask(f"flood {self.row.wire} {mac} {self.row.guest_ip} 1400")
        self.assertTrue(self.until(lambda: self.counters()["flood_sent"] > 10000))
        self.peer.ask(f"flood {self.row.wire} off")
        self.assertEqual(self.counters()["send_errors"], 0)
        numbers = []
        while select.select([self.tap], [], [], 0.1)[0]:
            numbers.append(struct.unpack("!Q", os.read(self.tap, 65550)[52:60])[0])
        self.assertEqual(numbers, list(range(len(numbers))))        # the flood's first ones
        self.assertTrue(100 <= len(numbers) < 10000, len(numbers))
        self.put(self.udp(9, b"x" * 18))
        self.assertEqual(self.until(lambda: self.counters()["sink"]["datagrams"]), 1)

    def until(self, look):
        for _ in range(1000):
            if look():
                break
            time.sleep(0.01)
        return look()

    def test_an_interface_that_is_not_there(self):
        with self.assertRaisesRegex(SvioError, "ended unexpectedly") as caught:
            latency.WirePeer(["w,if:nowhere,10.0.0.1"]).close()
        self.assertIn('there is no interface "nowhere": No such device', caught.exception.detail)


class Lines(unittest.TestCase):
    def line(self, name):
        row, = lab.nics((name,), Path("/x"))
        return row.netdev(), row.device(), row.peer_argument(), row.index

    def test_rows_on_a_tap(self):
        for name, vhost in (("virtio-tap", ""), ("vhost", ",vhost=on")):
            netdev, device, peer, index = self.line(name)
            self.assertEqual(netdev, f"tap,id=wire-{name},ifname=nic{index},script=no,downscript=no{vhost}")
            self.assertIn(f"virtio-net-pci,id=nic-{name},netdev=wire-{name},", device)
            self.assertEqual(peer, f"{name},if:nic{index},10.77.{index}.1")
        netdev, device, peer, index = self.line("svio-tap")
        self.assertIsNone(netdev)
        self.assertIn(f"svio-nic,id=nic-svio-tap,port=tap:nic{index},", device)

    def test_emulated_xen(self):
        """Its NIC is no PCI device, so it has no ROM to leave out."""
        netdev, device, _, index = self.line("xen-net-device")
        self.assertTrue(netdev.startswith("dgram,id=wire-xen-net-device,"))
        self.assertEqual(device, "xen-net-device,id=nic-xen-net-device,netdev=wire-xen-net-device,"
                         f"mac=52:54:00:73:76:{index:02x}")
        self.assertEqual(vm.acceleration("kvm-xen"), [
            "-accel", "kvm,xen-version=0x40011,kernel-irqchip=split", "-cpu", "host,+xen-vapic"])

    def test_vhost_that_is_not_there(self):
        for exists, access, why in ((False, False, "no /dev/vhost-net"), (True, False, "may not open"),
                                    (True, True, None)):
            with mock.patch.object(host.os.path, "exists", lambda path, found=exists: found), \
                    mock.patch.object(host.os, "access", lambda path, mode, found=access: found):
                found = lab.Lab(("virtio", "vhost"))
                names = [row.key for row in found._rows(Path("/x"))]
                self.assertEqual(names, ["virtio", "vhost"] if why is None else ["virtio"])
                self.assertIn(why or "", found.not_run.get("vhost", ""))

    def test_taps_that_cannot_be(self):
        """Their rows have a reason, and so has TCP; the others get their peer."""
        for exists, why in ((False, "this host has no /dev/net/tun (modprobe tun, where its kernel has it)"),
                            (True, "this user may not open /dev/net/tun")):
            found = lab.Lab(("virtio", "svio-tap"), tcp=True)
            found.rows = found._rows(Path("/x"))
            with mock.patch.object(host.os, "access", lambda path, mode: path != "/dev/net/tun"), \
                    mock.patch.object(host.os.path, "exists", lambda path, found=exists: found), \
                    mock.patch.object(latency, "WirePeer", lambda rows, program: [row.key for row in rows]), \
                    mock.patch.object(lab_host.shutil, "which", lambda tool: tool):
                self.assertEqual(found._peer(), ["virtio"])
            self.assertEqual((found.no_tcp, found.not_run["svio-tap"]), (why, why))
            self.assertEqual([row.key for row in found.rows], ["virtio"])

    def test_kernel_threads_of_vhost(self):
        """Told by their name, as kernels before 6.4 have them apart from QEMU; here a process has it."""
        code = "open('/proc/self/comm', 'w').write('vhost-4242')\nprint(flush=True)\n" \
            "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\n" \
            "import sys\nsys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as one:
            one.stdout.readline(), one.stdout.readline()
            self.assertEqual(list(lab_host.vhost_threads(4242)), ["vhost-4242"])
            self.assertGreaterEqual(lab_host.vhost_threads(4242)["vhost-4242"], 0.19)
            self.assertEqual(lab_host.vhost_threads(424), {})
            one.stdin.close()
        self.assertEqual(latency.cpu_difference({"vhost-9": 1.0}, {"vhost-9": 3.0})["qemu_other"], 2)


class Reading(unittest.TestCase):
    def test_iperf3(self):
        text = json.dumps({"end": {"sum_received": {"bits_per_second": 5e7}, "sum_sent": {"retransmits": 3}}})
        self.assertEqual(lab_host.parse(text), {"stream_mbit_per_s": 50, "retransmits": 3})
        for text, says in (('{"error": "unable to connect"}', "unable to connect"), ("{}", "did not measure"),
                           ("", "did not measure"), ('{"end": []}', "did not measure")):
            with self.assertRaisesRegex(SvioError, says):
                lab_host.parse(text)

    def test_pktgen(self):
        self.assertEqual(lab.parse_pktgen(PKTGEN), (51234, 1.00322))
        for text in ("", PKTGEN.replace("OK", "NONE"), PKTGEN.replace("1003220(", "0(")):
            with self.assertRaisesRegex(SvioError, "pktgen in the guest did not send"):
                lab.parse_pktgen(text)


if __name__ == "__main__":
    unittest.main()
