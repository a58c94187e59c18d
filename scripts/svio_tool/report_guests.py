# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of the report that is about the number of guests: of "bench scaling --vms" and "xen bench"."""
from svio_tool import lab_bench, scaling_stats, xen_bench
from svio_tool.demo import spread_text
from svio_tool.vms_bench import FIGURES
from svio_tool.ui import SvioError

# (kind, name of the plot, its title, label of the axis, caption)
PLOTS = (("trip", "guests-p50", "Median round trip of 64 bytes by number of guests", "microseconds",
          "Round trips of 64 bytes, all guests at once, median (shorter is better)"),
         ("tcp", "guests-tcp", "TCP by number of guests, all streams together", "Mbit/s",
          "TCP streams of all pairs at once, together"),
         ("rate", "guests-rate", "Datagrams of 1400 bytes by number of guests, all together",
          "datagrams a second", "1400-byte datagrams that were received, all guests together"),
         ("into", "guests-into", "Datagrams of 1400 bytes into the guests by their number, all together",
          "datagrams a second", "1400-byte datagrams that the guests received, all together"))
HEADS = {"trip": "round trip, us", "tcp": "TCP, Mbit/s", "rate": "datagrams/s",
         "into": "datagrams into the guests/s"}
SOURCES = {"vms": "bench scaling --vms: from VM to VM, on this host",
           "xen": "xen bench: guests of the Xen machine to the peer on its wire"}
FAMILIES = {"svio": "self-virtualizing", "xen-vif": "self-virtualizing"}    # all others are paravirtual
KINDS = {"rtt": "trip", "tx": "rate", "rx": "into", "tcp_tx": "tcp"}      # of xen_bench's cells
FIGURE = {**{kind: name for kind, (name, _) in FIGURES.items()}, "into": "per_s"}


def source_of(result):
    """"vms", "xen", or None for what this is not about."""
    if isinstance(result.get("ways"), dict):
        return "vms"
    cells = result.get("cells")
    if isinstance(cells, list) and cells and all("path" in cell for cell in cells):
        return "xen"
    return None


def _cells(result, source):
    """[(kind, series, guests, cell)]"""
    if source == "vms":
        return [(kind, cell["way"], cell["vms"], cell) for kind, cells in result["cells"].items()
                for cell in cells]
    return [(KINDS[cell["kind"]], lab_bench.XEN_NAMES[cell["path"]], cell["guests"], cell)
            for cell in result["cells"]
            if cell["kind"] in KINDS and cell["peer"] == "wire" and cell["path"] in xen_bench.PATHS]


def series(result):
    """{kind: {series: {"title", "family", "points": {guests: median over the rounds, smallest, largest}}}}"""
    source, found = source_of(result), {}
    try:
        for kind, name, guests, cell in _cells(result, source):
            title = result["ways"][name] if source == "vms" else lab_bench.TITLES[name]
            one = found.setdefault(kind, {}).setdefault(name, {
                "title": title, "family": FAMILIES.get(name, "paravirtual"), "points": {}})
            one["points"].setdefault(guests, []).append(cell[FIGURE[kind]])
    except (KeyError, TypeError, AttributeError) as error:
        raise SvioError(f"The cells are not those of bench scaling --vms or xen bench ({error}).") from error
    for lines in found.values():
        for one in lines.values():
            one["points"] = {guests: scaling_stats.spread(values) for guests, values in
                             sorted(one["points"].items())}
    return found


def columns(lines):
    """{kind: head of its column}"""
    return {kind: head for kind, head in HEADS.items() if kind != "into" or kind in lines}


def parts(results):
    """[(heading, [(plot, its caption)], head of a table, its rows)] of these results."""
    from svio_tool import report_plots as draw
    found = []
    for result in results:
        source = source_of(result)
        lines = series(result)
        plots = [(draw.lines(lines[kind], f"{name}-{source}", title, label),
                  f"{caption}. Medians over {result['rounds']} rounds; the bar is from the smallest to the "
                  "largest.") for kind, name, title, label, caption in PLOTS if kind in lines]
        found.append((SOURCES[source], plots,
                      ("approach", "guests", *columns(lines).values()), list(rows(lines))))
    return found


def rows(lines):
    """(approach, guests, one text for each kind)"""
    names = {name: one["title"] for found in lines.values() for name, one in found.items()}
    for name, title in names.items():
        counts = {count for found in lines.values() if name in found for count in found[name]["points"]}
        for count in sorted(counts):
            texts = []
            for kind in columns(lines):
                one = lines.get(kind, {}).get(name, {"points": {}})["points"].get(count)
                texts.append(spread_text(one, ",.0f") if one else "-")
            yield (title, str(count), *texts)


def csv_rows(results):
    """(approach, load, figure, value, smallest, largest, rounds) as the other lines of figures.csv."""
    for result in results:
        for kind, found in series(result).items():
            for name, one in found.items():
                for count, point in one["points"].items():
                    yield (name, f"{source_of(result)}_{kind}_{count}", FIGURE[kind], point["value"],
                           point["min"], point["max"], result["rounds"])
