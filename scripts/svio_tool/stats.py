# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb "stats": the board's counters of a running VM, over QMP."""
import json
import sys

from svio_tool import ui, vm
from svio_tool.qmp import QmpClient
from svio_tool.ui import SvioError


def add_arguments(parser):
    parser.add_argument("name", nargs="?", metavar="NAME",
                        help="name of the VM (default: the only one that runs)")
    parser.add_argument("--device", default="svio0", metavar="ID", help="id of the card (default: svio0)")
    parser.add_argument("--vif", type=int, metavar="SLOT",
                        help="every counter of this VIF alone (0: the PF's own, N: that of VF N-1); "
                        "without, several VIFs are shown as a table")
    parser.add_argument("--json", metavar="FILE", help="write JSON to FILE, - for standard output")


def choose(name):
    """Facts of the VM that is meant."""
    found = vm.running()
    if name:
        found = [facts for facts in found if facts["name"] == name]
    if not found:
        raise SvioError(f"No VM named {name} runs in this checkout." if name else
                        "No VM runs in this checkout; scripts/svio vm starts one.")
    if len(found) > 1:
        raise SvioError("Several VMs run, say which: " + ", ".join(facts["name"] for facts in found) + ".")
    return found[0]


def lines(value, depth=0):
    """Aligned text of nested counters."""
    if isinstance(value, list):
        value = {f"[{index}]": item for index, item in enumerate(value)}
    # QEMU's dictionaries have no order of their own.
    value = dict(sorted(value.items(), key=lambda pair: (len(pair[0]) if pair[0].isdigit() else 0, pair[0])))
    plain = {key: item for key, item in value.items() if not isinstance(item, (dict, list))}
    width = max((len(key) for key in plain), default=0)
    for key, item in plain.items():
        shown = f"{item:>14,}" if isinstance(item, int) and not isinstance(item, bool) else f"{item!s:>14}"
        yield f"{'  ' * depth}{key:<{width}}  {shown}"
    for key, item in value.items():
        if isinstance(item, (dict, list)):
            yield f"{'  ' * depth}{key}:"
            yield from lines(item, depth + 1)


COLUMNS = ("tx_frames", "tx_bytes", "rx_frames", "rx_bytes")


def table(vifs):
    """One line for each VIF, and under it why frames were dropped."""
    yield f"{'slot':>6}  {'id':>4}" + "".join(f"{name:>16}" for name in COLUMNS) + f"{'dropped':>14}"
    for slot in sorted(vifs, key=int):
        vif = vifs[slot]
        drops = {key[5:]: count for key, count in vif.items() if key.startswith("drop_") and count}
        yield f"{slot:>6}  {vif.get('id', ''):>4}" + "".join(f"{vif[name]:>16,}" for name in COLUMNS) + \
            f"{sum(drops.values()):>14,}"
        if drops:
            yield " " * 14 + ", ".join(f"{key} {count:,}" for key, count in sorted(drops.items()))


def select(value, slot):
    """The counters of one VIF."""
    try:
        return value["vifs"][str(slot)]
    except KeyError:
        raise SvioError(f"There is no VIF in slot {slot}; there is one in "
                        f"{', '.join(sorted(value['vifs'], key=int))}.") from None


def write_json(value, name):
    """For --json FILE of any verb; a file is replaced only by a whole one."""
    text = json.dumps(value, indent=1) + "\n"
    if name == "-":
        sys.stdout.write(text)
        return
    try:
        with open(name, "w") as handle:
            handle.write(text)
    except OSError as error:
        raise SvioError(f"Cannot write {name}: {error.strerror}.") from error


def main(args):
    facts = choose(args.name)
    client = QmpClient(facts["control"], timeout=10)
    try:
        value = vm.read_stats(client, args.device)
    finally:
        client.close()
    if args.vif is not None:
        value = select(value, args.vif)
    if args.json:
        write_json(value, args.json)
        return 0
    ui.say(f"VM {facts['name']}, {args.device}" + ("" if args.vif is None else f", slot {args.vif}"))
    if len(value.get("vifs", ())) > 1:
        for line in table(value.pop("vifs")):
            ui.say(line)
    for line in lines(value, 1):
        ui.say(line)
    return 0
