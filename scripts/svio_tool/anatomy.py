# SPDX-License-Identifier: GPL-2.0-or-later
"""What a message is made of: accesses of the guest that trap into QEMU, QEMU's system calls,
instructions that the guest executes, and on the board the times from stage to stage.

Copies are counted in QEMU, of frames that are large enough to be told from its structures.

All are counted in short windows of their own, since counting slows what is counted; the counts for each
message stay what they are, but for a core that polls, whose empty looks grow with the time.
"""
import collections
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

from svio_tool.latency import HEADERS, go_words
from svio_tool.ui import SvioError

ACCESSES = ("memory_region_ops_read", "memory_region_ops_write")
# A doorbell of virtio's is an ioeventfd: QEMU takes it before it traces an access, and its handler says it.
NOTIFY = "virtio_queue_notify"
EVENTS = (*ACCESSES, NOTIFY)
ACCESS = re.compile(rf"({'|'.join(ACCESSES)}) cpu -?\d+ mr 0x[0-9a-f]+ addr 0x([0-9a-f]+) ")
WRITE = re.compile(rf"{ACCESSES[1]} cpu -?\d+ mr 0x[0-9a-f]+ addr 0x([0-9a-f]+) value 0x([0-9a-f]+) ")
# Registers by which drivers of Linux tell these NICs of new descriptors: places in the first of their ranges
# (tails of send and receive rings; e1000's, also those of igb's VF, and vmxnet3's), and bits of the value
# without which it is no doorbell (pcnet's transmit demand in CSR0, behind its data port), if there are any.
E1000_BELLS = {0x2818: 0, 0x3818: 0}
BELLS = {"pcnet": {0x10: 0x8}, "e1000": E1000_BELLS, "e1000e": E1000_BELLS, "igb": E1000_BELLS,
         "vmxnet3": {0x600: 0, 0x800: 0, 0xa00: 0}}
CALL = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", re.M)


def count_accesses(text, places):
    """{"reads", "writes"} of QEMU's trace within these [(first, last)] addresses."""
    found = {"reads": 0, "writes": 0}
    for event, address in ACCESS.findall(text):
        at = int(address, 16)
        if any(begin <= at <= end for begin, end in places):
            found["reads" if event.endswith("read") else "writes"] += 1
    return found


def count_notifies(text):
    """Doorbells of the virtio device that has most in QEMU's trace: the agent's serial port is another."""
    counts = collections.Counter(re.findall(rf"{NOTIFY} vdev (0x[0-9a-f]+)", text))
    return max(counts.values(), default=0)


def count_doorbells(text, places, nic):
    """Writes of QEMU's trace that tell this NIC of new descriptors; None of one whose are not known."""
    if nic.startswith("virtio"):
        return count_notifies(text)
    bells = BELLS.get(nic)
    if bells is None:
        return None
    begin = places[0][0]
    found = ((int(address, 16) - begin, int(value, 16)) for address, value in WRITE.findall(text))
    return sum(offset in bells and value & bells[offset] == bells[offset] for offset, value in found)


def parse_strace(text):
    """{system call: how often} of strace -c."""
    return {name: int(count) for count, name in CALL.findall(text) if name != "total"}


class Tracing:
    """QEMU's own trace events, on for the length of the block; .text is what they said."""

    def __init__(self, lab):
        self.lab, self.path, self.text = lab, lab.trace_path(), ""

    def _set(self, on):
        for event in EVENTS:
            self.lab.vm.qmp("trace-event-set-state", name=event, enable=on)

    def __enter__(self):
        self.begin = self.path.stat().st_size if self.path.exists() else 0
        self._set(True)
        return self

    def __exit__(self, *what):
        self._set(False)
        if not self.path.exists():
            return
        with open(self.path, errors="replace") as handle:
            handle.seek(self.begin)
            self.text = handle.read()


class Strace:
    """strace -c of all of QEMU's threads, for the length of the block; .calls afterwards."""

    def __init__(self, pid):
        self.pid, self.process, self.calls = pid, None, {}

    def __enter__(self):
        self.process = subprocess.Popen(["strace", "-c", "-f", "-p", str(self.pid)], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                        start_new_session=True)
        while not self._attached():
            if self.process.poll() is not None:
                raise SvioError("strace does not run here", self.process.stderr.read())
            time.sleep(0.01)
        return self

    def _attached(self):
        """All threads: each has its own tracer."""
        for status in Path(f"/proc/{self.pid}/task").glob("*/status"):
            try:
                if f"TracerPid:\t{self.process.pid}\n" not in status.read_text():
                    return False
            except (FileNotFoundError, ProcessLookupError):
                continue        # it has ended
        return True

    def __exit__(self, *what):
        self.process.send_signal(signal.SIGINT)
        try:
            _, said = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, said = self.process.communicate()
        self.calls = parse_strace(said)


