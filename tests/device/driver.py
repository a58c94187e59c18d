# SPDX-License-Identifier: GPL-2.0-or-later
"""A driver of the device as SPEC.md describes it, with rings and buffers in the machine's RAM."""
import struct

import abi
from machine import RAM, wait_for

DRAM = 2 << 20  # what drivers allocate from begins here
FEATURES = abi.SVIO_F_RX_CHAIN | abi.SVIO_F_MODERATION | abi.SVIO_F_MULTICAST


class Driver:
    def __init__(self, function, memory=DRAM, arena=2 << 20):
        """memory: where it allocates from; arena: how much of that for frames that it sends."""
        self.arena = arena
        self.machine = function.machine
        self.qtest = function.machine.qtest
        self.function = function
        self.regs = function.bars[abi.SVIO_BAR_REGS]
        self.table = function.bars[abi.SVIO_BAR_MSIX] + abi.SVIO_MSIX_TABLE_OFFSET
        self.pba = function.bars[abi.SVIO_BAR_MSIX] + abi.SVIO_MSIX_PBA_OFFSET
        self.next_free = memory
        self.iova = 0  # what the device adds to reach an address, behind an IOMMU
        self.words = self.allocate(4096)
        self.send = self.receive = None

    # ---- memory and registers ----

    def allocate(self, length, align=4096):
        at = (self.next_free + align - 1) & ~(align - 1)
        self.next_free = at + length
        assert self.next_free <= RAM
        self.qtest.fill(at, length, 0)
        return at

    def read(self, register):
        return self.qtest.load(4, self.regs + register)

    def write(self, register, value):
        self.qtest.store(4, self.regs + register, value & 0xffffffff)

    @property
    def status(self):
        return self.read(abi.SVIO_REG_STATUS)

    def wait(self, condition, what):
        return wait_for(condition, what, alive=self.machine.alive)

    # ---- life ----

    def reset(self):
        self.write(abi.SVIO_REG_CONTROL, abi.SVIO_CONTROL_RESET)
        self.wait(lambda: self.status & abi.SVIO_STATUS_READY, "READY after reset")

    def negotiate(self, features=FEATURES):
        """True if the device accepts the subset."""
        self.write(abi.SVIO_REG_DRIVER_FEATURES_LO, features)
        self.write(abi.SVIO_REG_DRIVER_FEATURES_HI, features >> 32)
        self.write(abi.SVIO_REG_CONTROL, abi.SVIO_CONTROL_FEATURES_OK)
        return bool(self.status & abi.SVIO_STATUS_FEATURES_OK)

    def run(self, on=True):
        self.write(abi.SVIO_REG_CONTROL, abi.SVIO_CONTROL_FEATURES_OK | (abi.SVIO_CONTROL_RUN if on else 0))

    def queues(self, send=64, receive=64, buffer=2048):
        """Makes both queues and enables them, with the receive queue full of buffers."""
        self.send = SendQueue(self, send)
        self.receive = ReceiveQueue(self, receive, buffer)

    def enable(self, fill=True):
        self.send.clear()
        self.receive.clear()
        if fill:
            self.receive.fill()
        for queue in (self.send, self.receive):
            state = queue.enable()
            assert state == abi.SVIO_QUEUE_RUNNING, f"queue state is {state:#x}"

    def bring_up(self, send=64, receive=64, buffer=2048, fill=True, features=FEATURES):
        """From any state to RUNNING; uses the queues that are there already."""
        self.reset()
        assert self.negotiate(features)
        if self.send is None:
            self.queues(send, receive, buffer)
        self.enable(fill)
        self.run()
        assert self.status & abi.SVIO_STATUS_RUNNING
        return self

    # ---- mailbox ----

    def command(self, opcode, data_addr=0, data_len=0, payload=b"", slot=abi.SVIO_SLOT_SELF, tag=0x1234):
        """The answer as a dictionary."""
        words = abi.svio_command.pack(opcode=opcode, tag=tag, status=0xffff, slot=slot, data_len=data_len,
                                      data_addr=data_addr, u=payload)
        box = self.regs + abi.SVIO_REG_MAILBOX
        self.qtest.batch([self.qtest.store_line(4, box + 4 * i, word)
                          for i, word in enumerate(struct.unpack("<16I", words))])
        self.write(abi.SVIO_REG_MAILBOX_BELL, 1)
        self.wait(lambda: self.read(abi.SVIO_REG_MAILBOX_STATE) == abi.SVIO_MAILBOX_DONE, "mailbox DONE")
        back = self.qtest.batch([f"readl {box + 4 * i:#x}" for i in range(16)])
        answer = abi.svio_command.unpack(struct.pack("<16I", *(int(word, 16) for word in back)))
        assert answer["opcode"] == opcode and answer["tag"] == tag
        return answer

    def order(self, opcode, **arguments):
        """Status of a command."""
        return self.command(opcode, **arguments)["status"]

    # ---- interrupts: each vector writes its number + 1 to a word of RAM ----

    def vectors(self):
        for vector in range(abi.SVIO_VECTORS):
            self.set_vector(vector)
        self.function.enable_msix()

    def set_vector(self, vector, masked=False):
        self.point_vector(vector, self.words + 4 * vector + self.iova, vector + 1, masked)

    def point_vector(self, vector, address, data, masked=False):
        entry = struct.pack("<QII", address, data, int(masked))
        at = self.table + 16 * vector
        for offset in range(0, 16, 4):
            self.qtest.store(4, at + offset, struct.unpack_from("<I", entry, offset)[0])

    def mask(self, vector, masked):
        self.qtest.store(4, self.table + 16 * vector + 12, int(masked))

    def pending(self, vector):
        return bool(self.qtest.load(4, self.pba) >> vector & 1)

    def signalled(self, vector):
        """Has this vector been raised since the last time that this was asked?"""
        at = self.words + 4 * vector
        value = self.qtest.load(4, at)
        assert value in (0, vector + 1), f"vector {vector} wrote {value:#x}"
        if value:
            self.qtest.store(4, at, 0)
        return bool(value)

    def wait_signal(self, vector):
        self.wait(lambda: self.signalled(vector), f"interrupt {vector}")

    # ---- messages ----

    def transmit(self, data, pieces=1):
        """Sends and waits for the completion."""
        self.send.send(data, pieces)
        self.send.wait_done()

    def expect(self, what="a frame"):
        """The bytes of the next frame that arrives."""
        return self.wait(self.receive.take, what)

    def snapshot(self):
        """All memory that the device was ever told about."""
        return self.qtest.read(self.words, self.next_free - self.words)


