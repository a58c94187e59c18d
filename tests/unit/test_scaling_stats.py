# SPDX-License-Identifier: GPL-2.0-or-later
"""The arithmetic of "bench scaling" on figures with known answers. No VM is needed."""
import contextlib
import io
import json
import os
import socket
import sys
import tempfile
import threading
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from svio_tool import bench, scaling, several, vms_bench, vms_lab  # noqa: E402 (the path comes first)
from svio_tool import scaling_stats as stats  # noqa: E402
from svio_tool.management import ManagementSocket  # noqa: E402
from svio_tool.ui import SvioError  # noqa: E402

UDP = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout
  144: 0100000A:4E21 00000000:0000 07 00000900:00000000 00:00000000 00000000     0        0 1234
  145: 0100000A:4E22 00000000:0000 07 00000000:00000100 00:00000000 00000000     0        0 1235
  146: 0100000A:4E23 00000000:0000 07 00001200:00000000 00:00000000 00000000     0        0 1236
"""


class Arithmetic(unittest.TestCase):
    def test_jain(self):
        self.assertEqual(stats.jain([5, 5, 5, 5]), 1)
        self.assertEqual(stats.jain([7, 0, 0, 0]), 0.25)
        # (1 + 2 + 3)^2 / (3 * (1 + 4 + 9))
        self.assertAlmostEqual(stats.jain([1, 2, 3]), 36 / 42)
        self.assertEqual(stats.jain([1, 2, 3]), stats.jain([1000, 3000, 2000]))
        with self.assertRaises(SvioError):
            stats.jain([0, 0])

    def test_shares_against_the_textbook(self):
        self.assertEqual(stats.shares([1, 3]), [0.25, 0.75])
        self.assertEqual(stats.share_errors([100, 200, 300, 400], [1, 2, 3, 4]), [0, 0, 0, 0])
        # The first has 0.3 and not 0.25, which is a fifth too much.
        errors = stats.share_errors([30, 70], [1, 3])
        self.assertAlmostEqual(errors[0], 0.2)
        self.assertAlmostEqual(errors[1], -1 / 15)
        self.assertAlmostEqual(stats.worst(errors), 0.2)
        self.assertEqual(stats.worst([-0.5, 0.2]), 0.5)
        with self.assertRaises(SvioError):
            stats.shares([0, 0])
        with self.assertRaises(ValueError):
            stats.share_errors([1, 2, 3], [1, 2])

    def test_spread(self):
        self.assertEqual(stats.spread([3, 1, 2]), {"value": 2, "min": 1, "max": 3})
        self.assertIsNone(stats.spread([]))

    def test_flows_go_around(self):
        self.assertEqual(stats.spread_flows(5, 2), {1: 1, 2: 2, 3: 1, 4: 2, 5: 1})
        for vifs in (1, 2, 4, 8, 16, 32):
            placed = list(stats.spread_flows(32, vifs).values())
            self.assertEqual({placed.count(vif) for vif in range(1, vifs + 1)}, {32 // vifs})

    def test_what_waits_in_the_guest(self):
        self.assertEqual(stats.unsent(UDP), {20001: 0x900, 20002: 0, 20003: 0x1200})
        ports, placed = {1: 20001, 2: 20002, 3: 20003}, {1: 1, 2: 2, 3: 1}
        self.assertEqual(stats.backlog(UDP, ports, placed), {1: 0x1b00, 2: 0})
        self.assertEqual(stats.backlog("", ports, placed), {1: 0, 2: 0})

    def test_counters_of_vifs(self):
        before = {"vifs": {"0": {"tx_frames": 5}, "1": {"tx_frames": 7}}}
        after = {"vifs": {"12": {"tx_frames": 4}, "1": {"tx_frames": 10}, "0": {"tx_frames": 5}}}
        self.assertEqual(list(stats.vif_difference(before, after, "tx_frames").items()),
                         [(0, 0), (1, 3), (12, 4)])


def rate(number, vifs, per_s):
    return {"round": number, "vifs": vifs, "per_s": per_s, "mbit_per_s": per_s / 100}


def share(number, load, weights, amounts, backlogged=True):
    return {"round": number, "load": load, "weights": weights, "backlogged": backlogged, "port_used": 0.98,
            "bytes": dict(enumerate(amounts, 1))}


def trip(number, load, p50, p99):
    cell = {"round": number, "load": load, "p50_us": p50, "p90_us": p50, "p99_us": p99, "dropped": 0}
    if load.startswith("flood"):
        cell.update(flood_sent_per_s=1000, flood_delivered_per_s=900, flood_dropped_per_s=100)
    return cell


def cells():
    values = {"alone": (40, 100), "flood-here": (80, 300), "flood-elsewhere": (80, 200), "vifs-64": (30, 60),
              "hub-64": (100, 200), "vifs-1400": (35, 70), "hub-1400": (100, 200)}
    return {"rate": [rate(number, vifs, per_s * number) for number in (1, 2, 3)
                     for vifs, per_s in ((1, 100), (2, 95), (32, 90))],
            "trip": [trip(number, load, *both) for number in (1, 2, 3) for load, both in values.items()],
            "share": [share(1, "equal", [1, 1], [50, 50]), share(2, "equal", [1, 1], [100, 0], False),
                      share(1, "weighted", [1, 3], [25, 75]), share(2, "weighted", [1, 3], [30, 70])]}


class Parts(unittest.TestCase):
    def test_total_rate(self):
        found = stats.total_rate(cells()["rate"])
        self.assertEqual(list(found), [1, 2, 32])
        self.assertEqual(found[32]["per_s"], {"value": 180, "min": 90, "max": 270})
        self.assertEqual(found[32]["ratio"], {"value": 0.9, "min": 0.9, "max": 0.9})
        self.assertEqual(found[1]["ratio"]["value"], 1)

    def test_fairness(self):
        found = stats.fairness(cells()["share"])
        self.assertEqual(found["equal"]["jain"], {"value": 0.75, "min": 0.5, "max": 1})
        self.assertEqual((found["equal"]["cells"], found["equal"]["not_backlogged"]), (2, 1))
        self.assertNotIn("jain", found["weighted"])
        self.assertAlmostEqual(found["weighted"]["worst_error"]["max"], 0.2)
        self.assertEqual(found["weighted"]["worst_error"]["min"], 0)
        self.assertEqual(found["weighted"]["shares"][0], {"value": 0.275, "min": 0.25, "max": 0.3})

    def test_round_trips(self):
        found = stats.round_trips(cells()["trip"], bench.TRIP_PAIRS)
        self.assertEqual(found["ratio"]["isolation"]["p99_us"], {"value": 1.5, "min": 1.5, "max": 1.5})
        self.assertEqual(found["ratio"]["vifs_64"]["p50_us"]["value"], 0.3)
        self.assertEqual(found["loads"]["alone"]["p99_us"]["value"], 100)
        some = [cell for cell in cells()["trip"] if cell["load"] != "hub-64"]
        self.assertNotIn("vifs_64", stats.round_trips(some, bench.TRIP_PAIRS)["ratio"])

    def result(self):
        result = bench.empty_result(scaling.Settings(), 3, 1)
        bench.fill(result, {key: cells()[key] for key in ("rate", "trip")})
        result["fairness"]["port_mbps"] = 90
        bench.fill(result, {"share": cells()["share"]})
        result["host"] = {"cores": 2, "accel": "tcg", "others_cores": 0.5}
        return result

    def test_the_json_has_all_parts(self):
        result = json.loads(json.dumps(self.result()))
        self.assertEqual(set(result["cells"]), {"rate", "trip", "share"})
        self.assertEqual(result["total_rate"]["32"]["ratio"]["value"], 0.9)
        self.assertEqual(result["fairness"]["port_mbps"], 90)

    def test_tables_and_their_reading(self):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            bench.rate_table(self.result())
            bench.fairness_table(self.result())
            bench.trip_table(self.result())
        text = out.getvalue()
        self.assertRegex(text, r"(?m)^  32 +180 +90\.\.270 +2 +0\.90 +0\.90\.\.0\.90$")
        self.assertIn("largest deviation from the textbook's share: 10.0% (0.0%..20.0%)", text)
        self.assertIn("0.7500 (0.5000..1.0000)", text)
        self.assertRegex(text, r"(?m)^  quiet VIF +another VIF flooded .* 1,000, 900$")
        words = " ".join(bench.reading(self.result()).split())
        for said in ("over 32 VIFs together reach 0.90 of what they reach over 1.", "Jain's index is 0.750",
                     "further than 10.0% from its weight's", "used to 98%", "In 1 of 4 of these windows",
                     "p99 is 1.50 times", "takes 0.30 of one", "a noisy run, repeat it"):
            self.assertIn(said, words)

    def test_an_interrupted_round_leaves_whole_ones(self):
        seen, calls = [], []

        def one(report):
            calls.append(None)
            report("something")
            if len(calls) == 3:
                raise KeyboardInterrupt
            return [("rate", {"vifs": 1}), ("trip", {"load": "alone"}), ("rate", {"vifs": 2})]
        with self.assertRaises(KeyboardInterrupt), contextlib.redirect_stderr(io.StringIO()):
            scaling.in_rounds(5, "title", one, lambda cells: seen.append(json.loads(json.dumps(cells))))
        self.assertEqual([len(cells["rate"]) for cells in seen], [2, 4])
        self.assertEqual(seen[1]["trip"], [{"round": 1, "load": "alone"}, {"round": 2, "load": "alone"}])

    def test_settings(self):
        self.assertEqual(scaling.Settings().vifs, 34)
        self.assertEqual(scaling.Settings(counts=(1,), equal=1, weights=(1,)).vifs, 4)
        self.assertEqual(len({scaling.flow_ip(flow) for flow in range(1, 600)}
                             | {scaling.vif_ip(vif) for vif in range(1, 65)} | {scaling.PEER}), 599 + 64 + 1)


class Management(unittest.TestCase):
    """The client against a socket of ours."""

    def serve(self, *answers):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(listener.close)
        path = os.path.join(folder.name, "mgmt")
        listener.bind(path)
        listener.listen()
        self.heard = []

        def serve():
            connection, _ = listener.accept()
            with connection, connection.makefile("rw") as file:
                for answer in answers:
                    self.heard.append(json.loads(file.readline()))
                    file.write(json.dumps(answer) + "\n")
                    file.flush()
        thread = threading.Thread(target=serve)
        thread.start()
        self.addCleanup(thread.join)
        client = ManagementSocket(path)
        self.addCleanup(client.close)
        return client

    def test_answers(self):
        client = self.serve({"status": "OK", "vif": {"slot": 1}},
                            {"status": "NOT_FOUND", "error": "There is no VIF in slot 9."},
                            {"status": "TRIMMED"})
        self.assertEqual(client.ask("vif-set", slot=1, set={"weight": 2})["vif"], {"slot": 1})
        with self.assertRaisesRegex(SvioError, "NOT_FOUND, There is no VIF in slot 9."):
            client.ask("vif-show", slot=9)
        self.assertEqual(client.ask("x"), {"status": "TRIMMED"})
        self.assertEqual(self.heard[0], {"op": "vif-set", "slot": 1, "set": {"weight": 2}})
        with self.assertRaisesRegex(SvioError, "closed the connection"):
            client.ask("info")

    def test_nobody_there(self):
        with self.assertRaisesRegex(SvioError, "No card answers"):
            ManagementSocket("/nonexistent/mgmt")


SOCKPERF = """\
sockperf: [Valid Duration] RunTime=0.5 sec; SentMessages={n}; ReceivedMessages={n}
sockperf: Summary: Round trip is {p50} usec
sockperf: # dropped messages = 0; # duplicated messages = 0; # out-of-order messages = 0
sockperf: ---> <MAX> observation = {p99}
sockperf: ---> percentile 99.000 = {p99}
sockperf: ---> percentile 90.000 = {p50}
sockperf: ---> percentile 50.000 = {p50}
"""
SNMP = """\
Ip: Forwarding DefaultTTL
Ip: 2 64
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors
Udp: 4711 0 9 3 9
"""


class VmToVm(unittest.TestCase):
    """The arithmetic of "bench scaling --vms"."""

    def test_pairs(self):
        self.assertEqual(vms_lab.pairs(1), [(1, vms_lab.SELF)])
        self.assertEqual(vms_lab.pairs(2), [(1, 2)])
        self.assertEqual(vms_lab.pairs(8), [(1, 2), (3, 4), (5, 6), (7, 8)])

    def test_what_programs_said(self):
        found = several.trips_of([SOCKPERF.format(n=10, p50=100, p99=900),
                                  SOCKPERF.format(n=6, p50=200, p99=300)])
        self.assertEqual((found["p50_us"], found["p99_us"], found["samples"]), (150, 600, 16))
        self.assertEqual(several.udp_received(SNMP), 4711)
        sent = ["sockperf: Total of 900 messages sent in 2.000 sec", "Total of 400 messages sent in 1.0 sec"]
        found = several.rates_of(sent, [800, 300])
        self.assertEqual((found["per_s"], found["sent"], found["received"]), (700, 1300, 1100))
        self.assertAlmostEqual(found["mbit_per_s"], 700 * 1442 * 8 / 1e6)
        with self.assertRaisesRegex(SvioError, "Nothing was received"):
            several.rates_of(sent, [0, 0])
        end = {"end": {"sum_received": {"bits_per_second": 5e6}, "sum_sent": {"retransmits": 2}}}
        found = several.streams_of([json.dumps(end)] * 2)
        self.assertEqual((found["stream_mbit_per_s"], found["retransmits"]), (10, 4))
        with self.assertRaisesRegex(SvioError, "iperf3 in the guest: unable to connect"):
            several.streams_of(['{"error": "unable to connect"}'])

    def test_ratios_are_to_the_best_of_the_same_round(self):
        trips = {"svio": (50, 80), "mcast": (100, 200), "stream-hub": (200, 100), "dgram": (40, 40)}
        rates = {"svio": (300, 300), "mcast": (100, 200), "stream-hub": (50, 250), "dgram": (600, 600)}
        cells = {"trip": [], "tcp": [], "rate": []}
        for number in (1, 2):
            for way, p50 in trips.items():
                cells["trip"].append({"round": number, "way": way, "vms": 2, **dict.fromkeys(
                    ("p50_us", "p90_us", "p99_us"), p50[number - 1])})
            for way, rate in rates.items():
                cells["tcp"].append({"round": number, "way": way, "vms": 2,
                                     "stream_mbit_per_s": rate[number - 1]})
                cells["rate"].append({"round": number, "way": way, "vms": 2, "per_s": rate[number - 1]})
        result = vms_bench.empty_result(vms_lab.Settings(), 2, 1)
        vms_bench.fill(result, cells)
        found = result["vms"][2]
        self.assertEqual(found["ratio"]["trip"], {"value": 0.65, "min": 0.5, "max": 0.8})
        self.assertEqual(found["ratio"]["rate"], {"value": 300 / 175, "min": 1.2, "max": 3})
        self.assertEqual(found["straight"]["tcp"], {"value": 0.5, "min": 0.5, "max": 0.5})
        self.assertEqual(found["ways"]["svio"]["trip"]["p50_us"], {"value": 65, "min": 50, "max": 80})

    def test_straight_wires_have_two_ends(self):
        """Each end's remote path is the other's local one; VM 1 alone has nobody."""
        wires = vms_lab.Wires(Path("/tmp/x"), vms_lab.Settings())
        straight = vms_lab.WAYS[-1]
        one, two = (wires.netdev(straight, number) for number in (3, 4))
        self.assertIn("local.path=/tmp/x/dgram.3.vm,remote.type=unix,remote.path=/tmp/x/dgram.4.vm", one)
        self.assertIn("local.path=/tmp/x/dgram.4.vm,remote.type=unix,remote.path=/tmp/x/dgram.3.vm", two)
        lab = vms_lab.Lab(vms_lab.Settings(counts=(1,)))
        self.assertEqual(lab.numbers_of(straight, 1), [])
        self.assertFalse(lab.possible(straight, 1))
        self.assertEqual(lab.numbers_of(vms_lab.SVIO, 1), [1, vms_lab.SELF])


if __name__ == "__main__":
    unittest.main()
