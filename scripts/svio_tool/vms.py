# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb "vms": N small VMs on one svio-board, which reach each other through its switch."""
import argparse
import socket
import sys
import time

from svio_tool import host, setup, terminal, ui
from svio_tool.board_process import SVIOCTL
from svio_tool.demo import table
from svio_tool.fleet import BITS, MEMORY, MOST, Fleet
from svio_tool.paths import DEFAULT_KERNEL, shown
from svio_tool.stats import write_json
from svio_tool.ui import SvioError

WHAT = """\
what
  N                 boot N VMs (1 to 16), wait until each has an answer of each other one, leave them running
  list              the VMs: process, address, VIF and its counters
  console K         VM K's console; Ctrl-] leaves
  run K COMMAND     run a command in VM K
  stop              end all of them and the board"""


def add_arguments(parser):
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = WHAT
    parser.add_argument("what", metavar="N|list|console|run|stop")
    parser.add_argument("words", nargs="*", metavar="...", help="K, or K COMMAND")
    parser.add_argument("--cores", type=int, default=2, metavar="N", help="on-board cores (default: 2)")
    parser.add_argument("--port", default="none", metavar="PORT", help="the board's wire (default: none)")
    parser.add_argument("--queues", type=int, default=1, metavar="N", help="queue pairs of each VIF, 1 to 8")
    parser.add_argument("--memory", type=int, default=MEMORY, metavar="MIB",
                        help=f"of each VM (default: {MEMORY})")
    parser.add_argument("--json", metavar="FILE", help="write what list shows to FILE, - for standard output")


def check(args):
    for name, low, high in (("cores", 1, 16), ("queues", 1, 8), ("memory", MEMORY, 65536)):
        if not low <= getattr(args, name) <= high:
            raise SvioError(f"--{name} is a number from {low} to {high}, not {getattr(args, name)}.")
    count, free = int(args.what), host.memory_mib()
    if 1 <= count <= MOST and count * args.memory > free:
        raise SvioError(f"{count} VMs of {args.memory} MiB need more memory than is free here ({free} MiB): "
                        "take fewer, or a smaller --memory.")


def show(fleet, name):
    """The table, and the same as JSON; what has ended is said."""
    rows = fleet.rows()

    def text(value):
        return "-" if value is None else str(value)
    if name != "-":
        table(["VM", "state", "PID", "address", "MAC", "VIF", "sent", "received"],
              [[str(row["vm"]), row["state"], str(row["pid"]), row["address"], row["mac"],
                text(row["slot"]), text(row["sent"]), text(row["received"])] for row in rows])
    board = fleet.board.process
    if board is None or board.poll() is not None:
        print("The board has ended: the VMs' links are down (scripts/svio vms stop ends the rest).",
              file=sys.stderr)
    if name:
        write_json({"vms": rows, "board": {"socket": str(fleet.board.socket), "mgmt": str(fleet.board.mgmt)}},
                   name)


def start(args):
    check(args)
    setup.ensure(setup.for_vm(DEFAULT_KERNEL))
    begin = time.monotonic()
    fleet = Fleet.start(int(args.what), args.cores, args.port, memory=args.memory, queues=args.queues)
    try:
        with ui.Progress("each pings each"):
            fleet.await_pings()
        show(fleet, args.json)
    except BaseException:
        fleet.stop()
        raise
    board, console = fleet.board, shown(fleet.vms[0].log_path)
    fleet.leave_running()
    if args.json == "-":
        return 0
    ui.say(f"{args.what} VMs are up ({time.monotonic() - begin:.0f} s) on one board, and each has an "
           f"answer of each other one (10.9.0.0/{BITS}).")
    ui.say(f"Consoles: {console} and so on. The board: {shown(SVIOCTL)} --socket {board.mgmt} watch\n"
           "Next: scripts/svio vms console 1 (ping 10.9.0.2), scripts/svio vms stop")
    return 0


def number(words, count):
    if len(words) < 1 or (count is not None and len(words) != count) or not words[0].isdigit():
        raise SvioError("Which VM? Its number comes next, as in: scripts/svio vms console 1.")
    return int(words[0])


def listing(args):
    fleet = Fleet.attach()
    show(fleet, args.json)
    return 0


def console(args):
    which = number(args.words, 1)
    fleet = Fleet.attach()
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.connect(str(fleet.vm(which).sockets / "console"))
        terminal.join(line)
    finally:
        line.close()
    return 0


def run(args):
    which = number(args.words, None)
    if len(args.words) < 2:
        raise SvioError("What is to be run? As in: scripts/svio vms run 1 'ip -br link'.")
    fleet = Fleet.attach(speak_to=which)
    try:
        done = fleet.vm(which).run(" ".join(args.words[1:]), timeout=600, check=False)
    finally:
        fleet.release()
    return terminal.relay(done)


def stop(args):
    # Nobody is asked for anything: a guest that hangs ends as well.
    fleet = Fleet.attach()
    ended = [str(vm.number) for vm in fleet.vms if not vm.lives()]
    fleet.stop()
    ui.say(f"{len(fleet.vms)} VMs and the board have ended."
           + (f" VM {', '.join(ended)} had ended before." if ended else ""))
    return 0


def main(args):
    if args.what.isdigit():
        return start(args)
    verbs = {"list": listing, "console": console, "run": run, "stop": stop}
    if args.what not in verbs:
        raise SvioError(f"{args.what}? After vms comes a number of VMs, or list, console K, run K COMMAND, "
                        "stop.")
    return verbs[args.what](args)
