# SPDX-License-Identifier: GPL-2.0-or-later
"""xen demo and xen bench with --virtual-time: the same machine by a clock that counts instructions.

One boot for each run: Xen, dom0, and guests one after the other, each of which measures and ends. Nothing
from outside is in it: dom0 and the guests do by themselves what they were told, the wire's other end is the
card's own (port=echo), and VIFs are of the card's making (auto-vif), as a management socket has clients
with a time of their own. So two runs say the same, from Xen's first line to its last.
"""
import contextlib
import hashlib
import json
import re
import shutil
import tempfile
import time
from pathlib import Path

from svio_tool import host, ui, virtual_time, xen_image
from svio_tool.cpio import Archive
from svio_tool.demo import Writer, figures as json_figures, say_done, table
from svio_tool.latency import parse_throughput
from svio_tool.paths import DEFAULT_KERNEL, PLUGIN, QEMU
from svio_tool.ui import SvioError
from svio_tool.vm import HARMLESS, PROBLEMS
from svio_tool.xen_bench import CARD_OPTIONS
from svio_tool.xen_machine import BITS, CARD_MAC, DOM0_ADDRESS, TCG_CPU, WIRE_ADDRESS, Guest, xen_boots

SHIFT, COUNT, RUNS = 1, 100, 2
TIMEOUT = 1500
AT_ONCE = 4             # QEMUs, of 2 GiB each
NAMES = {"split": "netfront, netback", "vif": "VIF"}
KINDS = {"split": "netfront", "vif": "vif"}
MEANING = """\
What these figures are: the length of the software path, not time. The one clock of this machine counts the
instructions that Xen, dom0 and the guests execute ({ns} ns each); an on-board core takes {poll} ns for a
look and {message} ns for a message because that is what it was told, and the wire's other end answers
after {message} ns. What QEMU does for the machine counts nothing, nor do the caches, exits and DMA of a real
one."""


def add_arguments(parser):
    group = parser.add_argument_group(
        "virtual time", "The clock counts instructions, the on-board cores are driven by it, and each run "
        "says the same: the length of the software path.")
    group.add_argument("--virtual-time", action="store_true", help="measure in virtual time")
    group.add_argument("--count", type=int, default=COUNT, metavar="N",
                       help=f"requests of round trips (default: {COUNT})")
    group.add_argument("--runs", type=int, default=RUNS, metavar="N",
                       help=f"runs, which are to be equal byte for byte (default: {RUNS})")
    virtual_time.add_costs(group, SHIFT)


def check(args):
    """Which flags go with which clock."""
    if args.virtual_time:
        for name in ("rounds", "seed", "quick"):
            value = getattr(args, name, None)
            if value is not None and value is not False:    # a seed may be 0
                raise SvioError(f"--{name} is about rounds in the host's time; --virtual-time has --runs.")
        virtual_time.check(args)
        return
    for name, default in (("count", COUNT), ("runs", RUNS), ("shift", SHIFT),
                          ("poll_cost_ns", virtual_time.COST_NS), ("message_cost_ns", virtual_time.COST_NS)):
        if getattr(args, name) != default:
            raise SvioError(f"--{name.replace('_', '-')} goes with --virtual-time only.")


# --- the machine ---------------------------------------------------------------------------------

def guests(pairs, count):
    """[(Guest, "measures" or "serves")] in the order of their starts: with two of a kind the second measures,
    to the wire and to the first."""
    found = []
    for path, kind in KINDS.items():
        peers = {"wire": WIRE_ADDRESS}
        for number in range(1, pairs + 1):
            guest = Guest(f"{path}{number}", kind, index=len(found) + 1, slot=number if kind == "vif" else 0)
            serves = number < pairs
            guest.words = "guest.run=/usr/sbin/xen-virtual-guest"
            if not serves:
                guest.words += (f" guest.count={count} guest.sink={WIRE_ADDRESS} guest.to="
                                + ",".join(f"{name}:{address}" for name, address in peers.items()))
            peers["guest"] = guest.address
            found.append((guest, "serves" if serves else "measures"))
    return found


