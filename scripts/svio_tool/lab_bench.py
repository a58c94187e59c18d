# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb "bench": every approach to a guest's NIC side by side, in one guest; Xen's in its own machine."""
import contextlib
import os
import random
import shlex
import shutil
import textwrap
import time
from pathlib import Path

from svio_tool import anatomy, kernels, kvm, lab_stats, latency, paths, setup, ui, xen_anatomy, xen_bench,\
    xen_image
from svio_tool.demo import Noise, Writer, figures, host_facts, noise_text, rounds_of, say_done, table
from svio_tool.lab import APPROACHES, EMULATED_XEN, HEADLINES, NAMES, PARAVIRTUAL, SELF, WHATS, Lab
from svio_tool.ui import SvioError

# The headline figures need rounds, to have intervals; a quick run has only one of the other loads, once.
ROUNDS, QUICK_ROUNDS = 7, 4
XEN_ROUNDS = 3
QUICK_XEN_SECONDS = 2
QUICK_OTHERS = ("loaded",)
QUICK_REASON = "--quick leaves them out"
TAP_NAMES = ("virtio-tap", "svio-tap")
XEN_NAMES = {"split": "xen-split", xen_bench.DIRECT: "xen-direct", "vif": "xen-vif"}
EMULATED_XEN_NAMES = {"virtio": "xen-emulated-virtio", EMULATED_XEN.name: "xen-emulated-net",
                      "svio-native": "xen-emulated-vif"}
# {name: (title, family)} of the rows that have machines of their own.
MACHINES = {"xen-split": ("Xen netfront/netback", PARAVIRTUAL),
            "xen-direct": ("e1000e given to a Xen guest", "direct access"),
            "xen-vif": ("svio VIF in a Xen guest", SELF),
            "xen-emulated-virtio": ("virtio-net in a guest of QEMU's emulated Xen", PARAVIRTUAL),
            "xen-emulated-net": (EMULATED_XEN.title, EMULATED_XEN.family),
            "xen-emulated-vif": ("svio VIF in a guest of QEMU's emulated Xen", SELF)}
TITLES = {**{one.name: one.title for one in APPROACHES}, **{name: one[0] for name, one in MACHINES.items()}}
FAMILIES = {**{one.name: one.family for one in APPROACHES},
            **{name: one[1] for name, one in MACHINES.items()}}
LEAST_FREE = 16 << 20       # bytes; the raw data of a hundred rounds are smaller


def check_places(args):
    """A file or folder that cannot be written is said before the run, not after it."""
    report = getattr(args, "report", None)
    for name, folder in ((args.json, None if args.json in (None, "-") else Path(args.json).parent),
                         (report, Path(report) if report else None)):
        if folder is None:
            continue
        try:
            if name == report:
                folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(13, "Permission denied")
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise SvioError(f"Cannot write {name}: {error.strerror}.") from error
        if free < LEAST_FREE:
            raise SvioError(f"Cannot write {name}: its disk is full ({free >> 20} MB are left).")


def chosen(text, quick=False):
    """Names of --only, in the order of the table. Without it all; in a quick run all but those that are there
    to be compared with vhost."""
    if text is None:
        return tuple(name for name in NAMES if not (quick and name in TAP_NAMES))
    words = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in words if word not in NAMES]
    if unknown or not words:
        raise SvioError(f"--only wants names out of {', '.join(NAMES)}"
                        + (f"; {unknown[0]} is none of them." if unknown else "."))
    return tuple(name for name in NAMES if name in words)


def not_run():
    """What this host cannot have, and why."""
    emulated, why = kvm.emulates_xen()
    found = {} if emulated else {"xen-emulated-net": why}
    if not kvm.works()[0]:
        found["the same guest under KVM"] = why
    return found