COUNTED = ("accesses", "system calls")
TRIES = 3


def strace_missing():
    return None if shutil.which("strace") else "strace is not installed (apt-get install strace)"


def measure(lab, report=lambda text: None, whats=COUNTED):
    """{approach: {"accesses": ..., "system_calls": ..., "interrupts": ...} for each 64-byte round trip}, and
    {what: reason} of what could not be counted."""
    found, gone = {}, {}
    why = strace_missing()
    if "system calls" in whats and why:
        gone["system calls"] = why
    windows = {"accesses": _traced, "system calls": _straced}
    for what in whats:
        if what not in gone:
            each(lab, what, windows[what], found, gone, report)
    return found, gone


def each(lab, what, window, found, gone, report, armed=True, last=None):
    """A window of each NIC, into `found`; why one was in vain, into `gone`. "armed": with sockperf. "last":
    the window of the last try, for a NIC with which none came to its end."""
    rows = [row for row in lab.rows if row.key not in lab.not_run]
    for number in range(TRIES):     # a NIC that loses a message (pcnet) makes sockperf wait for ever
        if last and number == TRIES - 1:
            window = last
        if armed and rows:
            report("start-up of the guest's programs")
            lab.arm([(row, "64") for row in rows])
        failed = {}
        for row in rows:
            report(f"{row.key}, {what}")
            try:
                window(lab, row, found.setdefault(row.key, {}))
            except SvioError as error:
                lab.vm.check_alive()
                failed[row.key] = error.sentence
        rows = [row for row in rows if row.key in failed]
    gone.update({f"{what} of {key}": why for key, why in failed.items()})


def _straced(lab, row, found):
    strace = Strace(lab.vm.pid)
    cell = lab.cell(row, "64", during=strace)
    found["system_calls"] = each_call(strace.calls, cell["messages"])


def each_call(calls, messages):
    """{system call: how often for a message}, the most frequent first, without the rare ones."""
    return {name: count / messages for name, count in sorted(calls.items(), key=lambda pair: -pair[1])
            if count / messages >= 0.01}


def each_access(nic, places, text, messages):
    """"accesses" and, where they can be told, "doorbells" for a message, of QEMU's trace."""
    counts, bells = count_accesses(text, places), count_doorbells(text, places, nic)
    if nic.startswith("virtio"):
        counts["writes"] += bells
    found = {"accesses": {name: count / messages for name, count in counts.items()}}
    if bells is not None:
        found["doorbells"] = bells / messages
    return found


def _keep_accesses(lab, row, text, messages, found):
    """vhost's doorbells go to the host's kernel past QEMU: they are not seen."""
    if row.port != "vhost":
        found.update(each_access(row.nic, lab.resources[row.key], text, messages))


def _traced(lab, row, found, wait=time.sleep):
    """A cell under QEMU's trace."""
    tracing = Tracing(lab)
    cell = lab.cell(row, "64", wait, tracing)
    _keep_accesses(lab, row, tracing.text, cell["messages"], found)
    found["interrupts"] = cell["interrupts"] / cell["messages"]
    return cell


# --- in a machine of its own, as the counting cannot be switched off there -------------------------

KVM_REASON = "under KVM the guest's instructions are the CPU's, and QEMU does not see them"
AWAKE = 60                  # seconds that the counter may take to begin
SAMPLES = (0.5, 0.9)        # of a window: sockperf is past its warm-up, and not yet at its end


def read_instructions(path):
    """Instructions that the guest's CPUs have executed so far."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(5)
        try:
            link.connect(str(path))
            text = link.makefile().readline()
            return sum(int(word) for word in text.split()) if text.strip() else 0
        except (OSError, ValueError) as error:
            raise SvioError("The counter of instructions does not answer", str(error)) from error


def wake_counter(path):
    """QEMU's code counts from the first look on, as soon as a vCPU has been idle."""
    end = time.monotonic() + AWAKE
    while not read_instructions(path):
        if time.monotonic() > end:
            raise SvioError("The counter of instructions does not begin to count")
        time.sleep(0.1)


def answered(peer, wire):
    """Datagrams that the peer has answered on this wire so far."""
    return peer.ask("counters")["wires"][wire]["udp_echo"]


