# SPDX-License-Identifier: GPL-2.0-or-later
"""Cards and memory that come and go under traffic, and a guest that sleeps: three cards in one VM."""
import itertools

from disturb import Transfers
from plug import PlugCase, PortCard
from sleep import MAY_SLEEP, Sleeper
from svio_tool import transfer
from svio_tool.worker import long
from wires import cross, user

MIB = 1 << 20


class TestPlug(Sleeper, Transfers, PlugCase):
    """The machine's default: ACPI hot-plug, whose guest gives a card back at once."""

    NAME, MORE_MEMORY = "plug", ",slots=32,maxmem=4G"
    # What is plugged in is the kernel's, and only there: so the rings get there.
    APPEND = "memhp_default_state=offline"
    EXTRA = MAY_SLEEP["q35"]
    PAIRS = {"native": (1, "pa", "pb")}

    @classmethod
    def cards(cls):
        one, other = cross(cls.folder, "port", native=True)
        return [PortCard("pa", 1, one), PortCard("pb", 2, other, "cores=2"),
                PortCard("user", 3, user("user"))]

    @classmethod
    def prepare(cls):
        super().prepare()
        cls.set_up_user()

    # ---- cards ----

    def test_card_comes_and_goes(self):
        """One card goes in the middle of its own transfer, while two others carry files."""
        card, held = self.card["user"], self.held()

        def disturb(processes):
            for number in range(4):
                with transfer.server(self.noise(64 * MIB)) as daemon:
                    daemon.handle_error = lambda *ignored: None
                    url = f"http://10.0.2.2:{daemon.server_address[1]}/file"
                    process = self.start_process(f"curl -sS -o /dev/null {url}")
                    self.wait_bytes(MIB, process)
                    self.unplug(card)
                    process.kill()
                self.wait_interface(card, False)
                self.wait(lambda: len(self.threads()) == held[0] - 1, "the end of its core")
                self.vm.check_alive()
                if number % 2:
                    self.vm.qmp("netdev_del", id="net-user")
                    self.vm.qmp("netdev_add", type="user", id="net-user")
                self.plug(card)
                self.set_up_user()
                self.wait_held(held)
                self.exchange(MIB)
        self.tcp_both_ways([end[3] for end in self.ends("native")], 24, disturb=disturb)
        self.exchange()

    def test_peer_goes_under_traffic(self):
        """The far end of a native port goes in the middle of a flood; a third card does not notice."""
        card, held = self.card["pb"], self.held()

        def disturb(number):
            flood = self.start_process("ip netns exec A ping -qf 10.1.0.2")
            before = self.vif("pb")["rx_frames"]
            self.wait(lambda: self.vif("pb")["rx_frames"] > before + 50, "the flood arrives")
            self.unplug(card)
            self.wait(lambda: len(self.threads()) == held[0] - 2, "the end of its cores")
            self.plug(card, "B")
            self.set_up("native")
            self.wait_ping("10.1.0.2 -I 10.1.0.1", prefix="ip netns exec A")
            flood.kill()
        self.exchange_while(disturb, size=3 * MIB, rounds=2)
        self.wait_held(held)
        self.tcp_both_ways([end[3] for end in self.ends("native")], 2)

    # ---- memory ----

    def test_memory_comes_and_goes(self):
        """The memory map changes under traffic; rings move into memory that was plugged in."""
        size = 128 * MIB
        blocks = "/sys/devices/system/memory"

        numbers = itertools.count()

        def offline():
            return self.run_in(f"grep -x offline {blocks}/memory*/state; true").split()

        def disturb(_):
            number = next(numbers)
            self.vm.qmp("object-add", qom_type="memory-backend-ram", id=f"ram{number}", size=size)
            # In a slot of its own: the guest looks a moment later whether that of one that has left is empty,
            # and in one that is not it hears of nothing new.
            self.vm.qmp("device_add", driver="pc-dimm", id=f"dimm{number}", memdev=f"ram{number}",
                        slot=number)
            self.wait(offline, "the guest sees the new memory")
            if number == 0:
                for line in offline():
                    self.run_in(f"echo online_kernel >{line.partition(':')[0]}")
                return
            self.vm.qmp("device_del", id=f"dimm{number}")
            self.wait_deleted(f"dimm{number}")
            self.vm.qmp("object-del", id=f"ram{number}")
        self.exchange_while(disturb, size=6 * MIB, rounds=3)
        for ns, dev, _, _ in self.ends("native"):
            self.run_in(f"ip -n {ns} link set {dev} down && ip -n {ns} link set {dev} up")
            for direction in (0, 1):
                self.assertGreaterEqual(self.queue_address(self.card[dev], direction), 1 << 32)
        self.tcp_both_ways([end[3] for end in self.ends("native")], 4)

    # ---- sleep ----

    def test_sleep_under_traffic(self):
        """To RAM and back, with files on all wires: they go on and end with the right sums."""
        def disturb(processes):
            before = self.vif("pa")["resets"]
            self.sleep()
            # By the driver before and after, and by the machine.
            self.assertGreaterEqual(self.vif("pa")["resets"], before + 3)
        self.tcp_both_ways([end[3] for end in self.ends("native")], 12, disturb=disturb)
        self.exchange()

    def check_kernel_test(self, state, level):
        before = self.vif("pa")["resets"]
        self.run_in("echo 0 >/sys/module/suspend/parameters/pm_test_delay")
        self.sleep(state, level)
        self.assertGreaterEqual(self.vif("pa")["resets"], before + 2)
        self.ping("native", "-f", 100)
        self.exchange(MIB)

    def test_sleep_to_idle(self):
        self.check_kernel_test("freeze", "devices")

    @long
    def test_sleep_to_disk(self):
        """As far as it goes without a disk: the devices, and again down to the last interrupt."""
        for level in ("devices", "core"):
            self.check_kernel_test("disk", level)

    def test_zz_healthy(self):
        self.check_health()
