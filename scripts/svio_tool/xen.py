# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb "xen": Debian's Xen in QEMU, the card in dom0, and guests on netfront or on VIFs of the card."""
import argparse
import contextlib
import random
import shlex
import socket
import textwrap
import time
import tomllib

from svio_tool import kernels, kvm, setup, terminal, ui, xen_anatomy, xen_bench, xen_emulated, xen_image, \
    xen_virtual
from svio_tool.demo import Noise, Writer, both, figures, finish, host_facts, noise_text, rounds_of, \
    spread_text, table
from svio_tool.paths import RUN, shown
from svio_tool.ui import SvioError
from svio_tool.xen_bench import XenLab
from svio_tool.xen_machine import GUEST_PORTS, WIRE_ADDRESS, Guest, XenMachine

NAME = "xen"
USER_NETDEV = f"user,id=n0,net=10.88.0.0/16,host={WIRE_ADDRESS},dhcpstart=10.88.255.1"
GUEST_KEYS = {"name", "kind", "vlan", "rate", "memory", "trust", "slot"}
ROUNDS, DEMO_ROUNDS, QUICK_ROUNDS = 5, 3, 2
DEMO_SECONDS = 2            # of a measurement: a table in minutes
PAIRS = 4

DESCRIPTION = """\
  # machine.toml: scripts/svio xen up --config machine.toml
  vifs = 4                # VFs of the card
  [[guest]]
  name = "web"            # kind netfront: bridge, netback and netfront; vif: a VF with a VIF
  kind = "vif"
  vlan = 100              # the card tags (kind vif)
  rate = 50               # Mb/s, limit of what it sends
  memory = 256            # MiB
  [[guest]]
  name = "old"
  kind = "netfront"
"""


def add_arguments(parser):
    verbs = parser.add_subparsers(dest="xen", metavar="WHAT", required=True)

    def verb(name, line, **words):
        made = verbs.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".", **words)
        return made

    up = verb("up", "boot the machine and its guests, and leave them running",
              epilog="A description in place of the flags:\n" + DESCRIPTION,
              formatter_class=argparse.RawDescriptionHelpFormatter)
    up.add_argument("--netfront", type=int, metavar="N",
                    help="guests on netfront and dom0's bridge (default 1)")
    up.add_argument("--vif", type=int, metavar="M", help="guests with a VIF of the card (default 1)")
    up.add_argument("--config", metavar="FILE", help="a description of the machine, see below")
    up.add_argument("--print-qemu", action="store_true", help="print the raw QEMU line and end")
    shell = verb("shell", "a shell in dom0 or in a guest of the running machine; leave with Ctrl-]")
    shell.add_argument("domain", metavar="dom0|GUEST")
    run = verb("run", "run a command in dom0 or in a guest of the running machine")
    run.add_argument("domain", metavar="dom0|GUEST")
    run.add_argument("command", nargs="+", metavar="COMMAND")
    verb("list", "the running machine's domains and VIFs")
    verb("down", "end the running machine; the consoles stay in files")
    for name, line in (("demo", "the split driver beside a VIF: a table in minutes"),
                       ("bench", "all of it: 1, 2 and 4 guests, guest to guest, rates, CPU time by domain")):
        one = verb(name, line)
        one.add_argument("--json", metavar="FILE", help="write the figures to FILE, - for standard output")
        one.add_argument("--rounds", type=int, metavar="N", help="number of rounds "
                         f"(default {DEMO_ROUNDS if name == 'demo' else ROUNDS})")
        one.add_argument("--seed", type=int, metavar="N", help="seed of the order in which things take turns")
        if name == "bench":
            one.add_argument("--quick", action="store_true", help="two guests of each kind, two rounds")
        xen_virtual.add_arguments(one)


# --- up ------------------------------------------------------------------------------------------