def make_initrd(path, plan):
    """dom0's image, and behind it what its guests are to be."""
    shutil.copyfile(xen_image.DOM0, path)
    vifs = sum(guest.kind == "vif" for guest, _ in plan)
    lines = [f"dom0 {DOM0_ADDRESS}/{BITS} {vifs}"]
    lines += [f"{guest.name} {guest.slot} {guest.mac} {what}" for guest, what in plan]
    with open(path, "ab") as handle:
        handle.write(b"\0" * (-handle.tell() % 512))
        archive = Archive(handle)
        archive.data("etc/xen/virtual", "".join(line + "\n" for line in lines).encode())
        for guest, _ in plan:
            archive.data(f"etc/xen/{guest.name}.cfg", guest.xl_config().encode())
        archive.end()


def command(args, plan, initrd, folder):
    """QEMU's words."""
    vifs = sum(guest.kind == "vif" for guest, _ in plan)
    at_once = max(1, max(sum(guest.kind == kind for guest, _ in plan) for kind in KINDS.values()))
    return [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-plugin", str(PLUGIN),
            "-machine", "q35", "-accel", "tcg", "-cpu", TCG_CPU, "-m", str(1536 + 256 * at_once),
            *virtual_time.clocked(args.shift),
            "-chardev", f"file,id=console,path={folder}/console", "-serial", "chardev:console",
            *xen_boots(DEFAULT_KERNEL, "guest.run=/usr/sbin/xen-virtual", initrd),
            "-device", "pcie-root-port,id=rp0,chassis=1,slot=1", "-device",
            f"svio-nic,id=svio0,bus=rp0,port=echo:{WIRE_ADDRESS},mac={CARD_MAC},vifs={vifs},{CARD_OPTIONS},"
            + virtual_time.on_virtual_cores(args)]


def run_all(args, plan):
    """What the console of each run said; they go at the same time, which none of them can tell."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="svio-xen-virtual-")))
        make_initrd(folder / "initrd", plan)
        consoles, waiting = [], list(range(args.runs))
        while waiting:
            with contextlib.ExitStack() as group:
                running = []
                for number in waiting[:min(host.cores(), AT_ONCE)]:
                    here = folder / str(number)
                    here.mkdir()
                    words = command(args, plan, folder / "initrd", here)
                    running.append((number, here, group.enter_context(virtual_time.launched(words, here))))
                del waiting[:len(running)]
                numbers = " and ".join(str(number + 1) for number, _, _ in running)
                with ui.Progress(f"Xen, dom0 and {len(plan)} guests in virtual time, run {numbers} of "
                                 f"{args.runs}"):
                    for number, here, process in running:
                        consoles.append(virtual_time.console_of(process, f"run {number + 1}", here, TIMEOUT))
    return consoles


# --- figures -------------------------------------------------------------------------------------

def lines_of(console):
    """Without what each of the consoles on the way has added to the ends of lines."""
    return re.sub(r"\r*\n(\r*\n)*", "\n", console)


def section(lines, name):
    """What dom0 printed about a guest; raises SvioError if it did not get there."""
    found = re.search(rf"^svio-guest-begin {name}$(.*?)^svio-guest-end {name}$", lines, re.S | re.M)
    if not found or "svio-figures-end" not in found[1]:
        raise SvioError(f"Guest {name} did not come to its figures.", "\n".join(lines.splitlines()[-20:]))
    return found[1]


def parts(text):
    """{what: text} of the figures in a guest's section."""
    return dict(re.findall(r"^svio-figures-begin (\S+)\n(.*?)^svio-figures-end$", text, re.S | re.M))


def card_frames(text, slot):
    """Frames that the card took from a VF, or from dom0 (slot 0), while a guest was there."""
    counts = []
    for line in re.findall(r"^\[\{.*\}\]$", text, re.M):
        link = json.loads(line)[0]
        if slot == 0:
            counts.append(link["stats64"]["tx"]["packets"])
        else:
            vf = next(vf for vf in link["vfinfo_list"] if vf["vf"] == slot - 1)
            counts.append(vf["stats"]["tx"]["tx_packets"])
    return counts[-1] - counts[0]


