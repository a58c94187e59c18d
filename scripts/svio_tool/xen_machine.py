# SPDX-License-Identifier: GPL-2.0-or-later
"""The Xen machine: Debian's Xen in QEMU, dom0 with a svio card, and PV guests on netfront or on a VIF.

    with XenMachine("xen", wire="netdev=n0", netdevs=["user,id=n0"], vifs=2) as xen:
        split = xen.create(Guest("split1", "netfront"))
        direct = xen.create(Guest("vif1", "vif", slot=1, vlan=100, rate=50))
        print(direct.run("ping -c 3 10.88.0.2").out)

One Ethernet segment, 10.88.0.0/16: what is at the wire has 10.88.0.1, dom0's bridge (with the card's PF as
its uplink) 10.88.0.2, guests the addresses from 10.88.0.11 on. A guest of the kind "direct" has a
whole emulated e1000e, which is on a wire of its own: 10.89.0.0/16, with 10.89.0.1 at the wire's other end.
"""
import json
import re
from dataclasses import asdict, dataclass

from svio_tool import kernels, xen_image
from svio_tool.adopted import Adopted
from svio_tool.agent import Agent
from svio_tool.paths import DEFAULT_KERNEL, RUN
from svio_tool.ui import SvioError
from svio_tool.vm import HARMLESS, PROBLEMS, SERVER, Vm

WIRE_ADDRESS, DOM0_ADDRESS, BITS = "10.88.0.1", "10.88.0.2", 16
CARD_MAC = "52:54:00:78:65:00"
DIRECT_ADDRESS, DIRECT_MAC = "10.89.0.1", "52:54:00:78:65:01"
# In the second root port: the firmware numbers the buses in their order, and VFs stay on the first one's.
PF_BUS, DIRECT_BDF = "0000:01", "0000:02:00.0"
# One port for each guest's agent; a guest has one from its start to its end.
GUEST_PORTS = 8
MAX_VIFS = 64
KINDS = ("netfront", "vif", "direct")
GUEST_MEMORY = 256
DOM0_MEMORY = 1024
# With -cpu max Xen's lazy FPU and TCG's XSAVE corrupt programs of guests.
TCG_CPU = "qemu64,+npt"


@dataclass
class Guest:
    """What a guest is to be. `slot` is the VF's number, from 1; rates are in Mb/s."""
    name: str
    kind: str                   # "netfront": bridge, netback and netfront; "vif": a VF with a VIF;
    #                             "direct": all of the machine's e1000e
    index: int = 0              # given by the machine: addresses follow from it
    slot: int = 0
    vlan: int = 0
    rate: int = 0
    memory: int = GUEST_MEMORY
    trust: bool = False
    words: str = ""             # on its kernel's command line, in place of the agent on its console

    def check(self):
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,30}", self.name) or self.name == "dom0":
            raise SvioError(f"A guest's name has letters, digits and dashes only, not: {self.name}")
        if self.kind not in KINDS:
            raise SvioError(f"Guest {self.name}: its kind is one of {', '.join(KINDS)}, not {self.kind}.")
        for value, low, high, what in ((self.vlan, 0, 4094, "vlan"), (self.rate, 0, 1000000, "rate"),
                                       (self.memory, 128, 16384, "memory")):
            if not isinstance(value, int) or not low <= value <= high:
                raise SvioError(f"Guest {self.name}: {what} is a number from {low} to {high}, not {value}.")
        if self.kind == "netfront" and (self.vlan or self.trust):
            raise SvioError(f"Guest {self.name}: vlan and trust are properties of a VIF; a netfront's port "
                            "of the bridge has none here.")
        if self.kind == "direct" and (self.vlan or self.trust or self.rate):
            raise SvioError(f"Guest {self.name}: vlan, trust and rate are properties of a VIF; nobody is "
                            "left to hold a guest with a NIC of its own to them.")

    @property
    def address(self):
        return f"10.{89 if self.kind == 'direct' else 88}.0.{10 + self.index}"

    @property
    def wire_address(self):
        """What is at the other end of its wire."""
        return DIRECT_ADDRESS if self.kind == "direct" else WIRE_ADDRESS

    @property
    def mac(self):
        if self.kind == "direct":
            return DIRECT_MAC
        return f"00:16:3e:78:65:{self.index:02x}"

    def xl_config(self, pf_bus=PF_BUS):
        """The configuration as xl reads it."""
        lines = [f'name="{self.name}"', 'type="pv"', 'kernel="/boot/guest-kernel"',
                 'ramdisk="/boot/guest.cpio"', f"memory={self.memory}", "vcpus=1", 'on_crash="preserve"',
                 f'extra="console=hvc0 loglevel=7 {self.words or "guest.agent=hvc0"} '
                 f'guest.ip={self.address}/{BITS}"']
        if self.kind == "netfront":
            rate = f",rate={self.rate}Mb/s" if self.rate else ""
            lines.append(f"vif=['mac={self.mac},bridge=xenbr0{rate}']")
            return "\n".join(lines) + "\n"
        # A PV guest with a PCI device sets 64 MiB aside for bounce buffers: a quarter of what it has.
        lines[-1] = lines[-1][:-1] + ' swiotlb=8192"'
        if self.kind == "direct":
            lines.append(f"pci=['{DIRECT_BDF},seize=1']")
        else:
            bdf = virtual_function(pf_bus, self.slot)
            words = [f"bdf={bdf}", f"mac={self.mac}"]
            words += [f"{key}={value}" for key, value in (("vlan", self.vlan), ("rate", self.rate)) if value]
            if self.trust:
                words.append("trust=on")
            lines += [f"pci=['{bdf},seize=1']", f"svio=['{','.join(words)}']"]
        return "\n".join(lines) + "\n"