class Queue:
    def __init__(self, driver, direction, size):
        self.driver = driver
        self.qtest = driver.qtest
        self.direction = direction
        self.size = size
        self.base = driver.allocate(size * abi.svio_entry.size)
        self.event = driver.allocate(abi.svio_queue_event.size)
        self.vector = abi.SVIO_NO_VECTOR
        self.moderation = 0
        self.posted = 0  # next position to post

    def register(self, register):
        return abi.SVIO_QUEUE_REG(0, self.direction, register)

    def read(self, register):
        return self.driver.read(self.register(register))

    def write(self, register, value):
        self.driver.write(self.register(register), value)

    def configure(self, base=None, event=None, size=None):
        base = self.base + self.driver.iova if base is None else base
        event = self.event + self.driver.iova if event is None else event
        for register, value in (
                (abi.SVIO_QUEUE_BASE_LO, base), (abi.SVIO_QUEUE_BASE_HI, base >> 32),
                (abi.SVIO_QUEUE_EVENT_LO, event), (abi.SVIO_QUEUE_EVENT_HI, event >> 32),
                (abi.SVIO_QUEUE_SIZE, self.size if size is None else size),
                (abi.SVIO_QUEUE_VECTOR, self.vector), (abi.SVIO_QUEUE_MODERATION, self.moderation)):
            self.write(register, value)

    def enable(self, **where):
        """The state register afterwards."""
        self.configure(**where)
        self.write(abi.SVIO_QUEUE_CONTROL, abi.SVIO_QUEUE_ENABLE)
        return self.state

    def disable(self):
        self.write(abi.SVIO_QUEUE_CONTROL, 0)
        self.driver.wait(lambda: self.state == abi.SVIO_QUEUE_DISABLED, "queue DISABLED")

    @property
    def state(self):
        return self.read(abi.SVIO_QUEUE_STATE)

    def wait_error(self, code):
        self.driver.wait(lambda: abi.SVIO_QUEUE_STATE_OF(self.state) == abi.SVIO_QUEUE_ERROR, "a queue error")
        found = abi.SVIO_QUEUE_ERROR_OF(self.state)
        assert found == code, (f"queue error is {abi.name_of('SVIO_QERR_', found)} instead of "
                               f"{abi.name_of('SVIO_QERR_', code)}")

    def clear(self):
        self.posted = 0
        self.qtest.fill(self.base, self.size * abi.svio_entry.size, 0)
        self.qtest.fill(self.event, abi.svio_queue_event.size, 0)
        self.disarm()

    def slot(self, position):
        return self.base + (position & self.size - 1) * abi.svio_entry.size

    def event_word(self, name):
        return self.qtest.load(4, self.event + abi.svio_queue_event.offset(name))

    def arm(self, position):
        self.qtest.store(4, self.event + abi.svio_queue_event.offset("signal_at"), position & 0xffffffff)

    def disarm(self):
        """A position that was just passed: 2^32 completions away."""
        self.arm(-1)

    def bell(self):
        self.driver.write(abi.SVIO_BELL(0, self.direction), 1)

    def publish(self, entries, flags, bell=True):
        """Writes entries (without flags) from `posted` on, then their flags, head last; then rings."""
        begin = self.posted
        lines = []
        for n, entry in enumerate(entries):
            lines.append(self.qtest.write_line(self.slot(begin + n), entry[:28]))
        for n in reversed(range(len(entries))):
            lines.append(self.qtest.store_line(4, self.slot(begin + n) + 28, flags[n]))
        self.qtest.batch(lines)
        self.posted = begin + len(entries) & 0xffffffff
        if bell:
            self.ring_if_armed(begin)

    def ring_if_armed(self, begin):
        # The full fence lies in the round trip to QEMU.
        if abi.crossed(self.event_word("bell_at"), begin, self.posted):
            self.bell()