def rows_of(lines, plan, count):
    """[{path, what, text, ...}] of a run."""
    found = []
    for guest, what in plan:
        if what != "measures":
            continue
        path, said = re.match(r"[a-z]+", guest.name)[0], section(lines, guest.name)
        for key, text in parts(said).items():
            row = {"path": path, "what": key, "text": text}
            if key == "sent":
                sent, seconds = parse_throughput(text)
                row.update(per_s=sent / seconds, datagrams=sent, card_frames=card_frames(said, guest.slot))
            else:
                row.update(virtual_time.summary(text, count))
            found.append(row)
    return found


def check_quiet(lines):
    """No kernel, nor Xen, has complained."""
    problems = [line for line in lines.splitlines() if PROBLEMS.search(line) and not HARMLESS.search(line)]
    if problems:
        raise SvioError("A kernel or Xen complained during the measurement", "\n".join(problems))


def ratios(rows):
    """{what: VIF to split driver}."""
    def value(path, what):
        row = next((row for row in rows if row["path"] == path and row["what"] == what), None)
        return row and (row.get("median_us") or row["per_s"])
    return {what: value("vif", what) / value("split", what)
            for what in dict.fromkeys(row["what"] for row in rows) if value("split", what)}


WORDS = {"trips-wire": "ping of 64 bytes to the wire, virtual us",
         "trips-guest": "ping of 64 bytes from guest to guest, virtual us",
         "sent": "datagrams of 1400 bytes sent per virtual second"}


def say(result, runs):
    lines = []
    for what in WORDS:
        for row in (row for row in result["rows"] if row["what"] == what):
            if what == "sent":
                figures = [f"{row['per_s']:,.0f}", "", "", ""]
            else:
                figures = [f"{row[name]:,.0f}" for name in ("median_us", "min_us", "max_us", "lost")]
            ratio = f"{result['ratio'][what]:.3f}" if row["path"] == "vif" else "1"
            lines.append([WORDS[what], NAMES[row["path"]], *figures, ratio])
    ui.say()
    table(["", "path", "median", "min", "max", "lost", "ratio"], lines)
    if runs > 1:
        ui.say(f"  {runs} runs, each in its own QEMU: "
               + (f"equal byte for byte, {result['bytes']:,} bytes of Xen's, dom0's and the guests' consoles"
                  if result["equal"] else "DIFFERENT: " + result["difference"]) + ".")
    ui.say("\n" + result["meaning"])


def main(args, pairs):
    """Exit status 1: two runs differ."""
    plan = guests(pairs, args.count)
    meaning = MEANING.format(ns=1 << args.shift, poll=args.poll_cost_ns, message=args.message_cost_ns)
    result = {"kind": "xen-virtual-time", "meaning": meaning, "rows": [], "ratio": {}, "pairs": pairs,
              "runs": args.runs, "complete": False, "shift": args.shift, "poll_cost_ns": args.poll_cost_ns,
              "message_cost_ns": args.message_cost_ns, "xen": xen_image.VERSION.read_text().strip()}
    writer = Writer(args.json)
    with json_figures(args.json, result):
        writer.write(result)        # says now that a file cannot be written
        begin = time.monotonic()
        consoles = run_all(args, plan)
        lines = lines_of(consoles[0])
        rows = rows_of(lines, plan, args.count)
        result.update(rows=rows, ratio=ratios(rows), bytes=len(consoles[0]),
                      sha256=hashlib.sha256(consoles[0].encode()).hexdigest(),
                      **virtual_time.equality(consoles), seconds=time.monotonic() - begin, complete=True)
        writer.write(result)
        check_quiet(lines)
        say(result, args.runs)
        say_done(result, args.json)
    return 0 if result["equal"] else 1