def empty_result(names, rounds, seed, seconds, quick=False):
    return {"measurement": "bench", "approaches": {name: {"title": TITLES[name], "family": FAMILIES[name]}
                                                   for name in (*names, *MACHINES)},
            "cells": {}, "anatomy": {}, "anatomy_not_counted": {}, "summary": {}, "not_run": {}, "host": {},
            "qemu_lines": {}, "drivers": {}, "rounds": rounds, "seed": seed, "window_s": seconds,
            "quick": quick, "histogram_steps": lab_stats.STEPS, "complete": False,
            "rtt": "full round trip, microseconds"}


def fill(result, where, cells):
    result["cells"][where] = cells
    result["summary"] = lab_stats.summary(result["cells"])


def measure_guest(result, writer, names, seconds, append=""):
    """Round by round, and the anatomy at the end; what is there when it ends early stays."""
    with ui.Progress("a VM with all the NICs boots"):
        lab = Lab(names, seconds, append=append, tcp=not result["quick"])
        lab.__enter__()
    try:
        command = lab.vm.command()
        result["qemu_lines"]["guest"] = shlex.join(command)
        result["host"].update(host_facts(command))
        result["drivers"] = dict(lab.drivers)
        noise, cells, shuffle = Noise(lab), [], random.Random(result["seed"])
        if result["quick"]:
            result["not_run"]["1400-byte round trips, both directions at once, pktgen, TCP"] = \
                QUICK_REASON
            result["not_run"].update({name: QUICK_REASON for name in TAP_NAMES if name not in names})
        elif lab.no_tcp:
            result["not_run"]["TCP (iperf3)"] = lab.no_tcp
        for number in range(1, result["rounds"] + 1):
            cells += guest_round(lab, number, result["rounds"], shuffle, loads(number, result["quick"]))
            result["not_run"].update(lab.not_run)
            result["stalled"] = lab.stalled
            result["host"].update(others_cores=noise.others(), speed_spread=latency.speed_spread(cells))
            fill(result, "guest", cells)
            writer.write(result)
        with reporting("anatomy of a message") as report:
            merge_anatomy(result, *anatomy.measure(lab, report, whats=("system calls",)))
        writer.write(result)
        problems = lab.vm.kernel_problems()
    finally:
        lab.__exit__(None, None, None)
    if problems:
        raise SvioError("The guest's kernel complained during the measurement", "\n".join(problems))


@contextlib.contextmanager
def reporting(title, begin=None):
    """Progress with that title; yields report(what goes on), which says it beside the title."""
    with ui.Progress(begin or title) as progress:
        def report(text):
            progress.title = f"{title}: {text}"
        yield report


def merge_anatomy(result, found, gone):
    for name, one in found.items():
        result["anatomy"].setdefault(name, {}).update(one)
    result["anatomy_not_counted"].update(gone)


def measure_counting(result, writer, names, append=""):
    """The part of the anatomy whose counting would slow the rounds: in a machine of its own. Its failing is a
    reason, and no end of the bench."""
    names = tuple(name for name in names if name in result["summary"])
    try:
        with reporting("anatomy of a message", "a VM that counts boots") as report, \
                Lab(names, 1, name="bench-counting", append=append, counting=True) as lab:
            found, gone = anatomy.measure_counting(lab, report)
            merge_anatomy(result, found, {**gone, **{
                f"accesses and guest instructions of {name}": why for name, why in lab.not_run.items()}})
    except SvioError as error:
        merge_anatomy(result, {}, {"accesses, guest instructions and stage times": error.sentence})
    writer.write(result)


def loads(number, quick):
    """What is measured in this round, counted from 1: all of it; of a quick run the headline figures, and
    each of the few other loads in a round of its own."""
    return HEADLINES + QUICK_OTHERS[number - 1:number] if quick else WHATS


