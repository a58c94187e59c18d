# SPDX-License-Identifier: GPL-2.0-or-later
"""The wires of svio-board that are libraries' or another host's: the user network, and udp."""
import os
import socket
import struct
import unittest

from attach_client import PATIENCE
from board_case import MACS, ProcessTest, mac_bytes, sanitized
from machine import wait_for
from wires import arp_request, checksum, dhcp_discover, frame

GATEWAY = bytes.fromhex("52550a000202")  # libslirp's


def udp(mac, own, to, payload, flags=0):
    """A datagram of a machine to (address, port) on the user network."""
    host, port = to
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 1, flags, 64, 17, 0, bytes(own),
                     bytes(host))
    ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
    return GATEWAY + mac + b"\x08\0" + ip + struct.pack(">HHHH", 4000, port, 8 + len(payload), 0) + payload


class TestUserNetwork(ProcessTest):
    """--port slirp."""
    OWN, HOST = (10, 0, 2, 15), (10, 0, 2, 2)

    def user(self, *arguments, options="", number=0):
        self.start("--port", "slirp" + options, *arguments)
        return self.running(number)

    def expect(self, machine, wanted):
        """The first frame for which wanted() is true; libslirp has some of its own."""
        while True:
            data = machine.driver.expect()
            if wanted(data):
                return data

    def meet(self, machine, number=0):
        """ARP both ways, so that frames find the machine."""
        mac = mac_bytes(MACS[number])
        machine.driver.transmit(arp_request(mac, self.OWN, self.HOST))
        answer = self.expect(machine, lambda data: data[12:14] == b"\x08\x06")
        self.assertEqual((answer[:6], answer[6:12]), (mac, GATEWAY))
        self.assertEqual(answer[20:42], b"\0\x02" + GATEWAY + bytes(self.HOST) + mac + bytes(self.OWN))
        return mac

    def host_socket(self):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(PATIENCE)
        return sock

    def check_datagrams(self, machine, mac):
        """To a socket of the host and back; the board may sleep before each of them."""
        sock = self.host_socket()
        for size in (1, 100, 1472):
            payload = bytes((size + n) % 251 for n in range(size))
            machine.driver.transmit(udp(mac, self.OWN, (self.HOST, sock.getsockname()[1]), payload))
            got, source = sock.recvfrom(2000)
            self.assertEqual(got, payload)
            sock.sendto(payload[::-1], source)
            answer = self.expect(machine, lambda data: data[12:14] == b"\x08\0" and data[23] == 17)
            self.assertEqual(answer[42:42 + size], payload[::-1])
            self.assertEqual((answer[26:30], answer[30:34]), (bytes(self.HOST), bytes(self.OWN)))

    def test_datagrams(self):
        for cores, poll in (("1", "500"), ("1", "0"), ("2", "0")):
            with self.subTest(cores=cores, poll=poll):
                machine = self.user("--cores", cores, "--poll-us", poll)
                self.check_datagrams(machine, self.meet(machine))
                machine.close()
                self._end(self.board)

    def test_addresses(self):
        """DHCP gives the first one, as QEMU's user network does."""
        machine = self.user()
        machine.driver.transmit(dhcp_discover(mac_bytes(MACS[0]), b"svio"))
        offer = self.expect(machine, lambda data: data[34:38] == b"\0\x43\0\x44")
        self.assertEqual(offer[58:62], bytes(self.OWN))

    def test_fragments_are_refused(self):
        """libslirp 4.7 can be crashed by them; all that is whole goes on."""
        machine = self.user()
        mac = self.meet(machine)
        for flags in (0x2000, 0x0001, 0x3fff):
            machine.driver.transmit(udp(mac, self.OWN, (self.HOST, 9), bytes(64), flags=flags))
        wait_for(lambda: self.board.counters(machine.slot)["drop_tx_port_error"] == 3, "the counted drops")
        self.assertEqual(self.board.ctl("port", "stats")["counters"],
                         {"unclaimed": 0, "answers_lost": 0, "fragments_refused": 3})
        self.check_datagrams(machine, mac)

    def test_forward(self):
        """From the host to a machine, through a sleeping board."""
        probe = self.host_socket()
        port = probe.getsockname()[1]
        probe.close()
        machine = self.user("--poll-us", "0", options=f":restrict=on,hostfwd=udp:127.0.0.1:{port}-:4000")
        self.meet(machine)
        sock = self.host_socket()
        sock.sendto(b"to the machine", ("127.0.0.1", port))
        data = self.expect(machine, lambda data: data[12:14] == b"\x08\0" and data[23] == 17)
        self.assertEqual((data[36:38], data[42:56]), (struct.pack(">H", 4000), b"to the machine"))


class TestUdp(ProcessTest):
    """--port udp: two boards, as if on two hosts."""

    def free_port(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            return sock.getsockname()[1]

    def test_two_boards(self):
        ends = [f"127.0.0.1:{self.free_port()}" for _ in range(2)]
        machines, top = [], self.folder
        for number in range(2):
            self.folder = os.path.join(top, str(number))
            os.mkdir(self.folder)
            self.start("--poll-us", str(500 * number), "--port",
                       f"udp:{ends[number]},{ends[1 - number]}")
            machines.append(self.running(number))
        self.check_way(*machines)
        self.check_way(*reversed(machines))
        # What others send to the wire does not come to the machine.
        data = frame(100, 9, to=mac_bytes(MACS[1]), source=mac_bytes(MACS[0]))
        host, port = ends[1].split(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(100):
                sock.sendto(data, (host, int(port)))
        wait_for(lambda: "of another sender" in self.board.said(), "the note of foreign datagrams")
        wait_for(lambda: self.board.ctl("port", "stats")["counters"]["foreign"] == 100, "all to be counted")
        self.check_way(*machines)
        self.assertEqual(self.board.counters(machines[1].slot)["rx_frames"], 8)
        machines[1].close()
        self.assertEqual(self.board.end(), 0)
        self.assertIn("100 datagrams of others", self.board.said())

    def test_frames_that_the_host_refuses(self):
        """To a broadcast address that the socket has no permission for: counted, and the machine goes on."""
        self.start("--port", f"udp:127.0.0.1:{self.free_port()},255.255.255.255:9")
        machine = self.running(0)
        for number in range(100):
            machine.driver.transmit(frame(100, number, to=mac_bytes(MACS[1]), source=mac_bytes(MACS[0])))
        wait_for(lambda: self.board.ctl("port", "stats")["counters"]["send_failed"] == 100,
                 "all to be counted")
        self.assertEqual(self.board.counters(machine.slot)["tx_frames"], 0)
        self.assertEqual(self.board.counters(machine.slot)["drop_tx_port_error"], 100)


sanitized(globals(), TestUserNetwork, TestUdp)


if __name__ == "__main__":
    unittest.main()
