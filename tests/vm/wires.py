# SPDX-License-Identifier: GPL-2.0-or-later
"""The other end of a wire: frames by hand, the peer program, a second card, the user network."""
import contextlib
import queue
import random
import select
import socket
import threading
import time

from svio_tool.latency import WirePeer
from svio_tool.paths import GUEST_SLOWNESS

DEADLINE = 120 * GUEST_SLOWNESS
# Seconds between frames of a flood that leaves the guest time for other things: a command took it seconds.
PAUSE = 0.001
HOST_MAC = bytes.fromhex("027376696f10")
HOST_IP, GUEST_IP = (10, 88, 0, 1), (10, 88, 0, 2)


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


def text_of(address):
    return ".".join(map(str, address))


# --- frames ----------------------------------------------------------------------------------------

def frame(to, length=60, seed=0, kind=0x88b5, source=HOST_MAC):
    """A frame of an experimental type whose bytes follow from `seed`."""
    head = to + source + kind.to_bytes(2, "big")
    return head + random.Random(seed).randbytes(length - len(head))


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(int.from_bytes(data[i:i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return (~total & 0xffff).to_bytes(2, "big")


def udp(to, payload, port=9, source=HOST_IP, target=GUEST_IP, from_mac=HOST_MAC, from_port=4000):
    """A UDP datagram over IPv4 in a frame, without the optional checksum of UDP."""
    segment = from_port.to_bytes(2, "big") + port.to_bytes(2, "big") + (8 + len(payload)).to_bytes(2, "big")
    head = b"\x45\0" + (28 + len(payload)).to_bytes(2, "big") + b"\0\0\x40\0\x40\x11"
    addresses = bytes(source) + bytes(target)
    head += checksum(head + b"\0\0" + addresses) + addresses
    return (to + from_mac + b"\x08\0" + head + segment + b"\0\0" + payload).ljust(60, b"\0")


def udp_payload(data, port=None):
    """The payload of a UDP frame as above, None if it is something else (or for another port)."""
    if data[12:14] != b"\x08\0" or data[23] != 17:
        return None
    if port is not None and int.from_bytes(data[36:38], "big") != port:
        return None
    return data[42:34 + int.from_bytes(data[38:40], "big")]


# --- wires -----------------------------------------------------------------------------------------

class Wire:
    """What a card needs to be told: `netdev` is QEMU's argument for it or None, `words` goes into -device."""

    def __init__(self, netdev, words):
        self.netdev, self.words = netdev, words

    def close(self):
        pass


def dgram_ends(folder, name, native, near="vm", far="peer"):
    near, far = f"{folder}/{name}.{near}", f"{folder}/{name}.{far}"
    if native:
        # A comma inside of a value is written twice on QEMU's command line.
        return Wire(None, f"port=dgram:{near},,{far}")
    return Wire(f"dgram,id=net-{name},local.type=unix,local.path={near},remote.type=unix,remote.path={far}",
                f"netdev=net-{name}")


def cross(folder, name, native):
    """Two wires that are one: two cards of a VM see each other, without any switch."""
    one, other = (dgram_ends(folder, name, native, *ends) for ends in (("a", "b"), ("b", "a")))
    if not native:
        other.netdev = other.netdev.replace(f"id=net-{name}", f"id=net-{name}-b")
        other.words += "-b"
    return one, other


def user(name):
    return Wire(f"user,id=net-{name}", f"netdev=net-{name}")


class ByHand(Wire):
    """Each frame in the hands of the test."""

    def __init__(self, folder, name, native):
        ends = dgram_ends(folder, name, native)
        super().__init__(ends.netdev, ends.words)
        self.remote = f"{folder}/{name}.vm"
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # Room for whole floods: a blocked card must be the test's intention.
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.sock.bind(f"{folder}/{name}.peer")
        self.sock.setblocking(False)
        self.kept = None

    @contextlib.contextmanager
    def reading(self):
        """A thread reads all the while, so that a test that looks late does not hold up the guest."""
        kept, stopping = queue.SimpleQueue(), threading.Event()

        def run():
            while not stopping.is_set():
                if select.select([self.sock], [], [], 0.01)[0]:
                    kept.put(self.sock.recv(1 << 17))
        thread = threading.Thread(target=run, daemon=True)
        self.kept = kept
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join(DEADLINE)
            self.kept = None

    def try_send(self, data):
        """False: the other side takes nothing now."""
        try:
            self.sock.sendto(data, self.remote)
            return True
        except BlockingIOError:
            return False

    def send(self, data, timeout=DEADLINE):
        """Waits as long as the card holds the wire back."""
        end = time.monotonic() + timeout
        while not self.try_send(data):
            if time.monotonic() > end:
                raise AssertionError(f"the card took no frame for {timeout} s")
            # Writable says nothing here: it is the receiver's queue that is full.
            time.sleep(0.0005)

    def receive(self, timeout=DEADLINE):
        """The next frame, None if none comes in time."""
        if self.kept is not None:
            try:
                return self.kept.get(timeout > 0, timeout)
            except queue.Empty:
                return None
        if not select.select([self.sock], [], [], timeout)[0]:
            return None
        return self.sock.recv(1 << 17)

    def wait_for(self, wanted, what, timeout=DEADLINE):
        """The next frame for which wanted(frame) is true; others are forgotten."""
        end = time.monotonic() + timeout
        while True:
            data = self.receive(max(0, end - time.monotonic()))
            if data is None:
                raise AssertionError(f"{what}: nothing of that kind came within {timeout} s")
            if wanted(data):
                return data

    def drain(self):
        count = 0
        while self.receive(0) is not None:
            count += 1
        return count

    def close(self):
        self.sock.close()


class PeerProgram(Wire):
    """svio-wire-peer: a host that answers ARP, ping and UDP, and counts."""

    mac = "02:73:76:69:6f:01"
    ip, guest_ip = "10.77.1.1", "10.77.1.2"

    def __init__(self, folder, name, native):
        ends = dgram_ends(folder, name, native)
        super().__init__(ends.netdev, ends.words)
        self.name = name
        self.argument = f"{name},{folder}/{name}.peer,{folder}/{name}.vm,{self.ip}"
        self.program = WirePeer([self])

    def peer_argument(self):
        return self.argument

    def reset(self):
        self.program.ask("reset")

    def counters(self):
        return self.program.ask("counters")["wires"][self.name]

    def close(self):
        self.program.close()


class Flood:
    """Calls send(number) from a thread of its own, without end, until the block is left.

    `pause`: seconds between two calls. A slow guest has much longer ones in any case: one that only receives
    starves its own kernel's threads."""

    def __init__(self, send, pause=0.0):
        self.send, self.sent, self.error = send, 0, None
        self.pause = max(pause, PAUSE) * GUEST_SLOWNESS ** 2 if GUEST_SLOWNESS > 1 else pause
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            while not self.stopping.is_set():
                if self.pause:
                    time.sleep(self.pause)
                if self.send(self.sent):
                    self.sent += 1
                else:
                    time.sleep(0.0005)
        except OSError as error:
            self.error = error

    def stop(self):
        self.stopping.set()
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive(), "the flooding thread hangs"
        assert self.error is None, f"the flood broke off: {self.error}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *ignored):
        self.stop()
