# SPDX-License-Identifier: GPL-2.0-or-later
"""Xen's split driver beside a VIF, in one boot of the Xen machine: latency, rates, and where CPU time goes.

Guests of both kinds run all the time, of the same kernel and image; a round visits every measurement in a
shuffled order. The wire is a native port of the card, and svio-wire-peer is at its other end, for both:
netfront's frames pass netback, dom0's bridge and the card's PF on their way to it. If it is asked for, one
more guest has a whole emulated NIC (QEMU's e1000e, passed through), on a wire of its own to the same peer.
Round trips are whole ones, in microseconds, of sockperf; TCP is iperf3's, whose server is in a network
namespace behind the peer, or in the other guest; CPU seconds are Xen's own, in tenths as xl says them. Of
several guests at once latencies are the median over the guests, and rates their sum.
"""
import random
import re
import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from svio_tool import lab_host, ui, xen_anatomy
from svio_tool.counting import Counting
from svio_tool.lab import SCHEDULED, scheduled
from svio_tool.latency import CELLS_SH, DISCARD_PORT, SOCKPERF_PORT, TX_SIZE, Row, WirePeer, \
    arm_each, board_difference, cpu_difference, go_words, parse_throughput, ratio, tx_rate
from svio_tool.scaling_stats import pick, spread
from svio_tool.several import rates_of, streams_of, trips_of, udp_received
from svio_tool.ui import SvioError
from svio_tool.xen_machine import DIRECT_ADDRESS, DIRECT_BDF, PF_BUS, WIRE_ADDRESS, Guest, XenMachine, \
    virtual_function

PATHS = ("split", "vif")
DIRECT = "direct"
KIND = {"split": "netfront", "vif": "vif", DIRECT: "direct"}
WIRE = {DIRECT: DIRECT}      # of the peer; all others share one
TCP = ("tcp_tx", "tcp_rx")   # out of the guests, and into them
COUNTS = (1, 2, 4)           # of guests at a time
# From guest to guest: what is measured is the same as to the wire.
BETWEEN = {"guest": "rtt", "guest_tx": "tx", "guest_tcp": "tcp_tx"}
# Until the guest has been up for so many hundredths of a second; a later start is not delayed.
AWAIT_SH = "read -r up _ </proc/uptime; left=$(({at} - ${{up%.*}}${{up#*.}})); " \
    "[ $left -le 0 ] || sleep $(printf %d.%02d $((left / 100)) $((left % 100))); "
LEAD = 0.3                  # seconds, for each guest
SERVE = f"sockperf server -p {SOCKPERF_PORT} >/dev/null 2>&1 </dev/null & iperf3 -s -D"
SECONDS = 3
# A guest of Xen that is emulated takes longer than the default budget from one message to the next, and then
# each of its messages would ring the doorbell. Xen's own path gains as much: its frames pass the PF.
CARD_OPTIONS = "poll-us=3000"
FLOOD_SECONDS = 2
FIRST_BOOT = 120            # seconds that a guest has for its first try
NETWORK = re.compile(r"\beth\d|\bvif\d|svio")


class Wire(Row):
    """Of the card, or of the e1000e. The peer has one address there and no other: guests' are their own."""

    @property
    def peer_ip(self):
        return DIRECT_ADDRESS if self.wire == DIRECT else WIRE_ADDRESS