def guest_round(lab, number, rounds, shuffle, whats=WHATS):
    """Each of these measurements of each NIC once, the NICs in a shuffled order."""
    title = f"round {number} of {rounds}"
    rows = [row for row in lab.rows if row.key not in lab.not_run]
    if not rows:
        raise SvioError("No approach works any more",
                        "\n".join(f"{key}: {why}" for key, why in lab.not_run.items()))
    plan = lab.plan(shuffle.sample(rows, len(rows)), shuffle, whats)
    cells = []
    with ui.Progress(title) as progress:
        progress.title = f"{title}: start-up of the guest's programs"
        lab.arm(plan)
        for row, what in plan:
            if row.key in lab.not_run:      # it stalled in this round
                continue
            progress.title = f"{title}: {row.approach.title}, {what}"
            cell = lab.try_cell(row, what)
            if cell:
                cells.append({"round": number, **cell})
        progress.title = title
    return cells


def guest_of(domains):
    """The measured guest among these domains of Xen's."""
    return next((name for name in domains if name != "dom0"), "dom0")


def xen_cell(cell):
    """A cell of the Xen machine as those of the other: the guest's own interrupts, and the host's CPU time
    of the whole machine. What Xen itself said of its domains is in "domains"."""
    own = guest_of(cell["interrupts"])
    found = {**cell, "approach": XEN_NAMES[cell["path"]],
             "interrupts": sum(cell["interrupts"][own].values()), "cpu_s": cell["host_cpu_s"],
             "domains": {"cpu_s": cell["cpu_s"], "interrupts": cell["interrupts"]}}
    del found["host_cpu_s"]
    if cell["path"] == xen_bench.DIRECT:
        found.pop("board", None)        # of the card, which is not this guest's NIC
    if "per_s" in cell:
        found["mbit_per_s"] = latency.mbit_per_s(cell["per_s"], cell["size"])
    return found


def measure_xen(result, writer, rounds):
    seconds = QUICK_XEN_SECONDS if result["quick"] else xen_bench.SECONDS
    with xen_bench.XenLab(1, paths=tuple(XEN_NAMES), seconds=seconds, counting=True) as xen:
        result["qemu_lines"]["xen"] = shlex.join(xen.vm.command())
        result["host"]["xen"] = xen_image.VERSION.read_text().strip()
        result["host"]["xen_guest_kernel"] = kernels.info(xen.vm.kernel)["version"]
        noise = Noise(xen)

        def on_round(done):
            fill(result, "xen", [xen_cell(cell) for cell in done])
            result["host"]["xen_others_cores"] = noise.others()
            writer.write(result)

        plan = [(kind, path, 1) for path in XEN_NAMES for kind in ("rtt", "tx", "rx")]
        xen_bench.measure(xen, plan, rounds, result["seed"], on_round)
        with reporting("anatomy of a message in Xen") as report:
            keep_anatomy(result, XEN_NAMES, *xen_anatomy.measure(xen, report))


def keep_anatomy(result, names, found, gone):
    """What was counted in another machine; names: {its name for an approach: ours}."""
    merge_anatomy(result, {names[own]: one for own, one in found.items()},
                  {f"{what} ({', '.join(names.values())})": why for what, why in gone.items()})


def first_sentence(error):
    """Of an error and those that it came from: what the earliest that is meant for people says."""
    found = None
    while error is not None:
        other = found or f"{type(error).__name__}: {error}"
        found = error.sentence if isinstance(error, SvioError) else other
        error = error.__cause__ or error.__context__
    return found