def _described(path):
    try:
        with open(path, "rb") as handle:
            found = tomllib.load(handle)
    except OSError as error:
        raise SvioError(f"Cannot read {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SvioError(f"{path} is not TOML: {error}.") from error
    extra = found.keys() - {"vifs", "guest"}
    if extra:
        raise SvioError(f"{path}: not known: {', '.join(sorted(extra))}.")
    guests = []
    for entry in found.get("guest", []):
        extra = entry.keys() - GUEST_KEYS
        if extra or not {"name", "kind"} <= entry.keys():
            raise SvioError(f"{path}: a guest has name and kind, and may have "
                            f"{', '.join(sorted(GUEST_KEYS - {'name', 'kind'}))}"
                            + (f"; not known: {', '.join(sorted(extra))}." if extra else "."))
        guests.append(Guest(**entry))
    return guests, found.get("vifs")


def wanted_guests(args):
    if args.config:
        if args.netfront is not None or args.vif is not None:
            raise SvioError("--config and --netfront or --vif exclude each other.")
        guests, vifs = _described(args.config)
    else:
        counts = [1 if value is None else value for value in (args.netfront, args.vif)]
        if min(counts) < 0:
            raise SvioError("A number of guests is not negative.")
        guests = [Guest(f"split{n}", "netfront") for n in range(1, counts[0] + 1)]
        guests += [Guest(f"vif{n}", "vif") for n in range(1, counts[1] + 1)]
        vifs = None
    for guest in guests:
        guest.check()
    if len({guest.name for guest in guests}) < len(guests):
        raise SvioError("Two guests have the same name.")
    needed = sum(guest.kind == "vif" for guest in guests)
    return guests, max(needed, 4) if vifs is None else vifs


def _machine(vifs, guests, detached=True):
    return XenMachine(NAME, vifs=vifs, netdevs=[USER_NETDEV], detached=detached,
                      memory=1536 + sum(guest.memory for guest in guests) + 768,
                      guest_ports=max(GUEST_PORTS, len(guests)))


def up(args):
    guests, vifs = wanted_guests(args)
    ensure()
    machine = _machine(vifs, guests)
    if args.print_qemu:
        machine.make_files()
        ui.say(shlex.join(machine.command()))
        return 0
    begin = time.monotonic()
    try:
        with ui.Progress("Xen and dom0 boot"):
            machine.start()
        for guest in guests:
            with ui.Progress(f"guest {guest.name} boots"):
                machine.create(guest)
    except BaseException:
        if machine.process:     # else another one has the name
            machine.stop()
        raise
    machine.leave_running()
    ui.say(f"The machine is up ({time.monotonic() - begin:.0f} s): Xen "
           f"{xen_image.VERSION.read_text().strip()}, dom0 and {len(guests)} guests.")
    for guest in guests:
        ui.say(f"  {guest.name:12} {guest.kind:9} {guest.address}"
               + (f"  VF {guest.slot}" if guest.kind == "vif" else ""))
    ui.say(f"The host is {WIRE_ADDRESS} for all of them. Consoles: {shown(RUN / NAME)}/console.log (Xen, "
           "dom0), guest-NAME.log (when it ends).\nNext: scripts/svio xen shell dom0 (try xl list, svioctl "
           "vif list), scripts/svio xen down")
    return 0


# --- shell, run, list, down ------------------------------------------------------------------------

def shell(args):
    machine = XenMachine.attach(NAME)
    try:
        if args.domain == "dom0":
            path = machine.sockets / "console"
            line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            line.connect(str(path))
            try:
                machine.run("pgrep -f console-shell >/dev/null || "
                            "setsid xen-console-shell >/dev/null 2>&1 </dev/null &")
                terminal.join(line)
            finally:
                line.close()
        else:
            guest = machine.guest(args.domain)
            guest.meet(30)
            guest.run("setsid xen-console-shell >/dev/null 2>&1 </dev/null &")
            line = guest.agent.line.sock
            terminal.join(line, leave=b"\x03\nexit\n")
    finally:
        machine.release()
    return 0


def run(args):
    machine = XenMachine.attach(NAME)
    try:
        where = machine
        if args.domain != "dom0":
            where = machine.guest(args.domain)
            where.meet(60)
        done = where.run(" ".join(args.command), timeout=600, check=False)
    finally:
        machine.release()
    return terminal.relay(done)


def listing(args):
    machine = XenMachine.attach(NAME)
    try:
        ui.say(machine.run("xl list").out.rstrip())
        ui.say(machine.run("SVIO_SOCKET=/run/svio/mgmt svioctl vif list").out.rstrip())
    finally:
        machine.release()
    return 0


def down(args):
    machine = XenMachine.attach(NAME)
    machine.stop()
    ui.say(f"The machine has ended; consoles are in {shown(RUN / NAME)}.")
    return 0


# --- demo, bench -----------------------------------------------------------------------------------

def empty_result(rounds, seed, pairs):
    return {"cells": [], "ratio": {}, "host": {}, "rounds": rounds, "seed": seed, "pairs": pairs,
            "complete": False, "trace": {}, "rtt": "full round trip, microseconds", "qemu_lines": {},
            "not_run": {}}


def not_run(demo):
    """{row that this host, or a demo, cannot have: why}. With KVM the machine is under KVM, and says so."""
    found = {}
    works, why = kvm.works()
    if not works:
        found["the same machine under KVM"] = f"KVM does not work here: {why}"
    emulated, why = kvm.emulates_xen()
    if not emulated or demo:
        found[xen_emulated.NOT_RUN] = "scripts/svio xen bench has it" if emulated else why
    return found


def _measure(result, writer, demo):
    with XenLab(result["pairs"], seconds=result["window_s"], tcp=True) as lab:
        if lab.no_tcp:
            result["not_run"]["TCP (iperf3)"] = lab.no_tcp
        command = lab.vm.command()
        result["qemu_lines"]["xen"] = shlex.join(command)
        # What QEMU boots is Xen; guests and dom0 have this kernel.
        result["host"] = {**host_facts(command), "guest_kernel": kernels.info(lab.vm.kernel)["version"]}
        result["host"]["xen"] = xen_image.VERSION.read_text().strip()
        noise = Noise(lab)

        def on_round(done):
            result["cells"], result["ratio"] = list(done), xen_bench.ratios(done)
            result["host"]["others_cores"] = noise.others()
            writer.write(result)

        streams = [] if lab.no_tcp else xen_bench.TCP[:1] if demo else xen_bench.TCP
        cells = xen_bench.plan(result["pairs"], demo, streams)
        xen_bench.measure(lab, cells, result["rounds"], result["seed"], on_round)
        if not demo:
            with ui.Progress("Xen's own trace of round trips"):
                result["trace"], gone = xen_anatomy.measure(lab, whats=("hypercalls",))
            result["not_run"].update(gone)
            writer.write(result)
        problems = lab.vm.kernel_problems() + lab.vm.guest_problems()
    if problems:
        raise SvioError("A kernel or Xen complained during the measurement", "\n".join(problems))


NAMES = {"split": "netfront, netback", "vif": "VIF"}


TITLES = {("rtt", "wire"): "round trip to the wire, us", ("tx", "wire"): "datagrams sent per second",
          ("rx", "wire"): "datagrams received per second",
          ("tcp_tx", "wire"): "TCP out of the guests, Mbit/s",
          ("tcp_rx", "wire"): "TCP into the guests, Mbit/s",
          ("rtt", "guest"): "round trip from guest to guest, us",
          ("tx", "guest"): "datagrams from guest to guest per second",
          ("tcp_tx", "guest"): "TCP from guest to guest, Mbit/s", ("idle", "none"): "nothing"}


def figure_table(result):
    cells, ratios = result["cells"], result["ratio"]
    rows = []
    for kind, peer, count in xen_bench.measured(cells):
        wanted = {"kind": kind, "peer": peer, "guests": count}
        for path in xen_bench.PATHS:
            found = xen_bench.summary(cells, path, xen_bench.FIGURES[kind], **wanted)
            p99 = xen_bench.summary(cells, path, "p99_us", **wanted) if kind == "rtt" else None
            ratio = ratios.get(xen_bench.ratio_key(kind, peer, count))
            rows.append([TITLES[kind, peer], NAMES[path], str(count), *both(found, ",.0f"),
                         f"{p99['value']:,.0f}" if p99 else "",
                         *(both(ratio, ".2f") if path == "vif" else ["1", ""])])
    ui.say("\nMedians over the rounds, single rounds beside them; 64-byte round trips (p50), 1400-byte "
           "datagrams.\nOf several guests at a time latency is their median, and rates are the sum")
    table(["", "path", "guests", "median", "single rounds", "p99", "ratio", "single rounds"], rows)


def cost_table(result):
    cells = result["cells"]
    rows = []
    for kind, peer, text in (("rtt", "wire", "round trip"), ("tx", "wire", "datagram sent"),
                             ("rx", "wire", "datagram received"), ("rtt", "guest", "from guest to guest"),
                             ("tx", "guest", "datagram to a guest")):
        for path in xen_bench.PATHS:
            one = xen_bench.per_message(cells, path, kind, guests=1, peer=peer)
            if one:
                rows.append([text, NAMES[path]]
                            + [f"{one[name]:.0f}" for name in ("guest_us", "dom0_us")]
                            + [f"{one[name]:.2f}" for name in ("events", "device")])
    ui.say("\nWhat one message cost, one guest: CPU microseconds by Xen's account, event channels and "
           "device\ninterrupts of the guest's and dom0's network devices")
    table(["", "path", "guest us", "dom0 us", "event channels", "device interrupts"], rows)
    rows = [[NAMES[path], *(f"{one['xen'][key]:.2f}" for key in xen_anatomy.COLUMNS)]
            for path, one in result["trace"].items()]
    if rows:
        ui.say("\nWhat Xen did for a round trip, all domains, by its own trace (xentrace), less what it does "
               "for a\nprogram to which nobody answers")
        table(["path", *xen_anatomy.COLUMNS.values()], rows)
    ui.say(f"\nCPU seconds in one measurement of {result['window_s']} s (receiving datagrams: of "
           f"{xen_bench.FLOOD_SECONDS} s) by Xen's account, what asks for\nthe figures included")
    table(["", "path", "guests", "dom0", "single rounds", "guests", "single rounds"],
          [[TITLES[kind, peer].split(",")[0].removesuffix(" per second"), NAMES.get(path, ""),
            str(count or ""), *both(dom0, ".1f"), *both(guests, ".1f")]
           for (kind, peer, count), path, dom0, guests in xen_bench.cpu_shares(cells)])


def reading(result):
    facts, ratios = result["host"], result["ratio"]
    accel = "TCG, which emulates the CPU and so Xen, dom0 and the guests" if facts["accel"] == "tcg" \
        else facts["accel"].upper()
    stream = f", and its TCP is {spread_text(ratios['tcp_tx_1'], '.1f')} times as fast" \
        if "tcp_tx_1" in ratios else ""
    parts = [f"How to read this: on {facts['cores']} cores with {accel}, a round trip through the VIF takes "
             f"{spread_text(ratios['p50_1'], '.2f')} of one through Xen's split driver, and the guest sends "
             f"{ratios['tx_1']['value']:.2f} times as many datagrams ({ratios['tx_1']['min']:.2f}.."
             f"{ratios['tx_1']['max']:.2f}){stream}; the prototype of the SV-IO paper, on hardware, had "
             "0.47 and 1.77. A frame of netfront's wakes dom0, is copied by netback through the grant table, "
             "and passes the bridge and the PF's driver; one of the VIF's is picked up by an on-board core "
             "out of the guest's memory, and dom0 does not run. "
             + noise_text(facts)]
    for name, why in result["not_run"].items():
        parts.append(f"Not run: {name}: {why.rstrip('.')}.")
    return textwrap.fill(" ".join(parts), 100)


def bench(args):
    demo = args.xen == "demo"
    xen_virtual.check(args)
    if args.virtual_time:
        ensure()
        return xen_virtual.main(args, 1 if demo else 2)
    quick = getattr(args, "quick", False)
    rounds = rounds_of(args, DEMO_ROUNDS if demo else ROUNDS, QUICK_ROUNDS)
    pairs = 1 if demo else 2 if quick else PAIRS
    seed = random.randrange(1 << 32) if args.seed is None else args.seed
    result = empty_result(rounds, seed, pairs)
    with figures(args.json, result):
        begin, writer = time.monotonic(), Writer(args.json)
        writer.write(result)        # says now that a file cannot be written
        ensure()
        with contextlib.suppress(SvioError):    # TCP is then "not run", with the reason
            setup.ensure(["packages-bench"])
        result["window_s"] = DEMO_SECONDS if demo else xen_bench.SECONDS
        result["not_run"] = not_run(demo)
        ui.say(f"Real Xen in QEMU: {pairs} guest{'s' if pairs > 1 else ''} on Xen's split driver beside as "
               f"many with a VIF; {rounds} rounds in an\norder shuffled with seed {seed}")
        _measure(result, writer, demo)
        if not demo and xen_emulated.NOT_RUN not in result["not_run"]:
            xen_emulated.measure(result, writer)
        finish(result, writer, begin, (figure_table, cost_table, xen_emulated.say), reading)
    return 0


def ensure():
    setup.ensure(["compile", "xen-image"])


def main(args):
    return {"up": up, "shell": shell, "run": run, "list": listing, "down": down, "demo": bench,
            "bench": bench}[args.xen](args)
