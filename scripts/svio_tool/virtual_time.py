# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb "virtual-time": a ping in VMs whose clock counts instructions, twice, equal byte for byte."""
import contextlib
import re
import shlex
import statistics
import subprocess
import tempfile
from pathlib import Path

from svio_tool import guest_image, kernels, setup, ui
from svio_tool.cpio import Archive
from svio_tool.demo import Writer, figures as json_figures, table
from svio_tool.paths import DEFAULT_KERNEL, PLUGIN, QEMU
from svio_tool.ui import SvioError
from svio_tool.vm import end_with_us

SCRIPT = Path(__file__).parent / "guest" / "virtual-time"
PEER = "10.0.2.2"
COST_NS = 1000              # the card's own default
MAC = "52:54:00:12:34:56"
# Name, netdev, device, whether the plugin is needed.
ROWS = {
    "vif-echo": ("VIF, port=echo", None, "svio-nic,port=echo"),
    "vif-user": ("VIF, QEMU's user network", "user,id=n0", "svio-nic,netdev=n0"),
    # Its usual ways to send are the main loop's, and so the host's: a timer of the virtual clock is not.
    "virtio-user": ("virtio-net, QEMU's user network", "user,id=n0",
                    "virtio-net-pci,netdev=n0,romfile=,ioeventfd=off,tx=timer,x-txtimer={message}"),
}
MEANING = """\
What these figures are: the length of the software path, not time. The guest's clock counts its
instructions ({ns} ns each), an on-board core takes {poll} ns for a look and {message} ns for a message
because that is what it was told. virtio-net sends {message} ns after it was notified, by its timer; all
else that QEMU itself does for it, and in its user network, counts nothing at all."""


def add_arguments(parser):
    parser.add_argument("--row", action="append", choices=ROWS, help="only this row (default: all)")
    parser.add_argument("--count", type=int, default=50, metavar="N", help="requests (default: 50)")
    parser.add_argument("--runs", type=int, default=2, metavar="N", help="runs of each row (default: 2)")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE, - for standard output")
    add_costs(parser, shift=0)


def add_costs(parser, shift):
    """What an instruction of the guests', and what the board's work takes of virtual time."""
    parser.add_argument("--shift", type=int, default=shift, metavar="N",
                        help=f"an instruction takes 2^N ns, 0 to 10 (default: {shift})")
    parser.add_argument("--poll-cost-ns", type=int, default=COST_NS, metavar="NS",
                        help=f"of a look of an on-board core (default: {COST_NS})")
    parser.add_argument("--message-cost-ns", type=int, default=COST_NS, metavar="NS",
                        help=f"of each message (default: {COST_NS})")


LIMITS = {"count": (1, 10000), "runs": (1, 100), "shift": (0, 10), "poll_cost_ns": (1, 10**9),
          "message_cost_ns": (0, 10**9)}


def check(args):
    for name, (low, high) in LIMITS.items():
        value = getattr(args, name)
        if not low <= value <= high:
            raise SvioError(f"--{name.replace('_', '-')} {value} is not between {low} and {high}.")


def clocked(shift):
    """QEMU's words for a machine into which nothing of the host's time or entropy comes."""
    return ["-smp", "1", "-seed", "1", "-icount", f"shift={shift},sleep=off",
            "-rtc", "base=2026-01-01,clock=vm"]


def on_virtual_cores(args):
    """Properties of a card whose cores this clock drives."""
    return (f"executor=virtual,poll-cost-ns={args.poll_cost_ns},"
            f"message-cost-ns={args.message_cost_ns}")


def command(row, args, folder):
    """QEMU's words. Nothing of the host's time or entropy comes in."""
    _, netdev, device = ROWS[row]
    words = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35",
             "-accel", "tcg", "-cpu", "max", "-m", "512", *clocked(args.shift),
             "-chardev", f"file,id=console,path={folder}/console", "-serial", "chardev:console",
             "-kernel", str(kernels.info(DEFAULT_KERNEL)["image"]), "-initrd", f"{folder}/initrd", "-append",
             "console=ttyS0 panic=-1 quiet nokaslr random.trust_cpu=on random.trust_bootloader=on "
             f"rdinit=/virtual-time guest.to={PEER} guest.count={args.count}"]
    if netdev:
        words += ["-netdev", netdev]
    device = device.format(message=max(args.message_cost_ns, 1))
    if device.startswith("svio"):
        words += ["-plugin", str(PLUGIN)]
        device += ",poll-us=0," + on_virtual_cores(args)
    return words + ["-device", f"{device},mac={MAC}"]


