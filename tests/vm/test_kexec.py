# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel that starts another: the second finds a card that may still run, with the first one's rings."""
from case import Card, VmCase
from disturb import Transfers
from svio_tool import guest_image, kernels, transfer
from svio_tool.paths import GUEST_SLOWNESS
from svio_tool.vm import HARMLESS, PROBLEMS, Vm
from wires import DEADLINE, HOST_MAC, ByHand, Flood, mac_bytes, udp, user

MIB = 1 << 20
BOOT = "Linux version "
# What Vm itself says, and room for a crash kernel.
COMMAND_LINE = "console=ttyS0 panic=-1 loglevel=7 crashkernel=320M"


class TestKexec(Transfers, VmCase):
    NAME = "kexec"

    @classmethod
    def cards(cls):
        return [Card("hand", 1, ByHand(cls.folder, "hand", native=True)), Card("user", 2, user("user"))]

    @classmethod
    def make_vm(cls):
        cards = cls.card.values()
        return Vm(f"test-{cls.NAME}", nics=[card.device() for card in cards],
                  netdevs=[card.wire.netdev for card in cards if card.wire.netdev], memory=1280,
                  kernel=cls.KERNEL, append="crashkernel=320M")

    @classmethod
    def prepare(cls):
        cls.run_in(f"""set -e
            ip address replace 10.88.0.2/24 dev hand && ip link set hand up
            ip neighbour replace 10.88.0.1 lladdr {HOST_MAC.hex(":")} nud permanent dev hand
            ip address replace 10.0.2.15/24 dev user && ip link set user up
            ip route replace default via 10.0.2.2""")

    def _no_new_problems(self):
        """Of the kernel that runs now: the one before it perhaps crashed."""
        lines = self.vm.log().rpartition(BOOT)[2].splitlines()
        self.assertEqual([line for line in lines if PROBLEMS.search(line) and not HARMLESS.search(line)], [])

    def fetch(self):
        """Kernel and file system of this VM, to its /tmp, over the card."""
        for name, path in (("kernel", kernels.info(self.vm.kernel)["image"]),
                           ("initrd", guest_image.initrd(self.vm.kernel))):
            with transfer.server(path.read_bytes()) as daemon:
                self.run_in(f"curl -sS --fail -o /tmp/{name} "
                            f"http://10.0.2.2:{daemon.server_address[1]}/{name}", timeout=3 * DEADLINE)

    def start_other(self, load, start):
        """Loads it with these words of kexec, and starts it while both cards carry traffic."""
        self.fetch()
        self.run_in(f"kexec -s {load} /tmp/kernel --initrd=/tmp/initrd")
        card, boots = self.card["hand"], self.vm.log().count(BOOT)
        data = udp(mac_bytes(card.mac), bytes(1000))
        before = {name: self.vif(name) for name in self.card}

        def send(number):
            card.wire.drain()
            return card.wire.try_send(data)
        with Flood(send) as flood:
            self.start_process("ping -q -f 10.88.0.1")
            self.wait(lambda: self.vif("hand")["rx_frames"] > before["hand"]["rx_frames"] + 200, "the flood")
            self.vm.spawn(f"(sleep 0.3; {start}) &")
            self.wait(lambda: self.vm.log().count(BOOT) > boots, "the other kernel")
            # It is not asked before it is there: nothing may be on its way to an agent that is gone.
            self.vm.agent.close()
            self.vm.agent.connect(180 * GUEST_SLOWNESS)
            resets = {name: self.vif(name)["resets"] - before[name]["resets"] for name in self.card}
            self.name_interfaces()
            self.prepare()
            seen = flood.sent
            self.wait(lambda: flood.sent > seen + 200, "frames are taken")
        card.wire.drain()
        return resets

    def check_works(self):
        self.exchange_while(lambda number: None, size=4 * MIB, rounds=1)
        card = self.card["hand"]
        before = self.vif("hand")["tx_frames"]
        card.wire.drain()
        self.run_in("ping -q -c 5 -i 0.01 -W 1 10.88.0.1; true")
        self.assertGreaterEqual(self.vif("hand")["tx_frames"], before + 5)

    def test_kexec(self):
        """In order: the old kernel's driver has reset the card, the new one's does so again."""
        resets = self.start_other(f'-l --append="{COMMAND_LINE}"', "kexec -e -x")
        self.assertEqual(resets, {"hand": 2, "user": 2})
        self.check_works()

    def test_panic(self):
        """A crash: nobody stopped the card. It goes on with the old rings until the crash kernel's driver
        resets it, which is the only reset that it sees."""
        resets = self.start_other('-p --append="console=ttyS0 panic=-1 loglevel=7 nr_cpus=1 reset_devices"',
                                  "echo c >/proc/sysrq-trigger")
        self.assertIn("sysrq: Trigger a crash", self.vm.log())
        self.assertEqual(resets, {"hand": 1, "user": 1})
        self.assertGreater(int(self.run_in("stat -c %s /proc/vmcore")), 512 * MIB)
        self.check_works()

    def test_zz_healthy(self):
        for card in self.card.values():
            self.assertEqual(self.ethtool(card)["resets"], 0)
            self.assertEqual(self.vif(card.name)["queue_errors"], 0)