def interrupted(error):
    """Whether it came of Ctrl-C: cleaning up after that can fail in turn, and hide it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def emulated_xen(seconds, append, **options):
    """A guest under KVM that takes QEMU for Xen, with the NIC of that and two others."""
    return Lab(tuple(EMULATED_XEN_NAMES), seconds, name="bench-xen-emulated", accel="kvm-xen",
               append=f"xen_emul_unplug=unnecessary {append}".strip(), **options)


def emulated_rounds(lab, rounds, seed, whats):
    """After each round the cells so far, by the names that approaches have in that machine."""
    cells, shuffle = [], random.Random(seed)
    for number in range(1, rounds + 1):
        cells += [{**cell, "approach": EMULATED_XEN_NAMES[cell["approach"]]}
                  for cell in guest_round(lab, number, rounds, shuffle, whats)]
        yield cells


def measure_emulated_xen(result, writer, rounds, seconds, append=""):
    with emulated_xen(seconds, append) as lab:
        result["qemu_lines"]["xen-emulated"] = shlex.join(lab.vm.command())
        for cells in emulated_rounds(lab, rounds, result["seed"], HEADLINES):
            fill(result, "xen-emulated", cells)
            result["not_run"].update({EMULATED_XEN_NAMES[name]: why for name, why in lab.not_run.items()})
            writer.write(result)
        with ui.Progress("anatomy of a message in the emulated Xen: system calls"):
            keep_anatomy(result, EMULATED_XEN_NAMES, *anatomy.measure(lab, whats=("system calls",)))
    with ui.Progress("anatomy of a message in the emulated Xen"), \
            emulated_xen(seconds, append, counting=True) as lab:
        keep_anatomy(result, EMULATED_XEN_NAMES, *anatomy.measure_counting(lab))


def run_machine(result, writer, names, measure):
    """In a machine of its own; its failing is a reason, and no end of the bench."""
    why = None
    try:
        measure()
    except Exception as error:      # whatever ails that machine, what was measured before must not suffer
        if interrupted(error):
            raise KeyboardInterrupt from error
        why = first_sentence(error)
    missing = [name for name in names if name not in result["summary"]]
    for name in missing:
        result["not_run"].setdefault(name, why or "it gave no figures")
    if why and not missing:
        result["not_run"][f"the rest of {', '.join(names)}"] = why
    writer.write(result)


def run_xen(result, writer, rounds):
    def measure():
        setup.ensure(["compile", "xen-image"])
        measure_xen(result, writer, rounds)

    run_machine(result, writer, tuple(XEN_NAMES.values()), measure)


# --- the tables ----------------------------------------------------------------------------------

def with_interval(found, form):
    if not found:
        return "-"
    text = f"{found['value']:{form}}"
    return text if found["low"] is None else f"{text} ({found['low']:{form}}..{found['high']:{form}})"


def latency_table(result):
    ui.say("\nRound trip, microseconds: median over the rounds and its 95 % bootstrap interval; in the last "
           "column with\n2,000 datagrams a second coming in beside it (Xen's rows: their own machine, "
           "compare them with each other)")
    rows = []
    for name, loads in result["summary"].items():
        row = [TITLES[name]]
        for load, figure in (("rtt_64", "p50_us"), ("rtt_64", "p99_us"), ("rtt_1400", "p50_us"),
                             ("loaded_64", "p50_us")):
            row.append(with_interval(loads.get(load, {}).get(figure), ",.0f"))
        row.insert(1, with_interval(loads.get("rtt_64", {}).get("ratio", {}).get("p50_us"), ".2f"))
        rows.append(row)
    table(["approach", "p50 64 B, ratio", "p50, 64 B", "p99, 64 B", "p50, 1400 B", "p50, loaded"], rows)


def rate_table(result):
    ui.say("\n1400-byte datagrams a second, the shortest frames that the kernel's packet generator sends, "
           "iperf3's\nMbit/s, and CPU milliseconds for a gigabit sent (vCPU + QEMU + on-board cores + peer)")
    rows = []
    for name, loads in result["summary"].items():
        row = [TITLES[name]] + [with_interval(loads.get(load, {}).get("per_s"), ",.0f")
                                for load in ("tx_1400", "rx_1400", "both_1400", "packets_18")]
        row += [with_interval(loads.get(load, {}).get("stream_mbit_per_s"), ",.0f")
                for load in ("tcp_tx_1448", "tcp_rx_1448")]
        cost = loads.get("tx_1400", {}).get("per_message", {})
        parts = [cost.get(f"cpu_s_per_gbit_{part}") for part in lab_stats.CPU]
        row.append(" + ".join("-" if part is None else f"{part * 1000:,.0f}" for part in parts))
        rows.append(row)
    table(["approach", "sent", "received", "both ways", "pktgen, 60 B", "TCP out", "TCP in", "CPU ms/Gbit"],
          rows)


def anatomy_table(result):
    if not result["anatomy"]:
        return
    ui.say("\nA 64-byte round trip is made of (trapping reads and writes of the NIC's registers by the "
           "guest, counted in\nQEMU's trace; context switches of QEMU's threads, and wake-ups: those after "
           "which one waited; its system\ncalls under strace; instructions that the guest executes, counted "
           "by a plugin of QEMU's; how often\neach frame is copied between guest and wire: in QEMU's memory "
           "+ by its system calls)")
    rows = []
    for name, one in result["anatomy"].items():
        cost = result["summary"].get(name, {}).get("rtt_64", {}).get("per_message", {})
        access, calls = one.get("accesses", {}), one.get("system_calls")
        switched = [f"{lab_stats.switched(cost, what):.1f}" if cost else "-" for what in lab_stats.SCHEDULED]
        rows.append([TITLES[name],
                     *(f"{access[key]:.2f}" if key in access else "-" for key in ("reads", "writes")),
                     doorbells_text(cost, one), f"{cost['interrupts']:.2f}" if cost else "-", *switched,
                     f"{sum(calls.values()):.1f}" if calls else "-",
                     f"{one['instructions']:,.0f}" if "instructions" in one else "-", copies_text(one)])
    table(["approach", "reads", "writes", "doorbells", "interrupts", "switches", "wake-ups",
           "system calls", "instructions", "copies"], rows)


def doorbells_text(cost, one):
    """The board counts its own, and other NICs' are among their trapping writes."""
    found = cost.get("bells", one.get("doorbells"))
    return "-" if found is None else f"{found:.2f}"