class Instructions:
    """Sampled twice within a window, with the messages that the peer has answered."""

    def __init__(self, lab, row):
        self.lab, self.row, self.samples = lab, row, []

    def sample(self):
        self.samples.append((read_instructions(self.lab.instructions_path()),
                             answered(self.lab.peer, self.row.wire)))

    def wait(self, seconds):
        """In place of a sleep of the window's length."""
        begin = time.monotonic()
        for part in (*SAMPLES, 1):
            time.sleep(max(0, begin + part * seconds - time.monotonic()))
            if part != 1:
                self.sample()

    def per_message(self):
        (first, old), (last, new) = self.samples
        if new <= old:
            raise SvioError(f"{self.row.key}: no message between two looks at the counter")
        return (last - first) / (new - old)


def measure_counting(lab, report=lambda text: None):
    """{approach: {"accesses", "interrupts" and "instructions" for each 64-byte round trip, "copies" of each
    frame, "stage_times": {stage: histogram}}}, and {what: reason} of what could not be counted."""
    found, gone = {}, {}
    each(lab, "copies", _copied, found, gone, report, armed=False)
    if lab.counts_instructions():
        wake_counter(lab.instructions_path())
    else:
        gone["guest instructions"] = KVM_REASON
    each(lab, "accesses and guest instructions", _counted, found, gone, report, last=_counted_until_it_stalls)
    return found, gone


# Of ICMP, so that nothing in the guest has to warm up; and of their frames.
PINGS, PING_BYTES = 100, 1372
PING_FRAME = PING_BYTES + HEADERS       # ICMP's header is as long as UDP's


def read_copies(path):
    """Bytes that QEMU has copied so far: (in its memory, between it and the kernel by system calls)."""
    try:
        _, copied, _, moved = struct.unpack("=4Q", path.read_bytes())
    except (OSError, struct.error) as error:
        raise SvioError("QEMU's copies are not counted", str(error)) from error
    return copied, moved


def pinged(path, peer, wire, key, run, address):
    """How often a frame is copied on its way between the guest and the wire, as a mean of the two ways: in
    QEMU's memory, and by system calls of its own between it and the kernel; and "messages", how many were
    answered. run: in the guest."""
    def look():
        return (*read_copies(path), peer.ask("counters")["wires"][wire]["icmp_echo"])
    before = look()
    run(f"ping -q -c {PINGS} -i 0.002 -W 1 -s {PING_BYTES} {address}", check=False)
    copied, moved, messages = (new - old for old, new in zip(before, look()))
    if messages < PINGS / 2:
        raise SvioError(f"{key}: {messages} of {PINGS} messages were answered")
    sent = 2 * messages * PING_FRAME
    return {"memory": copied / sent, "system_calls": moved / sent, "messages": messages}


def _copied(lab, row, found):
    counted = pinged(lab.copies_path(), lab.peer, row.wire, row.key, lab.vm.run, row.peer_ip)
    found["copies"] = {name: counted[name] for name in ("memory", "system_calls")}


def _counted(lab, row, found):
    counter, counts = Instructions(lab, row), lab.counts_instructions()
    cell = _traced(lab, row, found, counter.wait if counts else time.sleep)
    if counts:
        found["instructions"] = counter.per_message()
    if cell.get("stage_times"):
        found["stage_times"] = cell["stage_times"]


LOOK, QUIET, LEAST = 0.02, 25, 20       # seconds between looks, of them without a message, and messages


def _counted_until_it_stalls(lab, row, found):
    """The same of a NIC that loses a message before the window ends: of those until then."""
    lab.peer.ask("reset")
    seen, quiet, counts = [], 0, lab.counts_instructions()
    end = time.monotonic() + lab.seconds + QUIET * LOOK
    tracing = Tracing(lab)
    with tracing:
        process = lab.vm.spawn(go_words(f"{row.wire}-64"))
        while time.monotonic() < end and quiet < QUIET:
            time.sleep(LOOK)
            messages = answered(lab.peer, row.wire)
            if messages > (seen[-1][1] if seen else 0):
                seen.append((read_instructions(lab.instructions_path()) if counts else 0, messages))
                quiet = 0
            else:
                quiet += bool(seen)
    process.kill()
    if not seen or seen[-1][1] - seen[0][1] < LEAST:
        raise SvioError(f"{row.key}: it stalls after {seen[-1][1] if seen else 0} messages")
    (first, old), (last, new) = seen[0], seen[-1]
    _keep_accesses(lab, row, tracing.text, new, found)
    if counts:
        found["instructions"] = (last - first) / (new - old)
