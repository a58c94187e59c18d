# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines that migrate: a driver goes along with its guest, and states are taken apart and put together."""
import select
import socket
import struct
import time
import zlib

import abi
from case import DeviceCase, MAC_TEXT
from driver import Driver
from machine import wait_for
from qtest import DEADLINE
from wires import MAC, PEER, frame

MAGIC = b"sviostat"


def is_announcement(data):
    return data is not None and data[12:14] == b"\x80\x35"


class MovingCase(DeviceCase):
    """One card on a wire whose peer is the test; self.machine is where the guest is now."""

    kind = "native"

    # ---- frames, but for announcements of where the card is now ----

    def next_frame(self):
        """The next frame of the guest's."""
        while is_announcement(data := self.wire.receive()):
            pass
        return data

    def assert_silence(self):
        while (data := self.wire.receive(0.1)) is not None:
            self.assertTrue(is_announcement(data), "a frame of the guest's came twice")

    def fill_the_wire(self):
        """The frames that the driver has posted until the wire and the ring took no more."""
        queue, posted = self.driver.send, []

        def full():
            return queue.posted - queue.done == queue.size
        while not full() or time.sleep(0.3) or not full():
            if not full():
                data = frame(5000 + len(posted), len(posted), to=PEER, source=MAC)
                queue.send(data)
                posted.append(data)
                self.assertLess(len(posted), 5000, "the wire never fills")
        return posted

    def check_out(self, data, pieces=1, driver=None):
        (driver or self.driver).transmit(data, pieces)
        self.assert_frame(self.next_frame(), data)

    # ---- machines ----

    def device_words(self, options=""):
        return f"svio-nic,id=svio0,mac={MAC_TEXT}" + ("," + options if options else "")

    def arguments(self, options="", wire=None):
        """For a machine whose card is on this wire."""
        wire = wire or self.wire
        device = self.device_words(options)
        if self.kind == "native":
            return ["-device", f"{device},{wire.native()}"]
        return [*wire.netdev(), "-device", f"{device},netdev=n0"]

    def start_source(self, options="", extra=()):
        self.wire = self.make_wire()
        self.extra = list(extra)
        self.machine = self.start(*self.arguments(options), *self.extra)
        self.function = self.machine.function()
        self.function.assign()
        self.driver = Driver(self.function)
        return self.driver

    def start_target(self, options="", uri=None):
        """A machine that waits for a guest. A netdev binds its socket at once, so it gets another path."""
        if self.kind == "netdev":
            self.moves = getattr(self, "moves", 0) + 1
            self.wire.new_local = f"{self.wire.local.split('+')[0]}+{self.moves}"
            old, self.wire.local = self.wire.local, self.wire.new_local
            try:
                words = self.arguments(options)
            finally:
                self.wire.local = old
        else:
            words = self.arguments(options)
        return self.start(*words, *self.extra, "-incoming", uri or "defer")

    def migration_state(self, machine=None):
        return (machine or self.machine).qmp.command("query-migrate").get("status")

    def wait_migrated(self, machine=None):
        machine = machine or self.machine

        def ended():
            state = self.migration_state(machine)
            return state if state in ("completed", "failed", "cancelled") else None
        found = wait_for(ended, "the end of the migration", alive=machine.alive)
        self.assertEqual(found, "completed", machine.qmp.command("query-migrate"))

    def migrate(self, options="", cont=True):
        """To a new machine, which becomes self.machine. Returns the old one, stopped for good."""
        source, target = self.machine, self.start_target(options)
        uri = f"unix:{target.folder}/incoming"
        target.qmp.command("migrate-incoming", {"uri": uri})
        source.qmp.command("migrate", {"uri": uri})
        self.wait_migrated(source)
        self.wait(lambda: target.qmp.command("query-status")["status"] == "running", "the guest to go on")
        self.take_along(target)
        return source

    def take_along(self, target):
        """The guest is on this machine now, and what is in its memory with it."""
        if self.kind == "netdev":
            self.wire.local = self.wire.new_local
        self.machine = self.function.machine = self.driver.machine = target
        self.driver.qtest = target.qtest
        for queue in (self.driver.send, self.driver.receive):
            if queue:
                queue.qtest = target.qtest

    def save_to(self, path):
        """The guest's state in a file; the machine stays stopped."""
        self.machine.qmp.command("migrate", {"uri": f"file:{path}"})
        self.wait_migrated()

    def facts(self):
        """All registers that can be read without consequence, and the counters of the VIF."""
        registers = [abi.SVIO_REG_STATUS, abi.SVIO_REG_CONTROL, abi.SVIO_REG_EVENT, abi.SVIO_REG_EVENT_VECTOR,
                     abi.SVIO_REG_DEVICE_FEATURES_LO, abi.SVIO_REG_DEVICE_FEATURES_HI,
                     abi.SVIO_REG_DRIVER_FEATURES_LO, abi.SVIO_REG_DRIVER_FEATURES_HI,
                     abi.SVIO_REG_QUEUE_PAIRS, abi.SVIO_REG_QUEUE_SIZE_MAX, abi.SVIO_REG_QUEUE_SIZE_HINT,
                     abi.SVIO_REG_MTU_MAX, abi.SVIO_REG_VIF_ID_LO, abi.SVIO_REG_MAC_LO, abi.SVIO_REG_MAC_HI,
                     abi.SVIO_REG_MAILBOX_STATE]
        registers += [abi.SVIO_REG_MAILBOX + 4 * n for n in range(16)]
        for direction in (abi.SVIO_SEND, abi.SVIO_RECEIVE):
            registers += [abi.SVIO_QUEUE_REG(0, direction, register) for register in (
                abi.SVIO_QUEUE_BASE_LO, abi.SVIO_QUEUE_BASE_HI, abi.SVIO_QUEUE_EVENT_LO,
                abi.SVIO_QUEUE_EVENT_HI, abi.SVIO_QUEUE_SIZE, abi.SVIO_QUEUE_VECTOR, abi.SVIO_QUEUE_CONTROL,
                abi.SVIO_QUEUE_STATE, abi.SVIO_QUEUE_POSITION, abi.SVIO_QUEUE_MODERATION)]
        found = {f"{register:#x}": self.driver.read(register) for register in registers}
        found.update(self.machine.vif())
        # How often a core armed a doorbell and whether it found room is of this process, not of the guest.
        for queue in (found["send"], found["receive"], *found.pop("queues")["0"].values()):
            for name in ("bells", "bells_armed", "full"):
                queue.pop(name, None)
        return found