def virtual_function(bus, slot):
    """PCI address of a VF: the first has the offset 0x80, and each the stride 2."""
    number = 0x80 + 2 * (slot - 1)
    return f"{bus}:{number >> 3:02x}.{number & 7}"


def xen_boots(kernel, append, initrd=xen_image.DOM0):
    """QEMU's words for Xen, and dom0 with these words on its kernel's command line."""
    def quoted(text):
        return str(text).replace(",", ",,")
    xen = (f"com1=115200,8n1 console=com1 dom0_mem={DOM0_MEMORY}M,max:{DOM0_MEMORY}M dom0_max_vcpus=1 "
           "loglvl=warning guest_loglvl=warning noreboot")
    linux = f"console=hvc0 loglevel=7 panic=-1 tsc=reliable {append}".strip()
    image = kernels.info(kernel)["image"]
    return ["-no-reboot", "-kernel", str(xen_image.HYPERVISOR), "-append", xen,
            "-initrd", f"{quoted(image)} {quoted(linux)},{quoted(initrd)}",
            # Before everything that it is to translate. Xen gives no device away without it.
            "-device", "intel-iommu,intremap=on"]


class RunningGuest:
    """A guest that runs; commands go to the agent on its console."""

    def __init__(self, machine, spec, port):
        self.machine, self.spec, self.port = machine, spec, port
        self.name = spec.name
        self.agent = None

    def meet(self, timeout=120):
        self.machine.run(f"xen-guest-agent {self.name} svio.guest.{self.port}")
        self.agent = Agent(self.machine.sockets / f"guest{self.port}", self.machine.check_alive)
        self.agent.connect(timeout)

    def run(self, command, timeout=60, check=True, stdin=None):
        return self.agent.run(command, timeout, check, stdin)

    def spawn(self, command, stdin=None):
        return self.agent.spawn(command, stdin)

    def put(self, name, data, mode=None):
        self.agent.put(name, data, mode)

    def get(self, name):
        return self.agent.get(name)

    def close(self):
        if self.agent:
            self.agent.close()
            self.agent = None