def copies_text(one):
    """Of an approach's anatomy."""
    copies = one.get("copies")
    if not copies:
        return "-"
    text = f"{copies['memory']:.1f} + {copies['system_calls']:.1f}"
    return f"{text} + {copies['grants']:.1f} by grants" if copies.get("grants") else text


def xen_rows(result):
    """[approach, what Xen did for each round trip]: of those whose machine has Xen."""
    for name, one in result["anatomy"].items():
        if "xen" in one:
            yield [TITLES[name], *(f"{one['xen'][key]:.2f}" for key in xen_anatomy.COLUMNS)]


def xen_table(result):
    rows = list(xen_rows(result))
    if rows:
        ui.say("\nWhat Xen did for a 64-byte round trip, all domains, by its own trace")
        table(["approach", *xen_anatomy.COLUMNS.values()], rows)


def stage_rows(result):
    """[approach, median of each stage]: of the boards that kept them."""
    for name, one in result["anatomy"].items():
        stages = one.get("stage_times")
        if stages:
            medians = [lab_stats.stage_quantile(stages.get(stage, {}), 0.5) for stage in lab_stats.STAGES]
            yield [TITLES[name], *("-" if value is None else f"{value / 1000:,.1f}" for value in medians)]


def stage_table(result):
    rows = list(stage_rows(result))
    if rows:
        ui.say("\nStages of a 64-byte message on the board, microseconds after the stage before, medians "
               "(SPEC.md 14.1;\npicked up: at most so long after the guest had posted it)")
        table(["approach", *lab_stats.STAGES.values()], rows)


def verdict_text(result, load, name, more, words):
    best = lab_stats.fastest(result["summary"], load, name, more)
    if not best:
        return ""
    ratio = best["ratio"]
    text = f"{words}: {TITLES[best['approach']]}"
    if ratio and best["approach"] != "virtio":
        text += f", {with_interval(ratio, '.2f')} of virtio-net's figure in the same round"
    if best["second"] and not best["apart"]:
        text += f"; {TITLES[best['second']]} is not clearly behind it"
    return text + "."


