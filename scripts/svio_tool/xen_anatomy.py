# SPDX-License-Identifier: GPL-2.0-or-later
"""What a round trip is made of in Xen's machine: as anatomy.py for the other, and what Xen does for it.

Instructions are those of the whole machine: Xen's, dom0's and the guest's. Registers are of the NIC that
carries the frames: of netfront's, that is the card's PF, which dom0 drives.
"""
import functools
import re
import time
from dataclasses import dataclass

from svio_tool import anatomy, xen_trace
from svio_tool.lab import ranges
from svio_tool.latency import DISCARD_PORT
from svio_tool.ui import SvioError

UNANSWERED, NOBODY = "unanswered", "No messages were received from the server"
# netback copies by grants: each call has a list of struct gnttab_copy (Xen's public/grant_table.h), and each
# of them the length at this place.
COPY_BYTES, LENGTH_AT, MOST_COPIES = 40, 32, 24
SECONDS = 2             # of a window: these figures need no length
STARTED, ENDING = 0.2, 0.9      # of a window: its program runs for sure
TRACING = "/sys/kernel/tracing"
PROBE_SH = f"""
cd {TRACING} && echo 0 >events/enable && echo >trace &&
echo 'p:svio_copies gnttab_batch_copy count=%si:u32 {{lengths}}' >kprobe_events &&
echo 1 >events/kprobes/svio_copies/enable"""
PROBED_SH = f"cd {TRACING} && echo 0 >events/kprobes/svio_copies/enable && cat trace && echo >kprobe_events"


@dataclass(frozen=True)
class Row:
    """An approach: the wire that its frames come in at, and the PCI address of the NIC in dom0's terms, and
    its model."""
    key: str
    wire: str
    bdf: str
    nic: str = "svio-nic"


def probe_words():
    lengths = " ".join(f"l{n}=+{LENGTH_AT + n * COPY_BYTES}(%di):u16" for n in range(MOST_COPIES))
    return PROBE_SH.format(lengths=lengths)


def granted(text):
    """Bytes that were copied by grants, of the probe's lines in dom0's trace."""
    total = 0
    for count, lengths in re.findall(r"svio_copies: .* count=(\d+) (l0=.*)$", text, re.M):
        if int(count) > MOST_COPIES:
            raise SvioError(f"netback made {count} copies in one call, and only {MOST_COPIES} are seen")
        total += sum(map(int, re.findall(r"=(\d+)", lengths)[:int(count)]))
    return total


class Window:
    """What anatomy.py asks a lab for, of Xen's."""

    def __init__(self, xen):
        self.xen, self.vm, self.peer = xen, xen.vm, xen.peer
        self.rows, self.not_run = xen.rows(), {}
        self.idle = None

    def arm(self, plan):
        """Round trips for each of these rows, held; and those to which nobody answers, while they are not
        known."""
        programs = [(guest, "trips", self.xen.trips_program(guest.spec.wire_address))
                    for guest in (self.xen.guests[row.key][0] for row, _ in plan)]
        if self.idle is None:
            guest = programs[0][0]
            word = self.xen.trips_program(guest.spec.wire_address, port=DISCARD_PORT)
            programs.append((guest, UNANSWERED, word))
        self.xen.hold_programs(programs)

    def trips(self, row, wait=time.sleep):
        """Round trips in the guest, in a window that is waited for."""
        self.xen.run(self.xen.guests[row.key][:1], "trips", wait)

    def unanswered(self, row):
        try:
            self.xen.run(self.xen.guests[row.key][:1], UNANSWERED)
        except SvioError as error:      # sockperf finds that nobody answered
            if NOBODY not in error.detail:
                raise

    def messages(self, row):
        return anatomy.answered(self.peer, row.wire)

    def amid(self, row, context, *looks):
        """Round trips; [how many of them were made in the block of that context, and by how much what these
        functions say has grown in it]. It begins and ends while they are made: the start and the end of the
        guest's program are not in it."""
        seen = []

        def look():
            seen.append([self.messages(row), *(one() for one in looks)])

        def wait(seconds):
            begin = time.monotonic()
            time.sleep(seconds * STARTED)
            with context:
                look()
                time.sleep(max(0, begin + seconds * ENDING - time.monotonic()))
                look()
        self.trips(row, wait=wait)
        found = [new - old for old, new in zip(*seen)]
        if found[0] <= 0:
            raise SvioError(f"{row.key}: no message while they were counted")
        return found

    def trace_path(self):
        return self.xen.trace_path()

    # --- the windows --------------------------------------------------------------------------------

    def system_calls(self, _lab, row, found):
        strace = anatomy.Strace(self.vm.pid)
        messages, = self.amid(row, strace)
        found["system_calls"] = anatomy.each_call(strace.calls, messages)

    def hypercalls(self, _lab, row, found):
        """Xen's trace begins and ends with much ado in dom0, so it has all of the guest's program in it; one
        of the same program, to which nobody answers, is taken from it."""
        if self.idle is None:
            with xen_trace.XenTrace(self.vm) as idle:
                self.unanswered(row)
            self.idle = idle.found
        before = self.messages(row)
        with xen_trace.XenTrace(self.vm) as trace:
            self.trips(row)
        found["xen"] = xen_trace.per_message(trace.found, self.idle, self.messages(row) - before)

    def copies(self, _lab, row, found):
        guest = self.xen.guests[row.key][0]
        self.vm.run(probe_words())
        try:
            found["copies"] = anatomy.pinged(self.xen.copies_path(), self.peer, row.wire, row.key, guest.run,
                                             guest.spec.wire_address)
        finally:
            text = self.vm.run(PROBED_SH).out
        # Each message is a frame each way.
        found["copies"]["grants"] = granted(text) / (2 * found["copies"].pop("messages")
                                                     * anatomy.PING_FRAME)

    def accesses(self, _lab, row, found):
        places = ranges(self.vm.run(f"cat /sys/bus/pci/devices/{row.bdf}/resource").out)
        looks = []
        if self.xen.counts_instructions():
            looks.append(lambda: anatomy.read_instructions(self.xen.instructions_path()))
        tracing = anatomy.Tracing(self)
        messages, *instructions = self.amid(row, tracing, *looks)
        found.update(anatomy.each_access(row.nic, places, tracing.text, messages))
        if instructions:
            found["instructions"] = instructions[0] / messages


WINDOWS = {"system calls": Window.system_calls, "hypercalls": Window.hypercalls, "copies": Window.copies,
           "accesses and instructions": Window.accesses}       # the last one's counter slows the others


# Of what xen_trace.per_message() gives, for tables.
COLUMNS = {"hypercalls": "hypercalls", "grants": "of these grants", "events": "of these event channels",
           "emulated": "emulated instructions", "switches": "switches of domains"}


def measure(xen, report=lambda text: None, whats=tuple(WINDOWS)):
    """{path: {"accesses", "system_calls", "copies", "instructions", "xen": see xen_trace.per_message()}}
    for each 64-byte round trip (copies: of each frame), and {what: reason} of what could not be counted."""
    found, gone, window = {}, {}, Window(xen)
    length, xen.seconds = xen.seconds, SECONDS
    try:
        for what in whats:
            why = anatomy.strace_missing() if what == "system calls" else None
            if why:
                gone[what] = why
                continue
            if what == "accesses and instructions":
                if xen.counts_instructions():
                    anatomy.wake_counter(xen.instructions_path())
                else:
                    gone["guest instructions"] = anatomy.KVM_REASON
            anatomy.each(window, what, functools.partial(WINDOWS[what], window), found, gone, report,
                         armed=what != "copies")
    finally:
        xen.seconds = length
    return found, gone
