# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb "vm": a shell in a test VM, on this terminal."""
import shlex
import signal
import subprocess
import sys
import termios

from svio_tool import disk_vm, nics, setup, ui
from svio_tool.vm import Vm


def add_arguments(parser):
    def add(flag, text, **words):
        parser.add_argument(flag, help=text, **words)

    add("--nic", "network card (default: svio)", choices=nics.NAMES, default="svio")
    add("--machine", "QEMU machine (default: q35)", default="q35", metavar="q35|pc")
    add("--accel", "default: kvm where a guest really boots under it", choices=("kvm", "tcg"))
    add("--smp", "virtual CPUs (default: 1)", type=int, default=1, metavar="N")
    add("--memory", "default: 512, with --disk 1024", type=int, metavar="MIB")
    add("--kernel", "guest kernel (default: 6.12)", choices=("6.12", "6.1"), default="6.12")
    add("--cores", "on-board cores of the svio card, 1 to 16", type=int, metavar="N")
    add("--queues", "queue pairs of the svio card, 1 to 8", type=int, metavar="N")
    add("--vifs", "SR-IOV: so many VFs of the svio card, 1 to 64, each with a VIF once it is enabled",
        type=int, metavar="N")
    add("--queue-size", "entries per message queue of the svio card", type=int, metavar="N")
    add("--poll-us", "how long an idle on-board core polls on", type=int, metavar="US")
    add("--port", "wire that an on-board core polls itself, in place of a netdev: dgram:LOCAL,REMOTE or "
        "tap:IFNAME", metavar="PORT")
    add("--netdev", "QEMU netdev (default: user); for example tap,ifname=tap0,script=no,downscript=no",
        metavar="SPEC")
    add("--name", "name of the VM, for svio stats (default: vm)", default="vm")
    disk_vm.add_arguments(parser)
    add("--print-qemu", "print the raw QEMU line and end", action="store_true")
    parser.add_argument("qemu_args", nargs="*", metavar="-- QEMU ARGS",
                        help="appended to QEMU's line as they are")


def _netdev(args):
    if args.nic == "none" or args.port:
        if args.netdev:
            raise ui.SvioError("--netdev and --port (or --nic none) exclude each other.")
        return []
    spec = args.netdev or "user"
    return [spec if ",id=" in spec else f"{spec},id=n0"]


def _identifier(netdevs):
    if not netdevs:
        return "n0"
    return next(word[3:] for word in netdevs[0].split(",") if word.startswith("id="))


def build_vm(args):
    netdevs = _netdev(args)
    cards = []
    if args.nic != "none":
        cards = [nics.device(args.nic, _identifier(netdevs), cores=args.cores, queues=args.queues,
                             queue_size=args.queue_size, poll_us=args.poll_us, port=args.port,
                             vifs=args.vifs)]
        if args.vifs:
            cards.insert(0, nics.PORT)
    if args.disk:
        return disk_vm.build(args, nics=cards, netdevs=netdevs, machine=args.machine, accel=args.accel,
                             smp=args.smp, memory=args.memory or 1024, extra=args.qemu_args,
                             interactive=True, wait=False)
    # Only libslirp surely answers DHCP at once; elsewhere five tries of a second pass without harm.
    return Vm(args.name, nics=cards, netdevs=netdevs, machine=args.machine, accel=args.accel, smp=args.smp,
              memory=args.memory or 512, kernel=args.kernel, extra=args.qemu_args, append="svio.dhcp quiet",
              interactive=True, wait=False)


def _refuse_disk_words(args):
    for given, flag in ((args.write, "--write"), (args.format, "--format"),
                        (args.share_driver, "--share-driver"),
                        (args.disk_bus != "virtio", "--disk-bus"), (args.firmware != "bios", "--firmware")):
        if given:
            raise ui.SvioError(f"{flag} is for --disk IMAGE only.")


def main(args):
    for value, low, high, flag in ((args.smp, 1, 64, "--smp"), (args.memory, 192, 1 << 20, "--memory"),
                                   (args.cores, 1, 16, "--cores"), (args.vifs, 1, 64, "--vifs")):
        if value is not None and not low <= value <= high:
            raise ui.SvioError(f"{flag} {value}: it must be {low} to {high}.")
    if args.vifs and not args.machine.startswith("q35"):
        raise ui.SvioError(f"--vifs needs PCI Express, which machine {args.machine} does not have: "
                           "take q35.")
    if args.disk:
        disk_vm.check_file(args.disk, args.write)
    else:
        _refuse_disk_words(args)
    setup.ensure(disk_vm.steps(args) if args.disk else setup.for_vm(args.kernel, args.nic == "svio"))
    vm = build_vm(args)
    if args.print_qemu:
        vm.make_files()
        ui.say(shlex.join(vm.command()))
        return 0
    return _interactive(vm)


def _interactive(vm):
    vm.prepare()
    words = vm.command()
    if isinstance(vm, disk_vm.DiskVm):
        disk_vm.explain(vm)
    leave = "power the guest off" if isinstance(vm, disk_vm.DiskVm) else 'leave with "exit"'
    ui.say(f"Starting VM {vm.name}; {leave}, or Ctrl-A X at once. "
           "For its raw QEMU line add --print-qemu.")
    saved = termios.tcgetattr(0) if sys.stdin.isatty() else None
    # The terminal's Ctrl-C belongs to the guest; QEMU reads it as a character.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        vm.process = subprocess.Popen(words)
        vm.register(words)
        status = vm.process.wait()
    finally:
        if vm.process and vm.process.poll() is None:
            vm.process.terminate()
            vm.process.wait()
        signal.signal(signal.SIGINT, before)
        if saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)
        vm.stop()
    if status:
        how = f"signal {-status}" if status < 0 else f"status {status}"
        raise ui.SvioError(f"QEMU ended with {how}; what it said is above.")
    return 0
