# SPDX-License-Identifier: GPL-2.0-or-later
"""Self-virtualization."""
import time

from svio_tool import ui
from svio_tool.latency import cpu_difference
from svio_tool.lessons.frame import GIVE_VF_SH, Lesson, Outcome, booted
from svio_tool.vm import Vm

NICS = ["pcie-root-port,id=rp0,chassis=1,slot=1", "svio-nic,id=svio0,bus=rp0,port=echo,vifs=2"]
SET_UP = GIVE_VF_SH + r"""
pf=/sys/class/net/eth0/device
ip link set eth0 up
echo 2 >$pf/sriov_numvfs
for n in 0 1; do give_vf $pf $n tenant$n 10.0.2.1$n; done
"""
PING = "ip netns exec tenant0 ping -c {count} -i 0.01 -W 2 -q {address}"
OTHER, WIRE = "10.0.2.11", "10.0.2.2"


def answered(vm, address, count=1):
    done = vm.run(PING.format(count=count, address=address), check=False, timeout=120)
    return done.rc == 0


def settles(vm, address, wanted, tries=40):
    """Whether an answer comes: what is wanted, or what is still the case some seconds after a change."""
    for _ in range(tries):
        if answered(vm, address) == wanted:
            return wanted
        time.sleep(0.1)
    return not wanted


def sent(vm):
    """Frames that VIF 0 (slot 1) sent, and those of them that the card's switch gave to another VIF."""
    vif = vm.stats("svio0")["vifs"]["1"]
    return vif["tx_frames"], vif["switched_tx"]


def run(context):
    outcome = Outcome()
    count = 50 if context.short else 500
    with booted("a VM with a card of two VIFs", Vm("lesson", nics=NICS, memory=512)) as vm:
        vm.run(SET_UP)
        if not (settles(vm, OTHER, True) and settles(vm, WIRE, True)):
            raise ui.SvioError("The VIFs of this lesson do not reach each other; repeat it with -v.")
        with ui.Progress(f"{count} messages from VIF to VIF"):
            frames, threads = sent(vm), vm.thread_cpu_seconds()
            answered(vm, OTHER, count)
            frames = [new - old for new, old in zip(sent(vm), frames)]
            board = cpu_difference(threads, vm.thread_cpu_seconds())["on_board"]
        steps = []
        with ui.Progress("management changes the VLAN of one VIF, then of the other"):
            for words, vif, reach_vif, reach_wire in (("vlan 7", 0, False, False), ("vlan 7", 1, True, False),
                                                      ("vlan 0", 0, False, True), ("vlan 0", 1, True, True)):
                vm.run(f"ip link set eth0 vf {vif} {words}")
                steps.append({"change": f"VIF {vif}: {words}",
                              "reaches_other": settles(vm, OTHER, reach_vif),
                              "reaches_wire": settles(vm, WIRE, reach_wire)})
    _say(outcome, count, frames, board, steps)
    return outcome


def _say(outcome, count, frames, board, steps):
    def word(value):
        return "yes" if value else "no"
    outcome.head = ["what management did", "VIF 0 reaches VIF 1", "VIF 0 reaches the wire"]
    outcome.rows = [["nothing", "yes", "yes"]] + [
        [step["change"], word(step["reaches_other"]), word(step["reaches_wire"])] for step in steps]
    outcome.figures = {"messages": count, "frames": frames[0], "switched": frames[1], "board_cpu_s": board,
                       "steps": steps}
    outcome.expect(frames[1] >= count and frames[0] - frames[1] <= count / 10,
                   f"For {count} pings from one VIF to the other, VIF 0 sent {frames[0]} frames, and the "
                   f"card's own switch gave {frames[1]} of them to VIF 1, with one copy from sender to "
                   "receiver: the wire did not see them.")
    found = [(step["reaches_other"], step["reaches_wire"]) for step in steps]
    outcome.expect(found == [(False, False), (True, False), (False, True), (True, True)],
                   "Which VIF reaches whom followed each change at once, and neither guest took part in it.")
    outcome.notes.append("The hypervisor's side made the VIFs and said what they may do. The messages "
                         f"themselves were moved by the on-board cores ({board:.2f} s of their CPU): "
                         "nobody else was woken for them.")


LESSON = Lesson("self-virtualization", "Self-virtualization",
                "Many guests, one device, no domain in the middle: who keeps them apart?",
                3, (), ("scripts/svio vm --vifs 2", "ip link set eth0 vf 0 vlan 7   (in the guest)"), run)