class XenMachine(Vm):
    """dom0 as a Vm: run() and the like are about it. `wire` is how the card's port is said to QEMU,
    `netdev=ID` or `port=...`; `direct` is the netdev of an e1000e for a guest, if there is to be one."""

    CONSOLE_SOCKET = True       # for "svio xen shell dom0"

    def __init__(self, name="xen", wire="netdev=n0", netdevs=("user,id=n0",), vifs=4, memory=3072,
                 card_options="", accel=None, bus="q35", guest_ports=GUEST_PORTS, direct=None, **options):
        if not 0 <= vifs <= MAX_VIFS:
            raise SvioError(f"The card has at most {MAX_VIFS} VIFs for guests, not {vifs}.")
        self.vifs, self.guest_ports = vifs, guest_ports
        self.guests = {}
        self.wire, self.card_options, self.direct = wire, card_options, direct
        super().__init__(name, netdevs=netdevs, machine=bus, accel=accel, memory=memory,
                         plugin=True, **options)
        self.kernel = DEFAULT_KERNEL    # Xen's, also where tests want another guest kernel

    # --- the command line ---------------------------------------------------------------------------

    def command(self):
        management = str(self.sockets / "mgmt").replace(",", ",,")
        self.nics = ["pcie-root-port,id=rp0,chassis=1,slot=1",
                     f"svio-nic,id=svio0,bus=rp0,{self.wire},mac={CARD_MAC},vifs={self.vifs},"
                     f"auto-vif=off,mgmt={management}{self.card_options and ',' + self.card_options}"]
        if self.direct:
            self.nics += ["pcie-root-port,id=rp1,chassis=2,slot=2",
                          f"e1000e,id=direct0,bus=rp1,netdev={self.direct},mac={DIRECT_MAC},romfile="]
        return super().command()

    def acceleration(self):
        words = super().acceleration()
        if "kvm" in words:
            # Else intel-iommu cannot remap interrupts.
            words[words.index("kvm")] = "kvm,kernel-irqchip=split"
        else:
            words[-1] = TCG_CPU
        return words

    def system(self):
        return xen_boots(self.kernel, self.append)

    def ports(self):
        return {**super().ports(), "mgmt": ("svio.mgmt", "reconnect-ms=200"),
                **{f"guest{n}": (f"svio.guest.{n}", SERVER) for n in range(self.guest_ports)}}

    def check_image(self):
        if not xen_image.DOM0.exists():
            raise SvioError("The Xen machine's image is not built yet: run scripts/svio xen up.")

    def prepare(self):
        super().prepare()
        for path in self.run_dir.glob("guest-*.log"):
            path.unlink()

    def meet(self, timeout):
        super().meet(timeout)
        self.run(f"xen-dom0-up {DOM0_ADDRESS}/{BITS} {self.vifs}", timeout=120)

    def stop(self, grace=20):
        try:
            self.keep_consoles()
        finally:
            for guest in self.guests.values():
                guest.close()
            self.guests = {}
            super().stop(grace)
            (self.run_dir / "xen.json").unlink(missing_ok=True)

    # --- a machine that goes on without us ----------------------------------------------------------

    def leave_running(self):
        """We end, and it does not; attach() finds it again."""
        state = {"options": {"vifs": self.vifs, "guest_ports": self.guest_ports}, "pid": self.pid,
                 "sockets": str(self.sockets),
                 "guests": [[asdict(guest.spec), guest.port] for guest in self.guests.values()]}
        (self.run_dir / "xen.json").write_text(json.dumps(state, indent=1) + "\n")
        self.release()

    def release(self):
        for guest in self.guests.values():
            guest.close()
        super().release()

    @classmethod
    def attach(cls, name):
        """The machine of this name that runs."""
        try:
            state = json.loads((RUN / name / "xen.json").read_text())
            process = Adopted(state["pid"], f"svio-{name}")
        except (OSError, ValueError, KeyError):
            raise SvioError("No Xen machine is running: start one with scripts/svio xen up.") from None
        machine = cls(name, **state["options"])
        for spec, port in state["guests"]:
            machine.guests[spec["name"]] = RunningGuest(machine, Guest(**spec), port)
        machine.adopt(process, state["sockets"])
        return machine

    def guest(self, name):
        if name not in self.guests:
            raise SvioError(f"There is no guest {name}; there are: dom0"
                            + "".join(f", {known}" for known in self.guests) + ".")
        return self.guests[name]

    # --- guests -------------------------------------------------------------------------------------

    def _place(self, spec):
        """The guest with what the machine decides: its number, and its slot unless it says one."""
        spec.check()
        if spec.name in self.guests:
            raise SvioError(f"There is a guest {spec.name} already.")
        taken = {guest.spec.index for guest in self.guests.values()}
        if not spec.index:
            spec.index = next(n for n in range(1, 200) if n not in taken)
        if spec.kind == "direct":
            if not self.direct:
                raise SvioError(f"No NIC is left for guest {spec.name}: the machine has none besides the "
                                "card.")
            if any(guest.spec.kind == "direct" for guest in self.guests.values()):
                raise SvioError(f"No NIC is left for guest {spec.name}: another guest has the e1000e.")
        if spec.kind == "vif":
            used = {guest.spec.slot for guest in self.guests.values()}
            spec.slot = spec.slot or next((n for n in range(1, self.vifs + 1) if n not in used), 0)
            if not 1 <= spec.slot <= self.vifs or spec.slot in used:
                raise SvioError(f"No VF is left for guest {spec.name}: the card has {self.vifs}.")
        used = {guest.port for guest in self.guests.values()}
        port = next((n for n in range(self.guest_ports) if n not in used), None)
        if port is None:
            raise SvioError(f"The machine has room for {self.guest_ports} guests.")
        return RunningGuest(self, spec, port)

    def create(self, spec, timeout=180):
        """Start a guest and wait for its agent."""
        guest = self.launch(spec)
        try:
            guest.meet(timeout)
        except SvioError as error:
            state = self.run("xl vcpu-list; xl list", check=False).out
            raise SvioError(f"Guest {spec.name} did not come up: {error.sentence}", "\n".join(
                (error.detail, state, self.console(spec.name)[-3000:]))) from error
        return guest

    def launch(self, spec):
        guest = self._place(spec)
        path = f"/etc/xen/{spec.name}.cfg"
        self.put(path, spec.xl_config().encode())
        self.run(f"xl create -q {path}", timeout=180)
        self.guests[spec.name] = guest
        return guest

    def destroy(self, name):
        """As when the power is cut; its console is kept."""
        guest = self.guests.pop(name)
        guest.close()
        self.keep_console(name)
        self.run(f"xl destroy {name}", timeout=120)

    def console(self, name):
        """What the guest's kernel and start-up said; not what the agent says there."""
        text = self.run(f"cat /var/log/xen/console/guest-{name}.log", check=False).out
        return "\n".join(line for line in text.replace("\r", "").splitlines() if '{"return"' not in line)

    def keep_console(self, name):
        (self.run_dir / f"guest-{name}.log").write_text(self.console(name))

    def keep_consoles(self):
        """Into files beside Xen's and dom0's own."""
        if not self.agent or not self.process or self.process.poll() is not None:
            return
        for name in list(self.guests):
            try:
                self.keep_console(name)
            except (SvioError, OSError):
                continue

    def guest_problems(self):
        """Lines of the guests' kernel logs that no healthy run has."""
        found = []
        for name, guest in self.guests.items():
            for line in guest.run("dmesg").out.splitlines():
                if PROBLEMS.search(line) and not HARMLESS.search(line):
                    found.append(f"{name}: {line}")
        return found

    # --- Xen's own accounts -------------------------------------------------------------------------

    def cpu_seconds(self):
        """{domain: CPU seconds} by Xen; in tenths, as xl says them."""
        found = {}
        for line in self.run("xl list").out.splitlines()[1:]:
            fields = line.split()
            found["dom0" if fields[0] == "Domain-0" else fields[0]] = float(fields[-1])
        return found

    def vif_list(self):
        """The card's VIFs, as svioctl in dom0 says them."""
        return json.loads(self.run("SVIO_SOCKET=/run/svio/mgmt svioctl vif list --json").out)["vifs"]
