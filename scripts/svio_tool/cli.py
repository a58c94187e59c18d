# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of scripts/svio."""
import argparse
import importlib
import signal
import sys
import types

from svio_tool import paths, ui
from svio_tool.ui import SvioError

DESCRIPTION = """\
svio: a self-virtualizing NIC for stock QEMU. This one command builds it, boots test VMs with it,
measures it and tests it. Whatever a verb needs is set up by itself the first time."""

EPILOG = """\
Where to begin
  scripts/svio demo                    real traffic through the card, and its latency beside virtio's
  scripts/svio vm                      a shell in a VM with the card; look at "ethtool -S eth0"
  scripts/svio stats                   (second terminal) what the on-board cores count

More examples
  scripts/svio doctor                  what this host can do, and what mends each gap
  scripts/svio vm --nic virtio         the same VM with virtio-net, to compare
  scripts/svio vm --cores 2 --print-qemu        the raw QEMU line, to use in your own VM
  scripts/svio vm -- -device e1000,netdev=n1 -netdev user,id=n1       with more QEMU arguments
  scripts/svio vm --disk debian.qcow2 --share-driver           your own disk; it is not written to
  scripts/svio vms 4                   four VMs on one board (svio-board), without bridge or tap
  scripts/svio package                 .deb packages for host and guest, in build/package/
  scripts/svio test unit -k queue      some of the tests
  scripts/svio demo --json result.json figures for a program to read
  scripts/svio compare A.json B.json   did it get better or worse
  scripts/svio bench --quick           emulated, paravirtual and self-virtualizing NICs side by side
  scripts/svio bench scaling           rate, fairness and isolation of up to 32 VIFs
  scripts/svio lesson                  demonstrations for a class: a question, and the measured answer
  scripts/svio xen demo                Xen's split driver beside a VIF, in a real Xen machine

What lies where
  build/                 everything that is derived; remove it and start afresh
  build/log/STEP.log     what a set-up step said     build/run/NAME/   console of the VM NAME
  build/qemu-device/svio.so     the plugin           build/driver-*/svio.ko   the guest driver
Nothing is installed on the host but Debian packages, and only those are asked of root."""

VERBS = (
    # name, module, one line
    ("doctor", "doctor", "what this host can do, each gap with the command that mends it"),
    ("setup", "setup", "build everything; quick when nothing has changed"),
    ("demo", "demo", "real traffic and latency, beside virtio-net"),
    ("bench", "bench", "every approach to a guest's NIC side by side; and what many VIFs cost"),
    ("report", "report", "one page with plots and tables of what bench measured"),
    ("compare", "compare", "two results of the same measurement: better or worse, for people and for CI"),
    ("lesson", "lesson", "guided demonstrations for a class, each a question and its measured answer"),
    ("xen", "xen", "Debian's Xen in QEMU: the split driver (netfront, netback) beside VIFs of the card"),
    ("virtual-time", "virtual_time", "a ping counted in instructions: two runs are equal byte for byte"),
    ("vm", "vm_verb", "a shell in a test VM, or your own disk image with the card"),
    ("vms", "vms", "several small VMs on one board, which reach each other through its switch"),
    ("package", "package", "Debian packages of the plugin, the driver (DKMS) and the tools"),
    ("test", "testing", "all tests, one closing line"),
    ("stats", "stats", "the board's counters of a running VM"),
)


def _parser():
    parser = argparse.ArgumentParser(prog="scripts/svio", description=DESCRIPTION, epilog=EPILOG,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-v", "--verbose", action="store_true", default=argparse.SUPPRESS,
                        help="say each command that is run")
    parser.add_argument("-v", "--verbose", action="store_true", help="say each command that is run")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for name, module, line in VERBS:
        verb = verbs.add_parser(name, help=line, parents=[common],
                                description=line[0].upper() + line[1:] + ".")
        verb.set_defaults(module=module)
        try:
            add = getattr(importlib.import_module(f"svio_tool.{module}"), "add_arguments", None)
        except ModuleNotFoundError:
            # A part of the checkout is missing; the verb says so when it is called.
            add = None
        if add:
            add(verb)
        elif name == "demo":
            verb.add_argument("--json", metavar="FILE", help="write the figures to FILE")
            verb.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    return parser


def _context():
    """What the demo gets beside its arguments."""
    from svio_tool import host, nics, setup, stats, vm
    return types.SimpleNamespace(paths=paths, ui=ui, host=host, setup=setup, nics=nics, vm=vm, Vm=vm.Vm,
                                 write_json=stats.write_json)


def _run(args):
    module = importlib.import_module(f"svio_tool.{args.module}")
    if args.verb == "demo":
        from svio_tool import setup
        setup.ensure(setup.for_vm(paths.DEFAULT_KERNEL))
        return module.main(args, _context())
    return module.main(args)


def _stop(number, frame):
    """A polite request to end is handled like Ctrl-C: every "finally" runs, no process stays."""
    raise KeyboardInterrupt


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser()
    args = parser.parse_args(argv)
    if not args.verb:
        parser.print_help()
        return 2
    ui.VERBOSE = bool(getattr(args, "verbose", False))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        return _run(args) or 0
    except SvioError as error:
        if error.detail:
            print(error.detail, file=sys.stderr)
        print(f"svio: {error.sentence}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsvio: interrupted; nothing was left running.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"svio: {error.strerror or error}{where}", file=sys.stderr)
        if ui.VERBOSE:
            raise
        return 1
