# SPDX-License-Identifier: GPL-2.0-or-later
"""The journeys of a message in Xen's machine, with what Xen and its domains said of themselves."""
import statistics

from svio_tool.lab_bench import XEN_NAMES, copies_text, guest_of

POLLED = "an on-board core (a thread) polls the\nqueues and owns the wire"


def figures(cells):
    """What a round trip of 64 bytes costs: medians over the rounds, microseconds and numbers."""
    def median(value):
        return statistics.median(value(cell) / cell["messages"] for cell in cells)

    def signals(cell, domain, kind):
        return sum(count for name, count in cell["domains"]["interrupts"][domain].items()
                   if name.startswith(kind))

    guest = guest_of(cells[0]["domains"]["interrupts"])
    found = {"bells": median(lambda cell: cell.get("board", {}).get("bells", 0)),
             "switches": median(lambda cell: sum(cell.get("switches", {}).values()))}
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
    one, parts = figures(cells), result["anatomy"].get(key, {})
    boxes, arrows = (split_parts if key == "xen-split" else own_nic_parts)(key, one, parts)
    xen = parts.get("xen")
    if xen:
        boxes[0] += f"\n{xen['hypercalls']:.1f} hypercalls, {xen['switches']:.2f} switches of domains"
    return boxes, arrows


def _copies(parts, end="; "):
    return f"{copies_text(parts)} copies each way{end}" if "copies" in parts else ""


def _accesses(parts, one):
    if "accesses" in parts:
        return f"{sum(parts['accesses'].values()):.2f} register accesses\ntrap"
    return f"{one['bells']:.2f} doorbells"


def split_parts(_, one, parts):
    """netfront's frames go through dom0."""
    copies = parts.get("copies", {})
    granted = f"{copies['grants']:.1f} copies each way by grants\n" if "grants" in copies else ""
    own = {**parts, "copies": {**copies, "grants": 0}} if copies else parts
    boxes = [f"guest: sockperf, its kernel, netfront\n{one['guest_us']:,.0f} us of Xen's time",
             f"dom0: netback, a bridge, the card's driver\n{granted}{one['dom0_us']:,.0f} us of Xen's time",
             f"the card: {_copies(own, chr(10))}{one['on_board_us']:,.0f} us of its on-board core\n"
             f"peer on the wire: {one['peer_us']:.0f} us of CPU"]
    return boxes, ((f"{one['dom0_events']:.2f} events\nof dom0's", f"{one['guest_events']:.2f} events\n"
                    "of the guest's"),
                   (_accesses(parts, one), f"{one['dom0_interrupts']:.2f} interrupts\nof dom0's"))


def own_nic_parts(key, one, parts):
    """The guest drives its NIC itself, and dom0 is beside it."""
    carrier, spent = POLLED, "on_board_us"
    if key == "xen-direct":
        carrier, spent = ("QEMU's model of e1000e: the vCPU stops at\neach register, the I/O thread receives",
                          "qemu_other_us")
    calls = parts.get("system_calls")
    beside = one["dom0_events"] + one["dom0_interrupts"]
    boxes = [f"guest: sockperf, its kernel, a driver\n{one['guest_us']:,.0f} us of Xen's time",
             f"{carrier}\n{_copies(parts)}{one[spent]:,.0f} us of CPU",
             f"peer on the wire: {one['peer_us']:.0f} us of CPU\ndom0 beside it: {beside:.2f} events,\n"
             f"{one['dom0_us']:,.0f} us of Xen's time"]
    wire = f"{sum(calls.values()):.1f} system calls\nof QEMU" if calls else "calls not counted"
    return boxes, ((_accesses(parts, one) if key == "xen-vif" or "accesses" in parts else
                    "accesses not counted", f"{one['guest_interrupts']:.2f} interrupts\nof the guest's"),
                   (wire, f"{one['switches']:.1f} context switches\nof QEMU"))
