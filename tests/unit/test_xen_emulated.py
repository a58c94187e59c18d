# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows of QEMU's emulated Xen in "xen bench", from cells; and what is said where it cannot be."""
import contextlib
import types
import unittest
from unittest import mock

from svio_tool import kvm, lab_bench, xen, xen_emulated
from svio_tool.ui import SvioError


def cell(number, approach, kind, name, value):
    return {"round": number, "approach": approach, "kind": kind, name: value}


class TestEmulated(unittest.TestCase):
    def test_rows(self):
        cells = [cell(number, approach, *figure) for number, factor in ((1, 1), (2, 2), (3, 3))
                 for approach, figure in (("xen-emulated-net", ("rtt", "p50_us", 100 * factor)),
                                          ("xen-emulated-vif", ("rtt", "p50_us", 50 * factor)),
                                          ("xen-emulated-net", ("tx", "per_s", 1000 * factor)),
                                          ("xen-emulated-vif", ("tx", "per_s", 3000)))]
        self.assertEqual([[row[0], *row[2:]] for row in xen_emulated.rows_of(cells)], [
            ["round trip of 64 bytes, us", "200", "100..300", "1", ""],
            ["round trip of 64 bytes, us", "100", "50..150", "0.50", "0.50..0.50"],
            ["datagrams sent per second", "2,000", "1,000..3,000", "1", ""],
            ["datagrams sent per second", "3,000", "3,000..3,000", "1.50", "1.00..3.00"]])
        self.assertEqual(xen_emulated.rows_of([]), [])

    def test_where_it_works(self):
        lab = types.SimpleNamespace(vm=types.SimpleNamespace(command=lambda: ["qemu"]), not_run={})
        result = {"seed": 1, "rounds": 2, "qemu_lines": {}, "not_run": {}}
        written = []
        writer = types.SimpleNamespace(write=lambda what: written.append(len(what["emulated_xen"]["cells"])))
        with mock.patch.object(lab_bench, "emulated_xen", lambda *_: contextlib.nullcontext(lab)), \
                mock.patch.object(lab_bench, "guest_round", lambda lab, number, *_: [
                    {"round": number, "approach": name} for name in lab_bench.EMULATED_XEN_NAMES]):
            xen_emulated.measure(result, writer)
        self.assertEqual(written, [3, 6, 6])
        self.assertEqual({cell["approach"] for cell in result["emulated_xen"]["cells"]},
                         set(lab_bench.EMULATED_XEN_NAMES.values()))

    def test_a_machine_that_fails(self):
        result = {"seed": 1, "rounds": 2, "qemu_lines": {}, "not_run": {}}
        with mock.patch.object(lab_bench, "emulated_xen", side_effect=SvioError("It did not boot.")):
            xen_emulated.measure(result, mock.Mock())
        self.assertEqual(result["not_run"], {xen_emulated.NOT_RUN: "It did not boot."})

    def test_what_is_not_run(self):
        machine, row = "the same machine under KVM", xen_emulated.NOT_RUN
        for works, emulates, demo, expected in (
                (False, False, False, {machine: "KVM does not work here: no", row: "nor that"}),
                (True, False, False, {row: "nor that"}), (True, True, False, {}),
                (True, True, True, {row: "scripts/svio xen bench has it"})):
            with self.subTest(works=works, emulates=emulates, demo=demo), \
                    mock.patch.object(kvm, "works", lambda: (works, "no")), \
                    mock.patch.object(kvm, "emulates_xen", lambda: (emulates, "nor that")):
                self.assertEqual(xen.not_run(demo), expected)


if __name__ == "__main__":
    unittest.main()
