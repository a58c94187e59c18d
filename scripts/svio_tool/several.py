# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures of programs that ran in several guests at once, of what they printed."""
import statistics

from svio_tool import lab_host
from svio_tool.latency import TX_SIZE, mbit_per_s, parse_ping_pong, parse_throughput
from svio_tool.ui import SvioError


def udp_counters(text):
    """{name: number} of UDP in /proc/net/snmp."""
    names, values = (line.split()[1:] for line in text.splitlines() if line.startswith("Udp: "))
    return dict(zip(names, map(int, values)))


def udp_received(text):
    """Datagrams that programs have read, of /proc/net/snmp."""
    return udp_counters(text)["InDatagrams"]


def trips_of(texts):
    """Medians over the pairs, and each pair's own."""
    each = [parse_ping_pong(text) for text in texts]
    return {**{name: statistics.median(one[name] for one in each) for name in ("p50_us", "p90_us", "p99_us")},
            "samples": sum(one["samples"] for one in each), "dropped": sum(one["dropped"] for one in each),
            "pairs": each}


def rates_of(texts, received):
    """The sum over the pairs, of what programs received while theirs sent."""
    each = []
    for text, count in zip(texts, received):
        sent, seconds = parse_throughput(text)
        each.append({"sent": sent, "received": count, "seconds": seconds, "per_s": count / seconds})
    total = sum(one["per_s"] for one in each)
    if not total:
        raise SvioError("Nothing was received", "\n".join(texts)[-2000:])
    return {"per_s": total, "mbit_per_s": mbit_per_s(total, TX_SIZE),
            "sent": sum(one["sent"] for one in each), "received": sum(received), "pairs": each}


def streams_of(texts):
    """The sum over the pairs, of what the receivers' iperf3 read."""
    each = [lab_host.parse(text) for text in texts]
    total = sum(one["stream_mbit_per_s"] for one in each)
    if not total:
        raise SvioError("Nothing was received by TCP", "\n".join(texts)[-2000:])
    return {"stream_mbit_per_s": total, "retransmits": sum(one["retransmits"] for one in each), "pairs": each}