class XenLab(Counting):
    """The machine with so many guests of each kind (one, of a NIC's owners), and the wire's peer; "counting":
    with all that xen_anatomy.py needs."""

    def __init__(self, pairs, name="xen-bench", accel=None, seconds=SECONDS, paths=PATHS, counting=False,
                 tcp=False):
        self.pairs, self.name, self.accel, self.seconds = pairs, name, accel, seconds
        self.paths, self.direct, self.counting = paths, DIRECT in paths, counting
        self.tcp, self.no_tcp = tcp, None       # whether it is wanted, and why there is none
        self.stack = ExitStack()
        self.vm = self.peer = self.folder = None
        self.guests = {}

    def __enter__(self):
        with ExitStack() as stack:
            folder = self.folder = Path(tempfile.mkdtemp(prefix="svio-xen-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self.wires = {"wire": Wire("svio-nic", "native", "wire", 1, folder, True)}
            if self.direct:
                self.wires[DIRECT] = Wire("e1000e", "netdev", DIRECT, 2, folder, False)
            self.peer = stack.enter_context(self._peer())
            with ui.Progress("Xen and dom0 boot"):
                self.vm = stack.enter_context(self._machine())
            for path in self.paths:
                for number in range(1, (1 if path == DIRECT else self.pairs) + 1):
                    self._boot(path, f"{path}{number}")
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *what):
        return self.stack.__exit__(*what)

    def _peer(self):
        """With a host behind it for TCP."""
        wires = list(self.wires.values())
        peer, self.no_tcp = lab_host.attempt(wires) if self.tcp else (None, None)
        return peer or WirePeer(wires)

    def _machine(self):
        direct = self.wires.get(DIRECT)
        guests = len(self.paths) * self.pairs
        return XenMachine(self.name, wire=self.wires["wire"].wire_words(),
                          netdevs=[direct.netdev()] if direct else [],
                          vifs=max(self.pairs, 1), card_options=CARD_OPTIONS, accel=self.accel,
                          memory=1536 + 256 * guests, guest_ports=guests,
                          direct=f"wire-{DIRECT}" if direct else None,
                          extra=self.counting_arguments() if self.counting else [],
                          before=self.counting_before())

    def rows(self):
        """For xen_anatomy.py: a path, its wire, and the NIC that carries its frames."""
        nics = {"split": f"{PF_BUS}:00.0", DIRECT: DIRECT_BDF}
        return [xen_anatomy.Row(path, WIRE.get(path, "wire"),
                                nics.get(path) or virtual_function(PF_BUS, guests[0].spec.slot),
                                "e1000e" if path == DIRECT else "svio-nic")
                for path, guests in self.guests.items()]

    def _boot(self, path, name):
        with ui.Progress(f"guest {name} boots") as progress:
            try:
                guest = self.vm.create(Guest(name, KIND[path]), FIRST_BOOT)
            except SvioError as error:
                # Seen once in dozens of starts: it boots, and then nothing comes from its console any more.
                # Nothing is measured yet.
                progress.title = f"guest {name} boots again ({error.sentence})"
                self.vm.destroy(name)
                guest = self.vm.create(Guest(name, KIND[path]))
            # Seconds after its last message a guest would ask by ARP whether the peer is still there, in the
            # middle of what is measured of another.
            address = guest.spec.wire_address
            guest.run(f"ping -c 3 -i 0.2 -W 5 -q {address} && "
                      f"ip neigh change {address} dev eth0 nud permanent && ip neigh show {address} | "
                      "grep PERMANENT")
            guest.run("mkdir -p /tmp/cells")
            if self.pairs > 1:
                guest.run(SERVE)        # to other guests; nothing of it runs while nobody asks
            guest.put("/tmp/cells.sh", CELLS_SH.encode())
            self.guests.setdefault(path, []).append(guest)

    # --- what is counted ----------------------------------------------------------------------------

    def snapshot(self, guests):
        """The agents read files by themselves, and start no program for it."""
        texts = {"dom0": self.vm.get("/proc/interrupts").decode()}
        for guest in guests:
            texts[guest.name] = (guest.get("/proc/interrupts") + guest.get("/proc/net/dev")).decode()
        return {"cpu": self.vm.cpu_seconds(), "board": self.vm.stats(),
                "threads": self.vm.thread_cpu_seconds(), **scheduled(self.vm.pid),
                "peer": self.peer.ask("counters")["cpu_s"],
                "events": {name: network_events(text) for name, text in texts.items()},
                "received": {guest.name: received(texts[guest.name]) for guest in guests}}

    def difference(self, before, after):
        events = {name: {key: value - before["events"][name].get(key, 0) for key, value in counts.items()}
                  for name, counts in after["events"].items()}
        host = {**cpu_difference(before["threads"], after["threads"]), "peer": after["peer"] - before["peer"]}
        return {"cpu_s": {name: round(value - before["cpu"].get(name, 0), 1)
                          for name, value in after["cpu"].items()}, "host_cpu_s": host,
                **{name: cpu_difference(before[name], after[name]) for name in SCHEDULED},
                "interrupts": events, "board": board_difference(before["board"], after["board"])}

    # --- measurements -------------------------------------------------------------------------------

    def trips_program(self, target, size=64, port=SOCKPERF_PORT):
        return f"sockperf ping-pong -i {target} -p {port} -t {self.seconds} -m {size} --full-rtt " \
               f"{self.trips_limit()}"

    def conversations(self, path, count):
        """[(guest that asks, guest that answers)]: neighbours, and of them first those that have not got
        both to do."""
        guests = self.guests[path]
        order = [*range(0, len(guests), 2), *range(1, len(guests), 2)]
        return [(guests[number], guests[number ^ 1]) for number in order[:count]]

    def programs(self, kind, path, count):
        """[(guest, what it runs)] for a measurement, which needs not have any."""
        if kind == "guest":
            return [(guest, self.trips_program(other.spec.address))
                    for guest, other in self.conversations(path, count)]
        if kind == "guest_tx":
            return [(guest, self.sending_program(other.spec.address, SOCKPERF_PORT))
                    for guest, other in self.conversations(path, count)]
        guests = self.guests.get(path, ())[:count]
        if kind == "rtt":
            return [(guest, self.trips_program(guest.spec.wire_address)) for guest in guests]
        if kind == "tx":
            return [(guest, self.sending_program(guest.spec.wire_address, DISCARD_PORT)) for guest in guests]
        return []

    def sending_program(self, target, port):
        return f"sockperf throughput -i {target} -p {port} -t {self.seconds} -m {TX_SIZE}"

    def hold(self, cells):
        """Start what these measurements [(kind, path, guests)] run, up to where sockperf begins: run()."""
        self.hold_programs([(guest, kind + str(count), program) for kind, path, count in cells
                            for guest, program in self.programs(kind, path, count)])

    def hold_programs(self, programs):
        """[(guest, name, program)]; what was held before is ended."""
        lines = {}
        for guest, name, program in programs:
            lines[guest] = lines.get(guest, "") + f"{name} {program}\n"
        arm_each(lines)

    def run(self, guests, name, wait=time.sleep):
        """The held programs of this name, at the same time: [their output]. wait(seconds) is called for the
        window itself, while they measure."""
        return self.run_at_once(guests, [partial(go_words, name)] * len(guests), wait)

    def run_at_once(self, guests, programs, wait=time.sleep):
        """[output] of what each of programs(words to run before) says. To start one takes a while: of several
        guests each waits for the same moment, or the first would be alone for a part of its window, and delay
        the others' start."""
        firsts, lead = [""] * len(guests), 0
        if len(guests) > 1:
            lead = LEAD * len(guests)
            begin = time.monotonic() + lead
            firsts = [AWAIT_SH.format(at=round(100 * (begin + ahead_of_host(guest)))) for guest in guests]
        started = [guest.spawn(program(first)) for guest, program, first in zip(guests, programs, firsts)]
        if lead:
            time.sleep(max(0, begin - time.monotonic()))
        wait(self.seconds)          # questions to a guest go through dom0, and would disturb it
        results = [process.wait(60) for process in started]
        for guest, result in zip(guests, results):
            if result.rc:
                raise SvioError(f"Measuring failed in guest {guest.name}", result.out[-1000:] + result.err)
        return [result.out for result in results]

    def measure(self, guests, run):
        """What run() gives, and what was counted meanwhile of these guests."""
        self.peer.ask("reset")
        before = self.snapshot(guests)
        found = run()
        return found, self.difference(before, self.snapshot(guests))

    def round_trips(self, path, count):
        guests = self.guests[path][:count]
        texts, counted = self.measure(guests, lambda: self.run(guests, f"rtt{count}"))
        return {**trips(texts), "peer": "wire", **counted}

    def sending(self, path, count):
        guests = self.guests[path][:count]
        texts, counted = self.measure(guests, lambda: self.run(guests, f"tx{count}"))
        sent = [parse_throughput(text) for text in texts]
        sink = self.peer.ask("counters")["wires"][WIRE.get(path, "wire")]["sink"]
        rate = tx_rate(sink, sum(one[0] for one in sent), max(one[1] for one in sent))
        return {"kind": "tx", "size": TX_SIZE, "peer": "wire", "messages": rate["datagrams"], **rate,
                **counted}

    def receiving(self, path, count):
        """The peer sends as fast as the wire takes frames, to each guest in turn."""
        guests, wire = self.guests[path][:count], WIRE.get(path, "wire")
        before = self.snapshot(guests)
        begin = time.monotonic()
        try:
            for guest in guests:
                self.peer.ask(f"flood {wire} {guest.spec.mac} {guest.spec.address} {TX_SIZE}")
            time.sleep(FLOOD_SECONDS)
        finally:
            self.peer.ask(f"flood {wire} off")
        seconds = time.monotonic() - begin
        after = self.snapshot(guests)
        each = [after["received"][guest.name] - before["received"][guest.name] for guest in guests]
        for guest, frames in zip(guests, each):
            if not frames:
                raise SvioError(f"Nothing of the flood came to guest {guest.name}")
        return {"kind": "rx", "size": TX_SIZE, "peer": "wire", "per_s": sum(each) / seconds,
                "messages": sum(each), "each": each, "seconds": seconds, **self.difference(before, after)}

    def streams(self, path, count, kind):
        """TCP out of the guests, or into them."""
        guests, wire = self.guests[path][:count], self.wires[WIRE.get(path, "wire")]
        programs = [after(lab_host.program(wire, self.seconds, kind == "tcp_rx", lab_host.PORT + number))
                    for number in range(count)]
        with self.peer.servers(wire, count):
            texts, counted = self.measure(guests, lambda: self.run_at_once(guests, programs))
        frames = self.peer.ask("counters")["wires"][wire.wire]
        return {"kind": kind, "size": lab_host.PAYLOAD, "peer": "wire",
                "messages": frames["tap_in"] + frames["tap_out"], **streams_of(texts), **counted}

    def between(self, kind, path, count):
        """From guest to guest."""
        asking, answering = zip(*self.conversations(path, count))
        guests = [guest for guest in self.guests[path] if guest in {*asking, *answering}]
        if kind == "guest_tcp":
            texts, counted = self.measure(guests, lambda: self.run_at_once(asking, [
                after(f"iperf3 -c {other.spec.address} -t {self.seconds} -J") for other in answering]))
            found = {"kind": BETWEEN[kind], "size": lab_host.PAYLOAD, **streams_of(texts)}
            found["messages"] = round(found["stream_mbit_per_s"] * 1e6 * self.seconds / 8 / lab_host.PAYLOAD)
        elif kind == "guest_tx":
            read = [udp_received(guest.get("/proc/net/snmp").decode()) for guest in answering]
            texts, counted = self.measure(guests, lambda: self.run(asking, kind + str(count)))
            read = [udp_received(guest.get("/proc/net/snmp").decode()) - old
                    for guest, old in zip(answering, read)]
            found = {"kind": BETWEEN[kind], "size": TX_SIZE, "messages": sum(read), **rates_of(texts, read)}
        else:
            texts, counted = self.measure(guests, lambda: self.run(asking, kind + str(count)))
            found = trips(texts)
        wire = self.peer.ask("counters")["wires"]["wire"]
        if wire["udp_echo"] or wire["sink"]["datagrams"]:
            raise SvioError("The wire's peer has answered in the place of a guest")
        return {**found, "peer": "guest", **counted}

    def idle(self):
        """Nothing is sent; the same questions are asked."""
        guests = [self.guests[path][0] for path in self.paths]
        before = self.snapshot(guests)
        time.sleep(self.seconds)
        return {"kind": "idle", "size": 0, "peer": "none", "messages": 0,
                **self.difference(before, self.snapshot(guests))}

    def cell(self, kind, path, count=1):
        """One measurement; its programs are held."""
        if kind == "idle":
            found = self.idle()
        elif kind in BETWEEN:
            found = self.between(kind, path, count)
        elif kind in TCP:
            found = self.streams(path, count, kind)
        else:
            found = {"rtt": self.round_trips, "tx": self.sending, "rx": self.receiving}[kind](path, count)
        return {"path": path, "guests": count, **found}

    def one(self, kind, path, count=1):
        """A measurement by itself."""
        self.hold([(kind, path, count)])
        return self.cell(kind, path, count)


def after(program):
    """Of what is to run first: that, and then the program."""
    return lambda first: first + program


def ahead_of_host(guest):
    """Seconds by which the guest has been up for longer than this host's monotonic clock says."""
    before = time.monotonic()
    up = float(guest.get("/proc/uptime").split()[0])
    return up - (before + time.monotonic()) / 2


def trips(texts):
    found = trips_of(texts)
    return {"kind": "rtt", "size": 64, "messages": found["samples"], **found}


def network_events(text):
    """{"event" or "device" and its name: how often} of a domain's network devices in its /proc/interrupts:
    event channels, and interrupts of PCI devices (which Xen delivers as event channels too)."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"\s*\d+:\s+((?:\d+\s+)+)(xen-\S+)\s+(\S+)\s+(.+)", line)
        if match and NETWORK.search(match[4]):
            kind = "device" if "pirq" in match[2] else "event"
            name = f"{kind} {match[4].strip()}"
            found[name] = found.get(name, 0) + sum(map(int, match[1].split()))
    return found


def received(text):
    """Frames that came in at eth0, of /proc/net/dev."""
    match = re.search(r"^\s*eth0:\s*\d+\s+(\d+)", text, re.M)
    return int(match[1]) if match else 0


# --- a run ---------------------------------------------------------------------------------------

def plan(pairs, quick, streams=()):
    """[(kind, path, guests)] of one round. One guest of a kind can only talk to the wire."""
    counts = COUNTS[:1] if quick else [count for count in COUNTS if count <= pairs]
    kinds = ["rtt", "tx", "rx", *streams]
    if pairs > 1:
        kinds += BETWEEN
    return [("idle", "none", 0), *((kind, path, count) for path in PATHS for kind in kinds
                                   for count in counts)]


def measure(lab, cells, rounds, seed, on_round=lambda cells: None):
    """All rounds; on_round gets the cells so far after each."""
    shuffle = random.Random(seed)
    done = []
    for number in range(1, rounds + 1):
        order = list(cells)
        shuffle.shuffle(order)
        title = f"round {number} of {rounds}"
        with ui.Progress(title) as progress:
            progress.title = f"{title}: start-up of the guests' programs"
            lab.hold(order)
            for kind, path, count in order:
                progress.title = f"{title}: {WORDS[kind]} {path} {count or ''}".rstrip()
                done.append({"round": number, **lab.cell(kind, path, count)})
            progress.title = title
        on_round(done)
    return done


WORDS = {"rtt": "round trips to the wire,", "tx": "sending,", "rx": "receiving,", "idle": "idle",
         "tcp_tx": "TCP out of", "tcp_rx": "TCP into", "guest": "round trips from guest to guest,",
         "guest_tx": "datagrams from guest to guest,", "guest_tcp": "TCP from guest to guest,"}


# --- figures -------------------------------------------------------------------------------------

def compare(cells, name, **wanted):
    """VIF to split driver: ratio of the medians, with the smallest and largest of a single round."""
    split, vif = (pick(cells, path=path, **wanted) for path in PATHS)
    return ratio(vif, split, name)


# {kind of cell: its figure}
FIGURES = {"rtt": "p50_us", "tx": "per_s", "rx": "per_s", **dict.fromkeys(TCP, "stream_mbit_per_s")}


def measured(cells):
    """[(kind, peer, guests)], in the order of FIGURES."""
    found = {(cell["kind"], cell["peer"], cell["guests"]) for cell in cells if cell["kind"] in FIGURES}
    order = list(FIGURES)
    return sorted(found, key=lambda one: (one[1] == "guest", order.index(one[0]), one[2]))


def ratio_key(kind, peer, count, name=None):
    """Of ratios(): "p50_1", "tx_2", "tcp_rx_4"; "p50_guest_1" and so on from guest to guest."""
    name = name or ("p50" if kind == "rtt" else kind)
    return f"{name}_{'guest_' if peer == 'guest' else ''}{count}"


def ratios(cells):
    found = {}
    for kind, peer, count in measured(cells):
        wanted = {"kind": kind, "peer": peer, "guests": count}
        found[ratio_key(kind, peer, count)] = compare(cells, FIGURES[kind], **wanted)
        if kind == "rtt":
            found[ratio_key(kind, peer, count, "p99")] = compare(cells, "p99_us", **wanted)
    return {name: value for name, value in found.items() if value}


def summary(cells, path, name, **wanted):
    return spread(cell[name] for cell in pick(cells, path=path, **wanted).values())


def per_message(cells, path, kind, **wanted):
    """{what: median over the rounds} for one message: a round trip, or a datagram."""
    found = {"dom0_us": [], "guest_us": [], "events": [], "device": []}
    for cell in pick(cells, path=path, kind=kind, **wanted).values():
        messages = cell["messages"]
        found["dom0_us"].append(cell["cpu_s"]["dom0"] * 1e6 / messages)
        found["guest_us"].append(guests_cpu(cell) * 1e6 / messages)
        for what in ("event", "device"):
            total = sum(value for counts in cell["interrupts"].values() for name, value in counts.items()
                        if name.startswith(what))
            found["events" if what == "event" else "device"].append(total / messages)
    return {name: statistics.median(values) for name, values in found.items() if values}


def cpu_shares(cells):
    """[((kind, peer, guests), path, dom0's CPU seconds in one measurement, its guests')]: medians with the
    smallest and the largest, by Xen's account; the guests' are those of the path, all of them."""
    found = []
    for kind, peer, count in [("idle", "none", 0), *measured(cells)]:
        for path in ("none", *PATHS):
            rounds = pick(cells, kind=kind, peer=peer, guests=count, path=path).values()
            if rounds:
                found.append(((kind, peer, count), path, spread(cell["cpu_s"]["dom0"] for cell in rounds),
                              spread(guests_cpu(cell) for cell in rounds)))
    return found


def guests_cpu(cell):
    return sum(value for name, value in cell["cpu_s"].items() if name.startswith(cell["path"]))