class SendQueue(Queue):
    def __init__(self, driver, size):
        super().__init__(driver, abi.SVIO_SEND, size)
        self.arena_size = driver.arena
        self.arena = driver.allocate(self.arena_size)
        self.used = 0

    def buffer(self, data):
        """The address (for the device) of a copy of `data`; good until a ring of later messages."""
        if self.used + len(data) > self.arena_size:
            self.used = 0
        at = self.arena + self.used
        self.qtest.write(at, data)
        self.used += len(data) + 63 & ~63
        return at + self.driver.iova

    @property
    def done(self):
        return self.event_word("done")

    def wait_done(self, position=None):
        position = self.posted if position is None else position
        self.driver.wait(lambda: self.done == position, f"completion of position {position}, state "
                         f"{self.state:#x}, done {self.done}")

    def wait_armed(self):
        """Arming the doorbell before its sleep is the last that the core writes there by itself."""
        self.driver.wait(lambda: self.event_word("bell_at") == self.posted, "the core to arm its doorbell")

    def post(self, pieces, flags=0, bell=True, more=None, **fields):
        """One message of (address, length) pieces."""
        self.driver.wait(lambda: (self.posted - self.done & 0xffffffff) + len(pieces) <= self.size,
                         "room in the send queue")
        entries = [abi.svio_entry.pack(addr=address, len=length, **fields) for address, length in pieces]
        words = []
        for n in range(len(pieces)):
            word = abi.posted(self.posted + n, self.size) | (flags if n == 0 else 0)
            words.append(word | (abi.SVIO_ENTRY_MORE if (n + 1 < len(pieces) or more) else 0))
        self.publish(entries, words, bell)

    def send(self, data, pieces=1, bell=True):
        at = self.buffer(data)
        cuts = [len(data) * n // pieces for n in range(pieces + 1)]
        self.post([(at + a, b - a) for a, b in zip(cuts, cuts[1:])], bell=bell)


class ReceiveQueue(Queue):
    def __init__(self, driver, size, length):
        super().__init__(driver, abi.SVIO_RECEIVE, size)
        self.length = length
        self.buffers = driver.allocate(size * length)
        self.next = 0  # to be looked at

    def clear(self):
        super().clear()
        self.next = 0

    def buffer(self, position):
        return self.buffers + (position & self.size - 1) * self.length + self.driver.iova

    def flags(self, position):
        return abi.SVIO_ENTRY_POSTED if abi.lap(position, self.size) else abi.SVIO_ENTRY_DONE

    def entry(self, position, address=None, length=None):
        return abi.svio_entry.pack(addr=self.buffer(position) if address is None else address,
                                   len=self.length if length is None else length,
                                   flags=self.flags(position))

    def fill(self):
        """All of a ring that is not enabled yet, in one write."""
        assert self.posted == 0
        self.qtest.write(self.base, b"".join(self.entry(position) for position in range(self.size)))
        self.posted = self.size

    def post(self, count=1, bell=True, **where):
        entries = [self.entry(self.posted + n, **where) for n in range(count)]
        self.publish(entries, [self.flags(self.posted + n) for n in range(count)], bell)

    def take(self, repost=True, loops=False):
        """The bytes of the next message, or None; its buffers go back to the device."""
        data, at = b"", self.next
        while True:
            if at == self.posted:
                return None
            entry = abi.svio_entry.unpack(self.qtest.read(self.slot(at), abi.svio_entry.size))
            if bool(entry["flags"] & abi.SVIO_ENTRY_DONE) != bool(abi.lap(at, self.size)):
                # The head is published last.
                assert at == self.next, "a chain is not complete though its head is"
                return None
            if loops:
                entry["flags"] &= ~abi.SVIO_ENTRY_LOOP
            assert entry["flags"] & ~abi.SVIO_ENTRY_MORE in (0, abi.SVIO_ENTRY_POSTED | abi.SVIO_ENTRY_DONE)
            assert entry["len"] <= self.length
            data += self.qtest.read(entry["addr"] - self.driver.iova, entry["len"])
            at = at + 1 & 0xffffffff
            if not entry["flags"] & abi.SVIO_ENTRY_MORE:
                break
        count = at - self.next & 0xffffffff
        self.next = at
        if repost:
            self.post(count)
        return data
