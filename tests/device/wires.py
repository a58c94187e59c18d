# SPDX-License-Identifier: GPL-2.0-or-later
"""The other end of the wire, in the hands of the test, and frames to send over it."""
import random
import select
import socket
import threading
import time

import abi
from qtest import DEADLINE

MAC = bytes.fromhex("525400510001")
PEER = bytes.fromhex("525400510099")


def frame(length, seed=0, to=MAC, source=PEER, kind=0x88b5):
    """An Ethernet frame (of an experimental type) whose bytes follow from `seed`."""
    head = to + source + kind.to_bytes(2, "big")
    return (head + random.Random(seed).randbytes(max(0, length - len(head))))[:length]


class DgramWire:
    """Unix datagrams, each a frame: for `-netdev dgram` and for `port=dgram:`."""

    def __init__(self, folder, name="wire"):
        self.folder = folder
        self.local, self.remote = f"{folder}/{name}-qemu", f"{folder}/{name}-peer"
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.sock.bind(self.remote)
        self.sock.setblocking(False)

    def netdev(self, name="n0"):
        return ["-netdev", f"dgram,id={name},local.type=unix,local.path={self.local},"
                f"remote.type=unix,remote.path={self.remote}"]

    def native(self):
        """For a -device line: a comma inside of a value is written twice."""
        return f"port=dgram:{self.local},,{self.remote}"

    def send(self, data, timeout=DEADLINE):
        """False if the other side does not take it in time."""
        end = time.monotonic() + timeout
        while True:
            try:
                self.sock.sendto(data, self.local)
                return True
            except BlockingIOError:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                # Writable says nothing here: it is the receiver's queue that is full.
                time.sleep(min(left, 0.001))

    def receive(self, timeout=DEADLINE):
        """The next frame, None if none comes in time."""
        if not select.select([self.sock], [], [], timeout)[0]:
            return None
        return self.sock.recv(1 << 17)

    def drain(self):
        count = 0
        while self.receive(0) is not None:
            count += 1
        return count

    def close(self):
        self.sock.close()


class Background:
    """Sends frames from a thread of its own until all are gone or stop() is called."""

    def __init__(self, wire, frames, drains=False):
        self.wire = wire
        self.frames = frames
        self.drains = drains
        self.sent = 0
        self.stopping = False
        self.error = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            for data in self.frames:
                while not self.stopping and not self.wire.send(data, 0.05):
                    if self.drains:
                        self.wire.drain()
                if self.stopping:
                    return
                self.sent += 1
                if self.drains:
                    self.wire.drain()
        except OSError as error:
            self.error = error  # QEMU has closed its socket

    def stop(self):
        self.stopping = True
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive(), "the flooding thread hangs"

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        self.stop()


def flood(wire, to=MAC, sizes=(60, 200, 1514, 2900), drains=False):
    """Frames without end."""
    def forever():
        number = 0
        while True:
            yield frame(sizes[number % len(sizes)], number % 64, to)
            number += 1
    return Background(wire, forever(), drains)


def checksum(data):
    total = sum(int.from_bytes(data[i:i + 2].ljust(2, b"\0"), "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def arp_request(mac, source, target):
    return (b"\xff" * 6 + mac + b"\x08\x06" + b"\0\1\x08\0\6\4\0\1" + mac + bytes(source) + b"\0" * 6 +
            bytes(target))


def dhcp_discover(mac, transaction):
    bootp = (b"\1\1\6\0" + transaction + b"\0" * 4 + b"\0" * 16 + mac.ljust(16, b"\0") + b"\0" * 192 +
             bytes.fromhex("63825363") + b"\x35\1\1\xff")
    udp = b"\0\x44\0\x43" + (8 + len(bootp)).to_bytes(2, "big") + b"\0\0" + bootp
    head = b"\x45\0" + (20 + len(udp)).to_bytes(2, "big") + b"\0\0\0\0\x40\x11\0\0" + b"\0" * 4 + b"\xff" * 4
    head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
    return b"\xff" * 6 + mac + b"\x08\0" + head + udp


assert len(frame(abi.SVIO_FRAME_MIN)) == abi.SVIO_FRAME_MIN
