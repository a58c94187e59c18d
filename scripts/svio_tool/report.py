# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb "report": one page, with all that it needs inside of it, of what "svio bench" measured."""
import csv
import io
import json
from html import escape
from pathlib import Path

from svio_tool import lab_bench, lab_stats, report_guests, report_xen, setup, ui, xen_anatomy
from svio_tool.demo import noise_text
from svio_tool.ui import SvioError

STYLE = (Path(__file__).parent / "report.css")
LOADS = (("rtt_64", "64 B round trip"), ("rtt_1400", "1400 B round trip"), ("loaded_64", "64 B, under load"),
         ("tx_1400", "sending"), ("rx_1400", "receiving"), ("both_1400", "both directions"),
         ("packets_18", "shortest frames sent by pktgen"),
         ("tcp_tx_1448", "TCP out"), ("tcp_rx_1448", "TCP in"))


def add_arguments(parser):
    parser.add_argument("raw", nargs="+", metavar="RAW.json",
                        help="what svio bench wrote; several runs of the same host are taken together. What "
                        "bench scaling --vms and xen bench wrote is shown over the number of guests")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for index.html and figures.csv")


# --- reading ---------------------------------------------------------------------------------------

def load(name):
    try:
        result = json.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise SvioError(f"{name} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise SvioError(f"{name} is not JSON, or it was cut off: {error}.") from error
    if isinstance(result, dict) and report_guests.source_of(result) and result.get("cells"):
        return result
    if not isinstance(result, dict) or result.get("measurement") != "bench" or not result.get("cells"):
        raise SvioError(f"{name} holds no rounds of svio bench: make it with scripts/svio bench --json FILE.")
    return result


def together(results):
    """One result of several runs: rounds are counted on, and the figures made anew of all cells."""
    total, shift = dict(results[0]), 0
    total["cells"] = {}
    for result in results:
        for where, cells in result["cells"].items():
            total["cells"].setdefault(where, []).extend({**cell, "round": cell["round"] + shift}
                                                        for cell in cells)
        shift += result["rounds"]
        total["not_run"] = {**result["not_run"], **total["not_run"]}
        total["anatomy"] = total["anatomy"] or result["anatomy"]
    try:
        total["summary"] = lab_stats.summary(total["cells"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SvioError(f"The cells are not those of svio bench ({error}).") from error
    total["not_run"] = {name: why for name, why in total["not_run"].items() if name not in total["summary"]}
    return total


# --- parts of the page -----------------------------------------------------------------------------

def table(caption, head, rows):
    """rows: lists of texts, the first of each is the row's header. It can be scrolled by keyboard, too."""
    cells = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join(f'<tr><th scope="row">{escape(row[0])}</th>'
                   + "".join(f"<td>{escape(text)}</td>" for text in row[1:]) + "</tr>" for row in rows)
    return (f'<div class="wide" role="region" tabindex="0" aria-label="{escape(caption)}"><table>'
            f"<caption>{escape(caption)}</caption><thead><tr>{cells}</tr></thead><tbody>{body}</tbody>"
            "</table></div>")


def plot(text, caption):
    return f"<figure>{text}<figcaption>{escape(caption)}</figcaption></figure>" if text else ""


def figure_rows(result):
    """[(approach, load, figure, {"value", "low", "high", "rounds"})]"""
    for approach, loads in result["summary"].items():
        for load_name, one in loads.items():
            for name, found in one.items():
                if name == "ratio":
                    yield from ((approach, load_name, f"{key}_ratio", value) for key, value in found.items()
                                if value)
                elif name in ("per_message", "quantiles_us"):
                    yield from ((approach, load_name, f"{key}{'_quantile_us' if name[0] == 'q' else ''}",
                                 {"value": value}) for key, value in found.items())
                else:
                    yield approach, load_name, name, found


def csv_text(result, guests=()):
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("approach", "load", "figure", "value", "low", "high", "rounds"))
    for approach, load_name, name, found in figure_rows(result):
        writer.writerow((approach, load_name, name, found["value"], found.get("low"), found.get("high"),
                         found.get("rounds")))
    for approach, one in result["anatomy"].items():
        for kind, load in (("accesses", "rtt_64"), ("system_calls", "rtt_64"), ("copies", "ping_1372"),
                           ("xen", "rtt_64")):
            for name, value in one.get(kind, {}).items():
                writer.writerow((approach, load, f"{kind}_{name}", value, None, None, None))
        for name in ("doorbells", "instructions"):
            if name in one:
                writer.writerow((approach, "rtt_64", f"guest_{name}", one[name], None, None, None))
        for stage, histogram in one.get("stage_times", {}).items():
            writer.writerow((approach, "rtt_64", f"stage_{stage.replace('/', '_')}_p50_ns",
                             lab_stats.stage_quantile(histogram, 0.5), None, None, None))
    writer.writerows(report_guests.csv_rows(guests))
    return out.getvalue()


def latency_rows(result):
    form = lab_bench.with_interval
    for key, loads in result["summary"].items():
        small = loads.get("rtt_64", {})
        quantiles = small.get("quantiles_us", {})
        yield [lab_bench.TITLES[key], form(small.get("ratio", {}).get("p50_us"), ".2f"),
               form(small.get("p50_us"), ",.0f"), form(small.get("p99_us"), ",.0f"),
               f"{quantiles['0.999']:,.0f}" if quantiles.get("0.999") else "-",
               form(loads.get("rtt_1400", {}).get("p50_us"), ",.0f"),
               form(loads.get("loaded_64", {}).get("p50_us"), ",.0f")]


def rate_rows(result):
    for key, loads in result["summary"].items():
        yield [lab_bench.TITLES[key]] + [
            lab_bench.with_interval(loads.get(name, {}).get(figure), ",.0f")
            for name in ("tx_1400", "rx_1400", "both_1400") for figure in ("per_s", "mbit_per_s")] + [
            lab_bench.with_interval(loads.get(name, {}).get(figure), ",.0f")
            for name, figure in (("packets_18", "per_s"), ("tcp_tx_1448", "stream_mbit_per_s"),
                                 ("tcp_rx_1448", "stream_mbit_per_s"))]


def anatomy_rows(result):
    for key, loads in result["summary"].items():
        cost, one = loads.get("rtt_64", {}).get("per_message", {}), result["anatomy"].get(key, {})
        access, calls = one.get("accesses", {}), one.get("system_calls")

        def text(value, form=".2f"):
            return "-" if value is None else format(value, form)
        yield [lab_bench.TITLES[key], text(access.get("reads")), text(access.get("writes")),
               lab_bench.doorbells_text(cost, one), text(cost.get("interrupts"))] + [
            text(cost.get(f"switches_{part}"), ".1f") for part in lab_stats.CPU[:3]] + [
            text(lab_stats.switched(cost, "wakeups") if "wakeups_vcpu" in cost else None, ".1f"),
            text(sum(calls.values()) if calls else None, ".1f"), text(one.get("instructions"), ",.0f"),
            lab_bench.copies_text(one),
            ", ".join(f"{name} {count:.1f}" for name, count in list(calls.items())[:4]) if calls else "-"]


def xen_part(result):
    rows = list(lab_bench.xen_rows(result))
    return table("What Xen did for a 64-byte round trip, all domains, by its own trace",
                 ("approach", *xen_anatomy.COLUMNS.values()), rows) if rows else ""


def stages(result):
    """Where on the board the time goes: a plot, and the same as a table."""
    from svio_tool import report_plots
    rows = list(lab_bench.stage_rows(result))
    if not rows:
        return ""
    picture = report_plots.stages(result, "stages", "Medians of a message's stages on the board, by mode")
    caption = ("Median time from each stage of a message on the board to the next, of histograms that the "
               "on-board cores keep. Picked up: at most so long after the guest posted it.")
    return (plot(picture, caption)
            + table("Stages on the board, medians in microseconds after the stage before",
                    ("SV-IO mode", *lab_stats.STAGES.values()), rows))


# Who carries a frame between the guest's queues and the wire.
MODEL = "QEMU's model of the NIC: the vCPU stops at\neach register, the I/O thread receives"
CARRIERS = {"virtio": "QEMU's I/O thread, woken by a doorbell,\nreads queues in the guest's RAM",
            "virtio-tap": "QEMU's I/O thread, woken by a doorbell,\nreads queues in the guest's RAM; TAP",
            "vhost": "a thread of the host's kernel, woken by a\ndoorbell, reads queues in the guest's RAM",
            "svio-tap": "an on-board core (a thread) polls the\nqueues and owns the wire, a TAP",
            "xen-net-device": "QEMU's own netback, woken by an event,\ncopies by grants",
            "svio-netdev": "an on-board core (a thread) polls the\nqueues; the wire is QEMU's",
            "svio-sleep": "an on-board core (a thread), woken by\ndoorbells and by its wire",
            "svio-two": "two on-board cores (threads) poll the\nqueues and own the wire"}
POLLED = report_xen.POLLED


def journey_parts(result, key):
    """(boxes, arrows) of an approach's picture; only figures that were measured stand on the arrows."""
    emulated = {name: own for own, name in lab_bench.EMULATED_XEN_NAMES.items()}
    approach = next((one for one in (*lab_bench.APPROACHES, lab_bench.EMULATED_XEN)
                     if one.name == emulated.get(key, key)), None)
    loads = result["summary"].get(key, {}).get("rtt_64")
    if not approach or not loads:
        return None
    cost, one = loads["per_message"], result["anatomy"].get(key, {})
    carrier = CARRIERS.get(approach.name, POLLED if approach.model == "svio-nic" else MODEL)
    access = one.get("accesses")
    down = f"{sum(access.values()):.2f} register accesses\ntrap" if access else "accesses not counted"
    up = f"{cost['interrupts']:.2f} interrupts"
    switched = lab_stats.switched(cost)
    calls = one.get("system_calls")
    wire = f"{sum(calls.values()):.1f} system calls\nof QEMU" if calls else "calls not counted"
    carried = cost["cpu_us_qemu_other"] + cost["cpu_us_on_board"]
    copied = f"{lab_bench.copies_text(one)} copies each way" if "copies" in one else "copies not counted"
    boxes = (f"guest: sockperf and its kernel\n{cost['cpu_us_vcpu']:.0f} us of its CPU",
             f"{carrier}\n{copied}; {carried:.0f} us of CPU",
             f"peer on the wire: {cost['cpu_us_peer']:.0f} us of CPU")
    return boxes, ((down, up), (wire, f"{switched:.1f} context switches\nof QEMU"))


def journeys(result):
    from svio_tool import report_plots
    parts = []
    for key in result["summary"]:
        found = report_xen.journey_parts(result, key) or journey_parts(result, key)
        if not found:
            continue
        title = result["approaches"][key]["title"]
        words = " ".join(" ".join(text.split()) + "." for text in (*found[0], *found[1][0], *found[1][1]))
        text = report_plots.journey(*found, result["approaches"][key]["family"], f"journey-{key}",
                                    escape(f"{title}: {words}"))
        parts.append(plot(text, title))
    return f'<div class="journeys">{"".join(parts)}</div>' if parts else ""


def why(result):
    """What the counts say of the fastest beside virtio-net; nothing that was not measured."""
    best = lab_stats.fastest(result["summary"], "rtt_64", "p50_us", False)
    if not best or best["approach"] == "virtio" or "virtio" not in result["summary"]:
        return ""
    texts = []
    for key in (best["approach"], "virtio"):
        cost = result["summary"][key].get("rtt_64", {}).get("per_message")
        if not cost:
            return ""
        switched = lab_stats.switched(cost)
        access = result["anatomy"].get(key, {}).get("accesses")
        texts.append(f"{lab_bench.TITLES[key]}: {switched:.1f} context switches of QEMU's threads, "
                     f"{cost['interrupts']:.1f} interrupts"
                     + (f", {sum(access.values()):.2f} trapping accesses" if access else "")
                     + f", {cost['cpu_us_on_board']:.0f} us of on-board cores")
    return "Why: what a 64-byte round trip is made of. " + "; ".join(texts) + "."


def plots(result):
    from svio_tool import report_plots as draw
    intervals = "The line on each bar is the 95 % bootstrap interval of the median over the rounds"
    rows = (("Latency", (
        (draw.bars(result, "rtt_64", "p50_us", "p50", "Median round trip of 64 bytes by approach",
                   "microseconds (shorter is better)"), f"Round trip of 64 bytes, median. {intervals}."),
        (draw.tails(result, "rtt_64", "tail", "Share of 64-byte round trips that took longer than a time"),
         "How many messages took longer than so long: the lower to the left, the better."),
        (draw.bars(result, "loaded_64", "p50_us", "loaded", "Median round trip under load by approach",
                   "microseconds"), "The same while 2,000 datagrams a second come in beside it."))),
        ("Rates", tuple(
            (draw.bars(result, f"{kind}_1400", "mbit_per_s", kind, f"Megabits a second, {text}",
                       "Mbit/s of frames"),
             f"1400-byte datagrams, {text}. {intervals}.")
            for kind, text in (("tx", "sent"), ("rx", "received"), ("both", "both directions at once"))) + (
                (draw.bars(result, "packets_18", "per_s", "packets",
                           "Shortest frames a second, sent by pktgen", "frames a second"),
                 "Frames of 60 bytes that the kernel's packet generator sends, without sockets and programs, "
                 f"and the peer receives. {intervals}."),) + tuple(
                (draw.bars(result, f"tcp_{way}_1448", "stream_mbit_per_s", f"tcp-{way}",
                           f"TCP, megabits a second, {text} the guest", "Mbit/s"),
                 f"iperf3, one stream {text} the guest. {intervals}.")
                for way, text in (("tx", "out of"), ("rx", "into")))),
        ("CPU for a gigabit", (
            (draw.cpu(result, "tx_1400", "cpu-tx", "CPU seconds for a gigabit sent, by who spends them"),
             "Sending: by whom the CPU time is spent."),
            (draw.cpu(result, "rx_1400", "cpu-rx", "CPU seconds for a gigabit received, by who spends them"),
             "Receiving: what the guest's UDP took."))))
    key = "".join(f'<li><span style="background:{colour}"></span>{escape(family)}</li>'
                  for family, colour in draw.COLOURS.items())
    return f'<ul class="key" aria-label="Colours of the bars">{key}</ul>' + "".join(
        f"<section><h2>{title}</h2>{''.join(plot(*one) for one in group)}</section>"
        for title, group in rows)


def guests_part(results):
    """Plots and tables over the number of guests; where nothing was measured, what to do about it."""
    parts = []
    for heading, plots_, head, rows in report_guests.parts(results):
        parts.append(f"<h3>{escape(heading)}</h3>{''.join(plot(*one) for one in plots_)}"
                     + table(f"Over the number of guests. {heading}", head, rows))
    if not parts:
        parts.append("<p>Not run. scripts/svio bench scaling --vms --json FILE and scripts/svio xen bench "
                     "--json FILE measure it; scripts/svio report takes their files beside this one's.</p>")
    return f"<section><h2>Rate and latency over the number of guests</h2>{''.join(parts)}</section>"


def limits(result):
    facts = result["host"]
    texts = []
    if facts.get("accel") == "tcg":
        texts.append("The guest's CPU is emulated (TCG): quote ratios, not microseconds. KVM changes them.")
    texts.append(noise_text({"others_cores": 0, **facts}))
    if not result["complete"]:
        texts.append(f"The run ended early ({result.get('ended', 'unknown')}): these are the rounds until "
                     "then.")
    texts.append("Xen's rows come from a machine of their own: compare them with each other alone.")
    texts.append("Guest instructions and stage times come from a machine of their own, in which they are "
                 "counted: counting slows the guest, so its messages are fewer. A block of instructions that "
                 "a fault ends early counts whole. In Xen's rows the instructions are those of Xen, dom0 and "
                 "the guest together, and the trapping accesses of netfront's row are dom0's to the card.")
    texts.append("Copies are those of frames of 1,414 bytes by QEMU's process: in its memory, and between it "
                 "and the kernel by system calls; of netfront's frames also what netback has Xen copy by "
                 "grants (the rest of a sent frame it maps). What the guest and the host's kernel copy for "
                 "themselves is not seen.")
    texts.append("Switches are the context switches of QEMU's threads by the host's kernel, wake-ups those "
                 "of them after which the thread waited.")
    if "vhost" in result["summary"]:
        texts.append("vhost's doorbells go to the host's kernel past QEMU, and are not seen.")
    texts.append("System calls are counted under strace, which slows QEMU: a core that polls looks more "
                 "often in vain meanwhile.")
    return texts


def page(result, guests=()):
    rounds = max(cell["round"] for cells in result["cells"].values() for cell in cells)
    items = "".join(f"<li>{escape(text)}</li>" for text in [*lab_bench.verdicts(result), why(result)] if text)
    facts = table("Host", ("fact", "value"), [(key, str(value)) for key, value in result["host"].items()])
    gone = {**result["not_run"], **result["anatomy_not_counted"]}
    stalls = [(lab_bench.TITLES.get(key, key), f"{len(times)} stalls, set up again; {times[0]}")
              for key, times in result.get("stalled", {}).items()]
    missing = table("Not run", ("what", "reason"), [
        (lab_bench.TITLES.get(key, key), text) for key, text in gone.items()] + stalls)
    lines = "".join(f"<h3>{escape(key)}</h3><pre tabindex=\"0\">{escape(line)}</pre>"
                    for key, line in result["qemu_lines"].items())
    how = ("Each NIC is in one guest and on a wire of its own; all wires end in the same peer, which blocks "
           f"and does not spin. Rounds: {rounds}, the order shuffled with seed {result['seed']}; sockperf "
           "measures, its first 400 ms are dropped.")
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Ways to give a guest a NIC, side by side</title><link rel="icon" href="data:,">
<style>{STYLE.read_text()}</style></head><body>
<a class="skip" href="#main">Skip to the figures</a>
<header><h1>Ways to give a guest a NIC, side by side</h1><p>{escape(how)}</p></header>
<main id="main"><section class="answer"><h2>At a glance</h2><ul>{items}</ul></section>
{plots(result)}
{guests_part(guests)}
<section><h2>Journey of a message</h2><p>A 64-byte round trip; figures are for each, out and back.
Copies are of a frame on each way, in QEMU's memory + by its system calls. In Xen's machine the times of guest
and dom0 are Xen's own, and events are signals of its event channels.</p>
{journeys(result)}</section>
<section><h2>Anatomy of a message</h2>{table("A 64-byte round trip is made of", ("approach", "trapping reads",
"trapping writes", "doorbells", "interrupts", "switches: vCPU", "QEMU", "on-board", "wake-ups",
"system calls", "guest instructions", "copies: memory + system calls",
"most frequent calls"), list(anatomy_rows(result)))}{xen_part(result)}{stages(result)}</section>
<section><h2>Tables</h2>{table("Round trips, microseconds, with 95 % intervals", ("approach",
"ratio to virtio-net", "p50", "p99", "p99.9", "p50, 1400 B", "p50, loaded"), list(latency_rows(result)))}
{table("Datagrams of 1400 bytes, with 95 % intervals", ("approach", "sent/s", "Mbit/s", "received/s",
"Mbit/s", "both/s", "Mbit/s", "60-byte frames/s", "TCP out, Mbit/s", "TCP in, Mbit/s"),
list(rate_rows(result)))}
<p><a href="figures.csv">All figures as CSV</a></p></section>
<section><h2>Not run</h2>{missing}</section>
<section><h2>Host and limits</h2>{facts}
<ul>{"".join(f"<li>{escape(text)}</li>" for text in limits(result))}</ul>
</section><section><h2>QEMU's command lines</h2>{lines}</section></main></body></html>
"""


# --- the verb ------------------------------------------------------------------------------------

def write(results, out):
    """index.html and figures.csv in the folder."""
    setup.ensure(["packages-report"])
    guests = [result for result in results if report_guests.source_of(result)]
    runs = [result for result in results if not report_guests.source_of(result)]
    if not runs:
        raise SvioError("A report is of what svio bench measured: give its file, too.")
    result = together(runs)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ui.replace_file(folder / "index.html", page(result, guests))
        ui.replace_file(folder / "figures.csv", csv_text(result, guests))
    except OSError as error:
        raise SvioError(f"Cannot write {out}: {error.strerror}.") from error
    ui.say(f"The report is {folder / 'index.html'}, its figures are in {folder / 'figures.csv'}.")


def main(args):
    write([load(name) for name in args.raw], args.out)
    return 0
