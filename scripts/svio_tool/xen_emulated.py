# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows of "xen bench" for a guest of QEMU's emulated Xen, where KVM has it: xen-net-device, whose backend is
QEMU's own and not Linux's netback, beside virtio-net and a VIF in the same guest."""
import shlex

from svio_tool import lab_bench, ui
from svio_tool.demo import both, table
from svio_tool.lab_bench import EMULATED_XEN_NAMES, TITLES
from svio_tool.latency import ratio
from svio_tool.ui import SvioError
from svio_tool.scaling_stats import pick, spread

WHATS = ("64", "tx")
BASE = "xen-emulated-net"
FIGURES = (("round trip of 64 bytes, us", "rtt", "p50_us"), ("datagrams sent per second", "tx", "per_s"))
NOT_RUN = "QEMU's emulated-Xen guest (xen-net-device; not Linux netback)"


def measure(result, writer, seconds=1):
    """Into result["emulated_xen"]. The machine's failing is a reason, and no end of the bench."""
    found = result["emulated_xen"] = {"cells": []}
    try:
        with lab_bench.emulated_xen(seconds, "") as lab:
            result["qemu_lines"]["xen-emulated"] = shlex.join(lab.vm.command())
            for cells in lab_bench.emulated_rounds(lab, result["rounds"], result["seed"], WHATS):
                found["cells"] = list(cells)
                writer.write(result)
            result["not_run"].update({TITLES[EMULATED_XEN_NAMES[name]]: why
                                      for name, why in lab.not_run.items()})
    except SvioError as error:
        result["not_run"][NOT_RUN] = error.sentence
    writer.write(result)


def rows_of(cells):
    """[[what, NIC, median, range, ratio to xen-net-device, range]]"""
    rows = []
    for title, kind, name in FIGURES:
        base = pick(cells, approach=BASE, kind=kind)
        for approach in EMULATED_XEN_NAMES.values():
            mine = pick(cells, approach=approach, kind=kind)
            if not mine:
                continue
            compared = ratio(mine, base, name) if approach != BASE and base else None
            rows.append([title, TITLES[approach],
                         *both(spread(cell[name] for cell in mine.values()), ",.0f"),
                         *(both(compared, ".2f") if compared else ["1" if approach == BASE else "", ""])])
    return rows


def say(result):
    rows = rows_of(result.get("emulated_xen", {}).get("cells", ()))
    if rows:
        ui.say("\nIn a guest of QEMU's emulated Xen, which has QEMU's own backend in the place of dom0 and "
               "netback")
        table(["", "NIC", "median", "single rounds", "ratio", "single rounds"], rows)
