# SPDX-License-Identifier: GPL-2.0-or-later
"""A hostile guest against the device."""
import hashlib
import os
import random
import time

from svio_tool import transfer, ui
from svio_tool.latency import board_difference
from svio_tool.lessons.frame import Lesson, Outcome, booted
from svio_tool.paths import DEFAULT_KERNEL, hostile_module
from svio_tool.vm import Vm

ATTACKED, STEADY = "0000:00:11.0", "0000:00:12.0"
MEMORY = 640
THREADS = 4
NICS = ["svio-nic,id=attacked,port=echo,addr=0x11,mac=52:54:00:73:76:c1",
        "svio-nic,id=steady,netdev=n0,addr=0x12,mac=52:54:00:73:76:c2"]
UP = r"""
dev=$(ls /sys/bus/pci/devices/{place}/net)
ip address replace {address}/24 dev $dev; ip link set $dev up
for try in $(seq 20); do ping -c 1 -W 1 -q -I $dev {peer} >/dev/null && exit 0; done
exit 1
"""
ATTACK = r"""
set -e
echo {place} >/sys/bus/pci/drivers/svio/unbind
echo svio-hostile >/sys/bus/pci/devices/{place}/driver_override
insmod /tmp/svio_hostile.ko threads={threads} ops={ops} ram_end={ram} seed={seed}
"""
END = r"""
set -e
rmmod svio_hostile
echo >/sys/bus/pci/devices/{place}/driver_override
echo {place} >/sys/bus/pci/drivers/svio/bind
"""


def refused(before, after):
    """{counter: increase} of what the board refused, summed over the card."""
    return {name: count for name, count in board_difference(before, after).items()
            if name.startswith(("error_", "bad_")) and count > 0}


def download(vm, port, digest):
    """Whether the file came whole through the other card."""
    done = vm.run(f"wget -q -O - http://10.0.2.2:{port}/ | sha256sum", timeout=300)
    return done.out.split()[0] == digest


def run(context):
    outcome = Outcome()
    ops, least = (20_000, 2) if context.short else (200_000, 8)
    seed = random.randrange(1 << 31)
    content = os.urandom(1 << 20)
    digest = hashlib.sha256(content).hexdigest()
    with booted("a VM with two cards", Vm("lesson", nics=NICS, netdevs=["user,id=n0"], memory=MEMORY,
                                          smp=2)) as vm:
        vm.put("/tmp/svio_hostile.ko", hostile_module(vm.kernel).read_bytes())
        vm.run(UP.format(place=STEADY, address="10.0.2.15", peer="10.0.2.2"))
        before = vm.stats("attacked")
        with transfer.server(content) as daemon, ui.Progress("the attack, and downloads of 1 MiB "
                                                             "through the other card"):
            port = daemon.server_address[1]
            vm.run(ATTACK.format(place=ATTACKED, threads=THREADS, ops=100 * ops, ram=MEMORY << 20, seed=seed))
            whole, begin = [], time.monotonic()
            while True:
                whole.append(download(vm, port, digest))
                done = int(vm.run(f"cat /sys/bus/pci/devices/{ATTACKED}/done").out.split()[0])
                if done >= ops and len(whole) >= least or time.monotonic() - begin > 300:
                    break
            vm.run(END.format(place=ATTACKED), timeout=120)
        rose = refused(before, vm.stats("attacked"))
        vm.run(f"ip link set $(ls /sys/bus/pci/devices/{STEADY}/net) down")
        works = vm.run(UP.format(place=ATTACKED, address="10.0.2.16", peer="10.0.2.2"), check=False,
                       timeout=120).rc == 0
        problems = vm.kernel_problems()
    outcome.figures = {"seed": seed, "operations": done, "downloads": len(whole), "whole": sum(whole),
                       "counted": rose, "works_after": works, "kernel_problems": problems}
    _say(outcome, done, whole, rose, works)
    return outcome


def _say(outcome, done, whole, rose, works):
    outcome.head = ["what the board refused", "times"]
    outcome.rows = [[key, f"{value:,}"] for key, value in sorted(rose.items(), key=lambda pair: -pair[1])]
    outcome.expect(any(key.startswith("error_") for key in rose),
                   f"{done:,} writes of nonsense into queues, registers and doorbells, by {THREADS} "
                   "threads: each refusal has a name and a counter, and stops the queue that it came in.")
    outcome.expect(all(whole), f"{sum(whole)} of {len(whole)} downloads through the other card of the "
                               "same VM came whole meanwhile, by their SHA-256 sum.")
    outcome.expect(works, "QEMU lives, and the attacked card carries pings again under its ordinary driver.")
    outcome.notes.append("All that a guest writes is an argument of an untrusted caller: it is read "
                         "once, checked, and only then used. scripts/svio test fuzz does the same to "
                         "the board alone, millions of times.")


LESSON = Lesson("hostile-guest", "A hostile guest against the device",
                "The guest owns its queues. What if it fills them with lies, while a neighbour works?",
                3, (f"hostile-{DEFAULT_KERNEL}",),
                ("scripts/svio test vm -k test_hostile", "scripts/svio test fuzz --inputs 1000000"), run)
