# SPDX-License-Identifier: GPL-2.0-or-later
"""Full emulation and its traps."""
from svio_tool.lessons.frame import Lesson, Outcome, traps, trip_table, trips

NAMES = ("e1000", "virtio", "svio-native")
COLUMNS = (("p50_us", "p50 us", ",.0f"), ("reads", "reads that trap", ".2f"),
           ("writes", "writes that trap", ".2f"), ("interrupts", "interrupts", ".2f"),
           ("switches", "context switches", ".1f"))


def run(context):
    outcome = Outcome()
    found = trips(context, NAMES)
    trip_table(outcome, found, COLUMNS)
    emulated, para, vif = (found[name] for name in NAMES)
    outcome.expect(traps(emulated) > traps(para) > traps(vif),
                   f"The e1000's driver touches registers {traps(emulated):.1f} times in a round trip, "
                   "and each touch leaves the guest for QEMU's model; virtio-net needs "
                   f"{traps(para):.1f} (its doorbell), a VIF whose core polls {traps(vif):.2f}.")
    outcome.expect(emulated["reads"] >= 1,
                   f"{emulated['reads']:.1f} of them are reads: the guest stands still until the model has "
                   "answered (why did the card interrupt?), where a queue in memory would have told it.")
    outcome.notes.append("The interface of real hardware was made for registers that cost little. An "
                         "emulator cannot change it, so each of them costs an exit, whatever the "
                         "emulator does well.")
    return outcome


LESSON = Lesson("emulation", "Full emulation and its traps",
                "How often does one message through an emulated e1000 stop the guest, and what for?",
                3, (),
                ("scripts/svio bench --quick --no-xen --only e1000,virtio,svio-native",
                 "scripts/svio vm --nic e1000"), run)