def verdicts(result):
    """The answers at a glance: which approach is fastest here and by how much."""
    found = [verdict_text(result, "rtt_64", "p50_us", False, "Shortest round trip"),
             verdict_text(result, "loaded_64", "p50_us", False, "Shortest under load"),
             verdict_text(result, "tx_1400", "per_s", True, "Most datagrams sent"),
             verdict_text(result, "rx_1400", "per_s", True, "Most datagrams received"),
             verdict_text(result, "both_1400", "per_s", True, "Most in both directions at once")]
    xen = result["summary"].get("xen-vif", {}).get("rtt_64", {}).get("ratio", {}).get("p50_us")
    if xen:
        found.append(f"In a Xen guest a VIF's round trip takes {with_interval(xen, '.2f')} of the split "
                     "driver's.")
    return [text for text in found if text]


def say(result):
    latency_table(result)
    rate_table(result)
    anatomy_table(result)
    xen_table(result)
    stage_table(result)
    ui.say()
    for text in verdicts(result):
        ui.say("  " + text)
    for name, why in {**result["not_run"], **result["anatomy_not_counted"]}.items():
        ui.say(f"  Not run: {TITLES.get(name, name)}: {why}")
    for name, times in result.get("stalled", {}).items():
        ui.say(f"  {TITLES[name]} stalled {len(times)} times and was set up again; the first: {times[0]}")
    facts = result["host"]
    accel = "TCG, which emulates the guest's CPU" if facts["accel"] == "tcg" else facts["accel"].upper()
    ui.say("\n" + textwrap.fill(f"All this holds for {facts['cores']} cores with {accel}. "
                                + noise_text(facts), 100))


# --- the verb ------------------------------------------------------------------------------------

def run(args, names, result, seconds=1, append=""):
    begin, writer = time.monotonic(), Writer(args.json)
    result["not_run"] = not_run()
    writer.write(result)
    ui.say(f"{len(names)} approaches in one guest, {result['rounds']} rounds in an order shuffled with seed "
           f"{result['seed']}" + ("" if args.no_xen else "; then Xen in its own machine"))
    try:
        measure_guest(result, writer, names, seconds, append)
        measure_counting(result, writer, names, append)
        if kvm.emulates_xen()[0]:
            run_machine(result, writer, tuple(EMULATED_XEN_NAMES.values()), lambda: measure_emulated_xen(
                result, writer, result["rounds"], seconds, append))
        if args.no_xen:
            result["not_run"].update({name: "--no-xen" for name in XEN_NAMES.values()})
        else:
            run_xen(result, writer, min(result["rounds"], XEN_ROUNDS))
    except BaseException as error:
        # The rounds so far stay, and say why they are no more.
        result["ended"] = "interrupted" if isinstance(error, KeyboardInterrupt) else first_sentence(error)
        writer.write(result)
        raise
    result["complete"] = True
    result["seconds"] = time.monotonic() - begin
    writer.write(result)
    say(result)
    if getattr(args, "report", None):
        from svio_tool import report        # which needs what is in here
        report.write([result], args.report)
    say_done(result, args.json)


def main(args):
    # Who says how many rounds there are wants every load in each.
    quick = bool(args.quick) and args.rounds is None
    names = chosen(args.only, quick)
    rounds = rounds_of(args, ROUNDS, QUICK_ROUNDS)
    seed = random.randrange(1 << 32) if args.seed is None else args.seed
    check_places(args)
    setup.ensure(setup.for_vm(paths.DEFAULT_KERNEL))
    with contextlib.suppress(SvioError):        # what they give is then "not run", with the reason
        setup.ensure(["packages-bench"])
    result = empty_result(names, rounds, seed, 1, quick)
    with figures(args.json, result):
        run(args, names, result)
    return 0
