# SPDX-License-Identifier: GPL-2.0-or-later
"""What the lessons share: a question, a run of the real thing, and an answer made of what was measured."""
import contextlib
import statistics
from dataclasses import dataclass, field
from typing import Callable

from svio_tool import anatomy, lab_stats, setup, ui, xen_bench
from svio_tool.lab import APPROACHES, Lab

TITLES = {one.name: one.title for one in APPROACHES}
ROUNDS, SHORT_ROUNDS = 3, 1


@dataclass(frozen=True)
class Lesson:
    """One demonstration. `run` gets a Context and gives an Outcome; `minutes` is about what it takes."""
    name: str
    title: str
    question: str
    minutes: int
    needs: tuple            # steps of the set-up, beside a test VM's
    repeat: tuple           # commands that show the same outside of the lesson
    run: Callable
    xen: tuple = ()         # guests of the Xen machine that it needs, by their paths


@dataclass
class Outcome:
    """What was measured: a table for people, figures for programs, and what follows."""
    head: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    figures: dict = field(default_factory=dict)
    expectations: list = field(default_factory=list)    # [{"text", "held"}]

    def expect(self, held, text):
        """What a lesson claims, and whether this run bears it out."""
        self.expectations.append({"text": text, "held": bool(held)})


class Context:
    """Settings of a run, and machines that several lessons of one process may share."""

    def __init__(self, short=False, lessons=()):
        self.short = short
        self.xen_paths = tuple(path for path in ("split", xen_bench.DIRECT)
                               if any(path in lesson.xen for lesson in lessons))
        self.rounds = SHORT_ROUNDS if short else ROUNDS
        self.stack = contextlib.ExitStack()
        self._xen = None

    def __enter__(self):
        return self

    def __exit__(self, *what):
        return self.stack.__exit__(*what)

    def xen(self):
        """The Xen machine with the guests that the lessons of this run need."""
        if self._xen is None:
            setup.ensure(["compile", "xen-image"])
            self._xen = self.stack.enter_context(
                xen_bench.XenLab(1, name="lesson-xen", paths=self.xen_paths))
        return self._xen


@contextlib.contextmanager
def booted(what, machine):
    """A machine for the length of the block; its boot is shown."""
    with ui.Progress(f"{what} boots"):
        machine.__enter__()
    try:
        yield machine
    finally:
        machine.__exit__(None, None, None)


# give_vf PF N NAMESPACE ADDRESS: the interface of the PF's VF N, from 0, becomes net0 of the namespace.
# Nothing but what is measured is to be sent: no router solicitations.
GIVE_VF_SH = r"""
set -e
for path in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$path; done
give_vf() {
    for try in $(seq 500); do
        dev=$(ls $1/virtfn$2/net 2>/dev/null) && [ -n "$dev" ] && break
        usleep 20000
    done
    ip netns add $3
    ip link set "$dev" netns $3
    ip -n $3 link set "$dev" name net0
    echo 1 | ip netns exec $3 tee /proc/sys/net/ipv6/conf/net0/disable_ipv6 >/dev/null
    ip -n $3 address add $4/24 dev net0
    ip -n $3 link set net0 up
}
"""


def trips(context, names):
    """{approach: figures of a 64-byte round trip}: one guest with a NIC of each, taking turns.

    p50_us, interrupts (of the guest), doorbells (of the card), switches (of QEMU's threads, on-board cores
    among them), board_us (CPU of the on-board cores), reads and writes (of the NIC's registers, that trap).
    """
    with booted("a VM with " + ", ".join(names), Lab(names, name="lesson")) as lab:
        cells = {name: [] for name in names}
        with ui.Progress(f"round trips of 64 bytes, {context.rounds} of each"):
            for number in range(context.rounds):
                rows = lab.rows if number % 2 == 0 else lab.rows[::-1]
                plan = [(row, "64") for row in rows]
                lab.arm(plan)
                for row, what in plan:
                    cells[row.key].append(lab.cell(row, what))
        with ui.Progress("accesses that trap, counted by QEMU's trace"):
            found, gone = anatomy.measure(lab, whats=("accesses",))
        absent = {**lab.not_run, **gone}
    if absent:
        raise ui.SvioError("Not all NICs of this lesson work here",
                           "\n".join(f"{name}: {why}" for name, why in absent.items()))
    return {name: {**_figures(cells[name]), **found[name]["accesses"]} for name in names}


def _figures(cells):
    cost = lab_stats.costs(cells)
    found = {"p50_us": statistics.median(cell["p50_us"] for cell in cells), "interrupts": cost["interrupts"],
             "switches": lab_stats.switched(cost)}
    if "board" in cells[0]:
        found.update(doorbells=cost["bells"], sleeps=cost["sleeps"], board_us=cost["cpu_us_on_board"])
    return found


def trip_table(outcome, found, columns):
    """Rows of the approaches; columns are [(name of the figure, heading, format)]."""
    outcome.head = ["NIC"] + [heading for _, heading, _ in columns]
    outcome.rows = [[TITLES[name]] + [f"{one[key]:{form}}" if one.get(key) is not None else "-"
                                      for key, _, form in columns] for name, one in found.items()]
    outcome.figures = found


def traps(one):
    return one["reads"] + one["writes"]
