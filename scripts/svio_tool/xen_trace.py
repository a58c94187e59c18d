# SPDX-License-Identifier: GPL-2.0-or-later
"""What Xen does for its domains: hypercalls, privileged instructions that it emulates, and who runs when.

Xen's own trace (xentrace, xenalyze; Xen's public/trace.h): classes "sched" and "pv". What a guest does
besides its messages (timers, the agent that is asked, the start of its program) is in it, too: so a trace of
the same program, to which nobody answers, is taken from it, by time.
"""
import re

from svio_tool.ui import SvioError

FILE = "/tmp/xentrace"
MASK = "0x0022f000"         # TRC_SCHED and TRC_PV
BUFFER = 512                # pages of a CPU; Xen keeps the first size of a boot
LONGEST = 120               # seconds, should nobody end it
IDLE = 32767                # the domain that runs when none does
DOMAIN = re.compile(r"^\|-- Domain (\d+) --\|$", re.M)


def parse(text):
    """{"seconds", "runs": how often a domain began to run, "emulated": privileged instructions, "hypercalls":
    {name: how often}} of xenalyze's summary, all domains together."""
    spent = re.search(r"^Total time: ([\d.]+) seconds", text, re.M)
    parts = DOMAIN.split(text)[1:]
    if not spent or not parts:
        raise SvioError("Xen's trace says nothing of its domains", text[-2000:])
    found = {"seconds": float(spent[1]), "runs": 0, "emulated": 0, "hypercalls": {}}
    for number, part in zip(parts[::2], parts[1::2]):
        if int(number) == IDLE:
            continue
        found["runs"] += sum(map(int, re.findall(r"^ +running: +(\d+) ", part, re.M)))
        found["emulated"] += sum(map(int, re.findall(r"^ +emulate privop +(\d+)$", part, re.M)))
        for name, count in re.findall(r"^ +(\w+) +\[ *\d+\]: +(\d+)$", part, re.M):
            found["hypercalls"][name] = found["hypercalls"].get(name, 0) + int(count)
    return found


def per_message(busy, idle, messages):
    """The same for each message, without what the idle trace has in that time; "hypercalls" are a total,
    and "grants" and "events" those of them that are about grants and event channels."""
    share = busy["seconds"] / idle["seconds"]

    def left(one, other):
        return max(0.0, one - share * other) / messages     # of nothing, chance can leave less than nothing
    calls = {name: left(count, idle["hypercalls"].get(name, 0)) for name, count in busy["hypercalls"].items()}
    return {"hypercalls": sum(calls.values()), "grants": calls.get("grant_table_op", 0.0),
            "events": calls.get("evtchn_op", 0.0), "emulated": left(busy["emulated"], idle["emulated"]),
            "switches": left(busy["runs"], idle["runs"])}


class XenTrace:
    """For the length of the block; .found afterwards, see parse()."""

    def __init__(self, machine):
        self.machine, self.process, self.found = machine, None, None

    def __enter__(self):
        self.process = self.machine.spawn(f"exec xentrace -D -e {MASK} -S {BUFFER} -T {LONGEST} {FILE}")
        self.machine.run(f"until [ -s {FILE} ] || ! kill -0 {self.process.pid}; do usleep 20000; done")
        return self

    def __exit__(self, kind, *rest):
        self.machine.run(f"kill -INT {self.process.pid}", check=False)
        done = self.process.wait(30)
        if kind:        # another trace that began must not take this one's file for its own
            self.machine.run(f"rm -f {FILE}")
            return
        if done.rc:
            raise SvioError("xentrace does not run in dom0", done.err)
        self.found = parse(self.machine.run(f"xenalyze --svm-mode --summary {FILE} 2>&1; rm -f {FILE}",
                                            timeout=120).out)