# ---- a wire that is full without turning round and round ----

class Stream:
    """What came over one connection of a stream netdev: lengths (big endian) and frames."""

    def __init__(self, sock):
        self.sock, self.data = sock, b""

    def frame(self, timeout=DEADLINE):
        """The next frame; None if there is no whole one in time, or the connection is at its end."""
        end = time.monotonic() + timeout
        while len(self.data) < 4 or len(self.data) < 4 + int.from_bytes(self.data[:4], "big"):
            if not select.select([self.sock], [], [], max(0, end - time.monotonic()))[0]:
                return None
            more = self.sock.recv(1 << 16)
            if not more:
                return None
            self.data += more
        length = 4 + int.from_bytes(self.data[:4], "big")
        data, self.data = self.data[4:length], self.data[length:]
        return data

    def frames(self, at_most):
        found = []
        while len(found) < at_most and (data := self.frame(1)) is not None:
            found.append(data)
        return found


class StreamWire:
    def __init__(self, path):
        self.path, self.streams, self.local = path, [], path
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(path)
        self.sock.listen(4)
        self.sock.settimeout(DEADLINE)

    def accept(self):
        self.streams.append(Stream(self.sock.accept()[0]))

    def close(self):
        for sock in (self.sock, *(stream.sock for stream in self.streams)):
            sock.close()


# ---- states by hand ----

class Blob:
    """The board's state inside of a saved machine: sections that can be changed."""

    def __init__(self, stream):
        self.stream = bytes(stream)
        self.at = self.stream.index(MAGIC)
        self.length, = struct.unpack_from(">I", self.stream, self.at - 4)
        self.data = self.stream[self.at:self.at + self.length]
        self.version, = struct.unpack_from("<I", self.data, 8)
        self.sections = []
        at = 12
        while at < len(self.data):
            tag, version, flags, length = struct.unpack_from("<4sHHI", self.data, at)
            self.sections.append([tag, version, flags, bytearray(self.data[at + 12:at + 12 + length])])
            at += 12 + length
        assert self.sections.pop()[0] == b"END "

    def section(self, tag, nth=0):
        return [section for section in self.sections if section[0] == tag][nth]

    def build(self):
        """The bytes of the state, with a right checksum."""
        out = MAGIC + struct.pack("<I", self.version)
        for tag, version, flags, payload in self.sections:
            out += struct.pack("<4sHHI", tag, version, flags, len(payload)) + bytes(payload)
        return out + struct.pack("<4sHHII", b"END ", 1, 1, 4, zlib.crc32(out))

    def put(self, data, length=None):
        """The machine's whole state with this in place of the board's."""
        length = len(data) if length is None else length
        return (self.stream[:self.at - 4] + struct.pack(">I", length) + data +
                self.stream[self.at + self.length:])
