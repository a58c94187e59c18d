# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine as svio-board sees one: a process that attaches, shares memory and drives the function's queues.

The driver is that of the device tests; what it does over qtest there it does here on shared memory."""
import fcntl
import mmap
import os
import select
import socket
import sys
import threading
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent / "scripts"), str(TESTS / "device")]

import abi  # noqa: E402 (the path comes first)
from driver import Driver  # noqa: E402
from machine import RAM  # noqa: E402

PAGE = mmap.PAGESIZE
BAR = 1 << 32  # where the driver believes the registers to be
PATIENCE = 60  # only ends a test that hangs
OK = abi.SVIO_ST_OK


def request(name):
    """The number of a request."""
    return getattr(abi, f"SVIO_ATTACH_{name}")


def header(number, length, tag=7, status=0):
    return abi.svio_attach_header.pack(request=number, tag=tag, status=status, length=length)


class CutOff(Exception):
    """The board has closed the connection."""


class Memory:
    """A file that is the memory of a machine."""

    def __init__(self, size=RAM, seals=fcntl.F_SEAL_SHRINK):
        self.size = size
        self.fd = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size)
        if seals:
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)
        self.map = mmap.mmap(self.fd, size)

    def close(self):
        self.map.close()
        os.close(self.fd)


class Connection:
    """The protocol alone."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(PATIENCE)
        try:
            self.sock.connect(str(path))
        except BaseException:
            self.sock.close()
            raise
        self.tag = 0

    def close(self):
        self.sock.close()

    def send(self, packet, fds=()):
        try:
            socket.send_fds(self.sock, [packet], list(fds))
        except (BrokenPipeError, ConnectionResetError):
            raise CutOff from None

    def receive(self):
        try:
            packet = self.sock.recv(65536)
        except ConnectionResetError:
            raise CutOff from None
        if not packet:
            raise CutOff
        return packet

    def ask(self, name, payload=b"", fds=()):
        """(status, payload) of the answer."""
        self.tag += 1
        number = request(name)
        self.send(header(number, len(payload), self.tag) + payload, fds)
        packet = self.receive()
        size = abi.svio_attach_header.size
        answer = abi.svio_attach_header.unpack(packet[:size])
        assert (answer["request"], answer["tag"], answer["length"]) == (
            number | abi.SVIO_ATTACH_ANSWER, self.tag, len(packet) - size)
        return answer["status"], packet[size:]

    def order(self, name, payload=b"", fds=()):
        status, answer = self.ask(name, payload, fds)
        assert status == OK, f"{name}: {abi.name_of('SVIO_ST_', status)}"
        return answer

    def hello(self, features=0):
        hello = abi.svio_attach_hello
        answer = self.order("HELLO", hello.pack(version=abi.SVIO_ATTACH_VERSION, features=features))
        assert hello.unpack(answer) == {"version": abi.SVIO_ATTACH_VERSION, "vectors": abi.SVIO_VECTORS,
                                        "features": features & abi.SVIO_ATTACH_F_PAGES}
        return self

    def pages(self):
        """The descriptors that PAGES brings."""
        self.tag += 1
        self.send(header(request("PAGES"), 0, self.tag))
        packet, fds, _, _ = socket.recv_fds(self.sock, 65536, 16)
        assert packet == header(request("PAGES") | abi.SVIO_ATTACH_ANSWER, 0, self.tag), packet
        return fds

    def attach(self, name="", mac=None, pairs=1, size=256, machine="a test"):
        """The status; on success `slot` and `id` hold."""
        mac = bytes.fromhex(mac.replace(":", "")) if mac else bytes(6)
        status, answer = self.ask("ATTACH", abi.svio_attach_vif.pack(
            name=name.encode(), mac=mac, queue_pairs=pairs, queue_size=size, machine=machine.encode()))
        if status == OK:
            place = abi.svio_attach_place.unpack(answer)
            self.slot, self.id = place["slot"], place["id"]
        return status

    def share(self, regions):
        """[(address, size, offset, descriptor)]; the status."""
        payload = abi.svio_attach_memory.pack(count=len(regions))
        payload += b"".join(abi.svio_attach_region.pack(address=address, size=size, offset=offset)
                            for address, size, offset, _ in regions)
        return self.ask("MEMORY", payload, [region[3] for region in regions])[0]

    def count(self, name, count, fds=()):
        return self.ask(name, abi.svio_attach_count.pack(count=count), fds)[0]

    def read(self, offset):
        access = abi.svio_attach_register
        return access.unpack(self.order("READ", access.pack(offset=offset)))["value"]

    def write(self, offset, value):
        self.order("WRITE", abi.svio_attach_register.pack(offset=offset, value=value))


class SharedMemory:
    """What the driver takes for qtest: memory below BAR, registers from there on."""

    def __init__(self, connection, memory):
        self.connection, self.map = connection, memory.map
        self.lock = threading.Lock()

    def load(self, size, address):
        if address >= BAR:
            return self.connection.read(address - BAR)
        # A locked operation between what was published and this look at the other side's word.
        with self.lock:
            return int.from_bytes(self.map[address:address + size], "little")

    def store(self, size, address, value):
        if address >= BAR:
            self.connection.write(address - BAR, value)
        elif size == 4 and address % 4 == 0:
            # One store, not bytes one by one: the board looks at the same time.
            memoryview(self.map).cast("I")[address // 4] = value
        else:
            self.map[address:address + size] = value.to_bytes(size, "little")

    def store_line(self, size, address, value):
        return lambda: self.store(size, address, value)

    def read(self, address, length):
        return bytes(self.map[address:address + length])

    def write(self, address, data):
        self.map[address:address + len(data)] = data

    def write_line(self, address, data):
        return lambda: self.write(address, data)

    def fill(self, address, length, byte):
        self.map[address:address + length] = bytes([byte]) * length

    @staticmethod
    def batch(lines):
        for line in lines:
            line()


class Machine(Connection):
    """Attached, with memory, signals and doorbells; `driver` drives the function."""

    def __init__(self, path, alive=lambda: None, features=0, **wanted):
        super().__init__(path)
        self.alive = alive
        self.memory = Memory()
        self.signals = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(abi.SVIO_VECTORS)]
        self.bells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(2)]
        self.closed = False
        self.hello(features)
        status = self.attach(**wanted)
        assert status == OK, abi.name_of("SVIO_ST_", status)
        assert self.share([(0, RAM, 0, self.memory.fd)]) == OK
        assert self.count("SIGNALS", len(self.signals), self.signals) == OK
        assert self.count("BELLS", len(self.bells), self.bells) == OK
        assert self.count("DMA", 1) == OK
        self.qtest = SharedMemory(self, self.memory)
        self.machine = self
        self.bars = {abi.SVIO_BAR_REGS: BAR, abi.SVIO_BAR_MSIX: BAR}
        self.driver = Driver(self)

    def bell(self, direction):
        """As KVM rings: without a word over the socket."""
        os.eventfd_write(self.bells[direction], 1)

    def signalled(self, vector):
        """Waits for it."""
        ready, _, _ = select.select([self.signals[vector]], [], [], PATIENCE)
        assert ready, f"vector {vector} was not raised"
        return os.eventfd_read(self.signals[vector])

    def close(self):
        if self.closed:
            return
        self.closed = True
        super().close()
        for fd in self.signals + self.bells:
            os.close(fd)
        self.memory.close()
