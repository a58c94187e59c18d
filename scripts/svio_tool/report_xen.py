# SPDX-License-Identifier: GPL-2.0-or-later
"""The journeys of a message in Xen's machine, with what Xen and its domains said of themselves."""
import statistics

from svio_tool.lab_bench import XEN_NAMES, guest_of


def figures(cells):
    """What a round trip of 64 bytes costs: medians over the rounds, microseconds and numbers."""
    def median(value):
        return statistics.median(value(cell) / cell["messages"] for cell in cells)

    def signals(cell, domain, kind):
        return sum(count for name, count in cell["domains"]["interrupts"][domain].items()
                   if name.startswith(kind))

    guest = guest_of(cells[0]["domains"]["interrupts"])
    found = {"bells": median(lambda cell: cell.get("board", {}).get("bells", 0))}
    for part in ("on_board", "qemu_other", "peer"):
        found[f"{part}_us"] = median(lambda cell, part=part: cell["cpu_s"][part] * 1e6)
    for name, domain in (("guest", guest), ("dom0", "dom0")):
        found[f"{name}_us"] = median(lambda cell, domain=domain: cell["domains"]["cpu_s"][domain] * 1e6)
        # Signals of event channels, and interrupts of devices.
        for what, kind in (("events", "event"), ("interrupts", "device")):
            found[f"{name}_{what}"] = median(
                lambda cell, domain=domain, kind=kind: signals(cell, domain, kind))
    return found


def journey_parts(result, key):
    """(boxes, arrows) of an approach in Xen's machine, or None; see report_plots.journey()."""
    cells = [cell for cell in result["cells"].get("xen", ())
             if (cell["approach"], cell["kind"], cell["size"]) == (key, "rtt", 64)]
    if key not in XEN_NAMES.values() or not cells:
        return None
    one = figures(cells)
    peer = f"peer on the wire: {one['peer_us']:.0f} us of CPU"
    if key == "xen-split":
        boxes = (f"guest: sockperf, its kernel, netfront\n{one['guest_us']:,.0f} us of Xen's time",
                 f"dom0: netback, a bridge, the card's driver\n{one['dom0_us']:,.0f} us of Xen's time",
                 f"the card: {one['on_board_us']:,.0f} us of its on-board core\n{peer}")
        return boxes, ((f"{one['dom0_events']:.2f} events\nof dom0's",
                        f"{one['guest_events']:.2f} events\nof the guest's"),
                       (f"{one['bells']:.2f} doorbells",
                        f"{one['dom0_interrupts']:.2f} interrupts\nof dom0's"))
    if key == "xen-vif":
        carrier = ("an on-board core (a thread) polls the\nqueues and owns the wire\n"
                   f"{one['on_board_us']:,.0f} us of CPU")
        down = f"{one['bells']:.2f} doorbells"
    else:
        carrier = ("QEMU's model of e1000e: the vCPU stops at\neach register, the I/O thread receives\n"
                   f"{one['qemu_other_us']:,.0f} us of CPU")
        down = "accesses not counted"
    boxes = (f"guest: sockperf, its kernel, a driver\n{one['guest_us']:,.0f} us of Xen's time", carrier, peer)
    return boxes, ((down, f"{one['guest_interrupts']:.2f} interrupts\nof the guest's"),
                   (f"dom0 beside it:\n{one['dom0_events'] + one['dom0_interrupts']:.2f} events",
                    f"{one['dom0_us']:,.0f} us of Xen's\ntime"))
