# SPDX-License-Identifier: GPL-2.0-or-later
"""Direct access, and what it costs."""
import re
import time

from svio_tool import ui, xen_bench
from svio_tool.lessons.frame import Lesson, Outcome
from svio_tool.lessons.split import measure
from svio_tool.ui import SvioError
from svio_tool.xen_machine import DIRECT_BDF, Guest

ANOTHER = "/etc/xen/lesson-second.cfg"
FOLDER = "/mnt/lesson"


def second_owner(machine):
    """What xl says when another guest is to have the same NIC."""
    text = Guest("second", "direct", index=99).xl_config()
    machine.put(ANOTHER, text.encode())
    return machine.run(f"xl create -q {ANOTHER}; rc=$?; xl destroy second 2>/dev/null; exit $rc", timeout=180,
                       check=False)


def move(lab, path):
    """Saved and restored, as a migration does it, while the guest sends: the frames of it that reach the wire
    before and afterwards, in some seconds each, and what xl said."""
    guest, wire = lab.guests[path][0], xen_bench.WIRE.get(path, "wire")
    guest.run(f"setsid ping -i 0.1 {guest.spec.wire_address} >/dev/null 2>&1 </dev/null &")
    before = frames(lab, wire)
    name = guest.name
    done = lab.vm.run(f"mkdir -p {FOLDER} && mount -t tmpfs -o size=600m none {FOLDER} || exit 1\n"
                      f"xl save {name} {FOLDER}/image && xl restore {FOLDER}/image; rc=$?\n"
                      f"umount {FOLDER}; exit $rc", timeout=300, check=False)
    if done.rc:
        raise SvioError(f"Guest {name} could not be saved and restored", done.out + done.err)
    return {"before": before, "after": frames(lab, wire), "output": done.out + done.err}


def frames(lab, wire, enough=10, tries=75):
    """Frames that come to the peer: until enough have come, or none did for many seconds."""
    first = lab.peer.ask("counters")["wires"][wire]["received"]
    for _ in range(tries):
        time.sleep(0.2)
        count = lab.peer.ask("counters")["wires"][wire]["received"] - first
        if count >= enough:
            break
    return count


def first_error(done):
    """What went wrong first; the rest of xl's lines follow from it."""
    lines = [line.strip() for line in (done.out + done.err).splitlines() if line.strip()]
    found = next((line for line in lines if "error" in line), lines[0] if lines else "(nothing)")
    return re.sub(r"^libxl: error: \S+ ", "", found)


def run(context):
    outcome = Outcome()
    lab = context.xen()
    found = {}
    for path, text in (("split", "the split driver"), (xen_bench.DIRECT, "a NIC of the guest's own")):
        with ui.Progress(f"round trips through {text}"):
            found[path] = measure(lab, path, context.rounds)
    with ui.Progress("a second guest is to have the NIC as well"):
        second = second_owner(lab.vm)
    moved = {}
    for path in found:
        with ui.Progress(f"the guest of {path} is saved and restored while it sends, as in a migration"):
            moved[path] = move(lab, path)
    outcome.head = ["", "p50 us", "dom0's event channels", "the guest's interrupts", "dom0's CPU s"]
    outcome.rows = [[name, f"{one['p50_us']:,.0f}", f"{one['dom0_events']:.2f}",
                     f"{one['guest_interrupts']:.2f}", f"{one['dom0_cpu_s']:.1f}"] for name, one in
                    zip(("split driver", "e1000e given away"), found.values())]
    outcome.figures = {**found, "moved": moved,
                       "second_owner": {"status": second.rc, "said": first_error(second),
                                        "output": second.out + second.err}}
    direct = found[xen_bench.DIRECT]
    outcome.expect(direct["dom0_events"] < 0.1 <= found["split"]["dom0_events"],
                   f"dom0 is off the path: {direct['dom0_events']:.2f} of its event channels in a round "
                   f"trip, where the split driver has {found['split']['dom0_events']:.1f}.")
    outcome.expect(second.rc != 0,
                   f"The device cannot be shared: for a second guest with {DIRECT_BDF} xl says "
                   f"\"{first_error(second)}\".")
    split, own = (moved[path]["after"] for path in found)
    outcome.expect(split > 0 and own == 0,
                   "Both guests were saved and restored while they sent, as in a migration. Of the one "
                   f"on the split driver {split} frames came to the wire afterwards (netfront found its "
                   f"new backend); of the one with a NIC of its own {own}: what was in the device did "
                   "not come along.")
    outcome.notes.append("The IOMMU holds the NIC's DMA to its owner's memory: without one, Xen does "
                         "not hand a device over at all. What the guest sends (addresses, VLANs, rates) "
                         "nobody checks any more.")
    return outcome


LESSON = Lesson("direct-access", "Direct access and what it costs",
                "Give the guest the whole NIC: dom0 is out of the way. What has been given up for it?",
                4, ("xen-image",), ("scripts/svio bench --quick --only virtio   (its last rows are Xen's)",),
                run, ("split", xen_bench.DIRECT))
