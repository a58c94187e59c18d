# SPDX-License-Identifier: GPL-2.0-or-later
"""svio-wire-peer with a kernel behind it: who answers what, and what bench reads of iperf3 and pktgen."""
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from test_demo_stats import GUEST_MAC, checksum, ipv4  # noqa: E402 (the path comes first)
from svio_tool import lab, lab_host, latency, setup  # noqa: E402 (the path comes first)
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


class Behind(unittest.TestCase):
    """The test is the guest on the wire."""

    def setUp(self):
        if not os.path.exists("/dev/net/tun"):
            self.skipTest("this host has no /dev/net/tun")
        words = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--net", "true"]
        made = subprocess.run(words, capture_output=True, text=True, check=False)
        if made.returncode:
            self.skipTest(f"this host lets nobody make a network namespace: {made.stderr.strip()}")
        setup.ensure(["packages-bench"])
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
