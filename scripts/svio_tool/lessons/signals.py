# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared signals."""
from svio_tool import ui
from svio_tool.latency import board_difference
from svio_tool.lessons.frame import GIVE_VF_SH, Lesson, Outcome, booted
from svio_tool.vm import Vm

# The slots 1 and 9 share a bit of the identifier; slot 2 has another.
BUSY, SHARING, APART = 9, 1, 2
VIFS = 9
CARDS = {"msix": "an MSI-X vector for each VIF", "shared": "shared: one identifier of 8 bits"}


def nics():
    found = []
    for number, mode in enumerate(CARDS, 1):
        found += [f"pcie-root-port,id=rp{number},chassis={number},slot={number},addr={0x10 + number:#x}",
                  f"svio-nic,id={mode},bus=rp{number},port=echo,vifs={VIFS},signals={mode}"]
    return found


# {number} is of the root port: the PF is behind it.
SET_UP = r"""
pf=$(echo /sys/bus/pci/devices/0000:00:{place:02x}.0/0000:??:00.0)
ip link set "$(ls $pf/net)" up
echo {vifs} >$pf/sriov_numvfs
for slot in {busy} {sharing} {apart}; do
    give_vf $pf $((slot - 1)) {mode}$slot 10.0.2.$((100 + slot))
done
"""


def increase(before, after):
    """{slot: [signals, redundant ones]} between two looks at the counters of all VIFs."""
    found = {}
    for slot in map(str, (BUSY, SHARING, APART)):
        counts = board_difference(before[slot], after[slot])
        found[slot] = [counts["signals"], counts["signals_redundant"]]
    return found


def run(context):
    outcome = Outcome()
    count = 50 if context.short else 500
    found = {}
    with booted(f"a VM with two cards of {VIFS} VIFs", Vm("lesson", nics=nics(), memory=768)) as vm:
        for number, mode in enumerate(CARDS, 1):
            with ui.Progress(f"{count} pings of VIF {BUSY}, {CARDS[mode]}"):
                vm.run(GIVE_VF_SH + SET_UP.format(place=0x10 + number, vifs=VIFS, mode=mode, busy=BUSY,
                                                  sharing=SHARING, apart=APART), timeout=120)
                ping = f"ip netns exec {mode}{BUSY} ping -i 0.01 -W 2 -q 10.0.2.2 -c"
                vm.run(f"{ping} 5", timeout=120)
                before = vm.stats(mode)["vifs"]
                vm.run(f"{ping} {count}", timeout=300)
                found[mode] = increase(before, vm.stats(mode)["vifs"])
    _say(outcome, found, count)
    return outcome


def _say(outcome, found, count):
    outcome.head = ["signals", "VIF", "what it does", "signals", "redundant"]
    words = {BUSY: f"{count} pings", SHARING: "nothing; shares the bit", APART: "nothing; has another bit"}
    outcome.rows = [[CARDS[mode], slot, words[int(slot)], str(total_), str(redundant)]
                    for mode, one in found.items() for slot, (total_, redundant) in one.items()]
    outcome.figures = {"pings": count, **found}
    shared, own = found["shared"], found["msix"]
    outcome.expect(own[str(SHARING)][1] == 0 and own[str(APART)][1] == 0,
                   "With a vector for each VIF nobody is signalled for another.")
    outcome.expect(shared[str(SHARING)][1] >= count / 2,
                   f"With shared signals, VIF {SHARING} was interrupted {shared[str(SHARING)][1]} times "
                   f"in vain, for messages of VIF {BUSY}: both have bit {(BUSY - 1) % 8} of the "
                   "identifier.")
    outcome.expect(shared[str(APART)][1] == 0,
                   f"VIF {APART}, of another bit, was left in peace.")
    outcome.notes.append("The prototype of the paper had no other way: one interrupt line and an 8-bit "
                         "identifier for all VIFs. With more VIFs than bits, a busy neighbour costs a "
                         "guest its CPU.")


LESSON = Lesson("shared-signals", "Shared signals",
                "One VIF is busy. Who else is interrupted, when eight bits are all there are for signals?",
                3, (), ("scripts/svio vm --print-qemu --vifs 9   (add signals=shared to its svio-nic)",), run)