def make_initrd(path):
    """The guest image, and behind it the program of this verb."""
    path.write_bytes(guest_image.initrd(DEFAULT_KERNEL).read_bytes())
    with open(path, "ab") as handle:
        handle.write(b"\0" * (-handle.tell() % 512))
        archive = Archive(handle)
        archive.file("virtual-time", SCRIPT, 0o755)
        archive.end()


def figures(console):
    """What the guest printed between its marks; raises SvioError if it did not get there."""
    found = re.search(r"svio-figures-begin\r?\n(.*)svio-figures-end", console, re.S)
    if not found:
        raise SvioError("The guest did not come to its figures.", "\n".join(console.splitlines()[-15:]))
    return found.group(1).replace("\r", "")


def run(row, args, folder):
    """The guest's figures of one run, as text."""
    with launched(command(row, args, folder), folder) as process:
        return figures(console_of(process, row, folder))


@contextlib.contextmanager
def launched(words, folder):
    """A machine whose console is in the folder, and what QEMU says beside it; ended with the block."""
    ui.note(shlex.join(words))
    with open(Path(folder) / "qemu.err", "wb") as errors:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                                   start_new_session=True, preexec_fn=end_with_us())
    try:
        yield process
    finally:
        if process.poll() is None:
            ui.end_group(process)


def console_of(process, row, folder, timeout=300):
    """What a machine has said when it has turned itself off."""
    folder = Path(folder)
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise SvioError(f"The VM of {row} did not end within {timeout} s.",
                        ui.tail(folder / "console", 15)) from None
    if process.returncode:
        raise SvioError(f"QEMU of {row} ended with status {process.returncode}.",
                        (folder / "qemu.err").read_text(errors="replace"))
    return (folder / "console").read_text(errors="replace")


def summary(text, count):
    """{median_us, min_us, max_us, lost} of ping's lines."""
    times = sorted(float(ms) for ms in re.findall(r"time=([\d.]+) ms", text))
    if not times:
        raise SvioError("No ping was answered.", text)
    return {"median_us": round(1000 * statistics.median(times), 3), "min_us": round(1000 * times[0], 3),
            "max_us": round(1000 * times[-1], 3), "lost": count - len(times)}


def first_difference(one, other):
    lines = zip(one.splitlines() + [""], other.splitlines() + [""])
    return next((f"{a!r} and {b!r}" for a, b in lines if a != b), "one is longer")


def equality(texts):
    """{"equal", "difference"} of what all runs said."""
    odd = next((text for text in texts if text != texts[0]), None)
    return {"equal": odd is None, "difference": odd and first_difference(texts[0], odd)}


def measure(row, args, folder):
    texts = []
    for number in range(args.runs):
        with ui.Progress(f"{row}, run {number + 1} of {args.runs}"):
            texts.append(run(row, args, folder))
    return {"row": row, "name": ROWS[row][0], **summary(texts[0], args.count), "text": texts[0],
            **equality(texts)}


def say(result, runs):
    rows = []
    for one in result["rows"]:
        same = "equal" if one["equal"] else "DIFFERENT: " + one["difference"]
        rows.append([one["name"], same if runs > 1 else "not compared",
                     *(f"{one[name]:.0f}" for name in ("median_us", "min_us", "max_us")), str(one["lost"])])
    ui.say()
    table(["ping, virtual us", f"{runs} runs byte for byte", "median", "min", "max", "lost"], rows)
    ui.say("\n" + result["meaning"])


def main(args):
    """The verb. Exit status 1: two runs differ."""
    check(args)
    setup.ensure(setup.for_vm(DEFAULT_KERNEL))
    meaning = MEANING.format(ns=1 << args.shift, poll=args.poll_cost_ns, message=args.message_cost_ns)
    writer = Writer(args.json)
    result = {"kind": "virtual-time", "meaning": meaning, "rows": [], "shift": args.shift,
              "poll_cost_ns": args.poll_cost_ns, "message_cost_ns": args.message_cost_ns}
    with json_figures(args.json, result):
        writer.write(result)        # says now that a file cannot be written
        with tempfile.TemporaryDirectory(prefix="svio-virtual-") as folder:
            make_initrd(Path(folder) / "initrd")
            for row in dict.fromkeys(args.row or ROWS):
                result["rows"].append(measure(row, args, folder))
                writer.write(result)
        say(result, args.runs)
    return 0 if all(one["equal"] for one in result["rows"]) else 1
