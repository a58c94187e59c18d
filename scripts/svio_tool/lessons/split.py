# SPDX-License-Identifier: GPL-2.0-or-later
"""Paravirtualization and the split driver."""
from statistics import median

from svio_tool import ui
from svio_tool.lessons.frame import Lesson, Outcome


def measure(lab, path, rounds):
    """Figures of a round trip to the wire through one path of the Xen machine."""
    cells = [lab.one("rtt", path) for _ in range(rounds)]
    return {"p50_us": median([cell["p50_us"] for cell in cells]),
            "dom0_events": median([events(cell, "dom0", "event") for cell in cells]),
            "guest_interrupts": median([events(cell, f"{path}1", "event") + events(cell, f"{path}1", "device")
                                        for cell in cells]),
            "dom0_cpu_s": median([cell["cpu_s"]["dom0"] for cell in cells])}


def events(cell, domain, kind):
    """Event channels ("event") or interrupts of PCI devices ("device") of its NICs for each message."""
    counts = cell["interrupts"][domain]
    return sum(value for name, value in counts.items() if name.startswith(kind)) / cell["messages"]


def run(context):
    outcome = Outcome()
    lab = context.xen()
    with ui.Progress("dom0 while nothing is sent"):
        idle = lab.one("idle", "none", 0)["cpu_s"]["dom0"]
    with ui.Progress("round trips through netfront, netback and the bridge"):
        split = measure(lab, "split", context.rounds)
    outcome.head = ["", "p50 us", "dom0's event channels", "the guest's", "dom0's CPU s in a window"]
    outcome.rows = [["nothing sent", "-", "-", "-", f"{idle:.1f}"],
                    ["split driver", f"{split['p50_us']:,.0f}", f"{split['dom0_events']:.2f}",
                     f"{split['guest_interrupts']:.2f}", f"{split['dom0_cpu_s']:.1f}"]]
    outcome.figures = {"idle": {"dom0_cpu_s": idle}, "split": split}
    outcome.expect(split["dom0_events"] >= 1,
                   "Another domain takes part in each message: netback in dom0 is woken "
                   f"{split['dom0_events']:.1f} times in a round trip, to copy a frame out of the "
                   "guest's page (the grant table says that it may) or into it, and to give it to the "
                   "bridge.")
    outcome.expect(split["dom0_cpu_s"] > idle,
                   f"dom0 pays for it: {split['dom0_cpu_s']:.1f} s of CPU in the window in which it uses "
                   f"{idle:.1f} s when nothing is sent.")
    outcome.notes.append("No register traps any more: frontend and backend share queues in memory. What "
                         "is left is the domain in the middle, which has to be scheduled for each "
                         "message.")
    return outcome


LESSON = Lesson("split-driver", "Paravirtualization and the split driver",
                "netfront's guest touches no register. Who moves its messages, and who pays for that?",
                4, ("xen-image",),
                ("scripts/svio xen demo", "scripts/svio xen up --netfront 1 --vif 0; scripts/svio xen "
                                          "shell dom0"),
                run, ("split",))
