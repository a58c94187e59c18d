# SPDX-License-Identifier: GPL-2.0-or-later
"""The journeys of a message in Xen's machine, with what Xen and its domains said of themselves."""
import statistics

from svio_tool.lab_bench import XEN_NAMES

GUESTS = {name: path for path, name in XEN_NAMES.items()}


def _median(cells, value):
    return statistics.median(value(cell) / cell["messages"] for cell in cells)


def _domain(cell, own):
    """The guest's own name, or None for dom0's: {"cpu_s", "interrupts"} of that domain."""
    domains = cell["domains"]
    name = next((one for one in domains["interrupts"] if one != "dom0"), "dom0") if own else "dom0"
    return {"cpu_s": domains["cpu_s"][name], "interrupts": domains["interrupts"][name]}


def _signals(cell, own, kind):
    """Interrupts of devices ("device"), or signals of event channels ("event"), of the guest or dom0."""
    return sum(count for name, count in _domain(cell, own)["interrupts"].items() if name.startswith(kind))


def figures(cells):
    """What a round trip of 64 bytes costs: medians over the rounds, microseconds and numbers."""
    return {"guest_us": _median(cells, lambda cell: _domain(cell, True)["cpu_s"] * 1e6),
            "dom0_us": _median(cells, lambda cell: _domain(cell, False)["cpu_s"] * 1e6),
            "guest_events": _median(cells, lambda cell: _signals(cell, True, "event")),
            "guest_interrupts": _median(cells, lambda cell: _signals(cell, True, "device")),
            "dom0_events": _median(cells, lambda cell: _signals(cell, False, "event")),
            "dom0_interrupts": _median(cells, lambda cell: _signals(cell, False, "device")),
            "bells": _median(cells, lambda cell: cell.get("board", {}).get("bells", 0)),
            **{f"{part}_us": _median(cells, lambda cell, part=part: cell["cpu_s"][part] * 1e6)
               for part in ("on_board", "qemu_other", "peer")}}


def journey_parts(result, key):
    """(boxes, arrows) of an approach in Xen's machine, or None; see report_plots.journey()."""
    cells = [cell for cell in result["cells"].get("xen", ())
             if (cell["approach"], cell["kind"], cell["size"]) == (key, "rtt", 64)]
    if key not in GUESTS or not cells:
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
