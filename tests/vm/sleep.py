# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that sleeps: to RAM and back, and as far as the kernel tests the other ways itself."""
import re

from disturb import GROUP, OTHER_GROUP, STRANGER, Transfers
from wires import DEADLINE, mac_bytes

MIB = 1 << 20
# QEMU's words for a machine that may sleep; a q35 of QEMU 10.0 does so once only, whatever its devices.
MAY_SLEEP = {"q35": ("-global", "ICH9-LPC.disable_s3=0"), "pc": ("-global", "PIIX4_PM.disable_s3=0")}


class Sleeper:
    def sleep(self, state="mem", level=None):
        """To sleep and back. Nothing is asked of the agent meanwhile: its port loses what is on its way."""
        before = self.woken()
        self.vm.spawn(f"echo {level or 'none'} >/sys/power/pm_test; "
                      f"(sleep 0.3; echo {state} >/sys/power/state) 2>/dev/kmsg &")
        if not level:
            self.assertIsNotNone(self.vm.wait_event("SUSPEND", DEADLINE), "the guest goes to sleep")
            self.wait(lambda: self.vm.qmp("query-status")["status"] == "suspended",
                      "the machine is suspended")
            self.vm.qmp("system_wakeup")
        self.wait(lambda: self.woken() > before, "the guest is awake")

    def woken(self):
        return len(re.findall(r"PM: (?:hibernation: hibernation|suspend) exit", self.vm.log()))


class Sleep(Sleeper, Transfers):
    """For the cards of BasicVm."""

    def test_sleep_under_traffic(self):
        """In the middle of transfers: they go on and end with the right sums."""
        before = self.vif("user")["resets"]
        self.exchange_while(lambda number: self.sleep(), size=4 * MIB, rounds=2)
        # By the driver before and after, and by the machine.
        self.assertGreaterEqual(self.vif("user")["resets"], before + 12)
        self.ping_peer("-f", 200)

    def test_sleep_restores_what_was_set(self):
        """Address, groups, MTU and sizes; an interface that was down stays down, and comes up later."""
        card = self.card["hand"]
        self.run_in(f"""set -e
            ip link set dev hand address {STRANGER.hex(":")}
            ip maddress add {GROUP.hex(":")} dev hand
            ethtool -G hand rx 64 tx 128
            ip link set peer mtu 4000
            ip link set user down""")
        self.sleep()
        flags = re.search(r"<(.*?)>", self.run_in("ip link show user"))[1].split(",")
        self.assertNotIn("UP", flags)
        self.check(card, [GROUP, STRANGER], [mac_bytes(card.mac), OTHER_GROUP])
        self.assertIn("mtu 4000", self.run_in("ip link show peer"))
        self.ping_peer("-M do -s 3972 -i 0.02", 20)
        self.assertEqual(re.findall(r"^[RT]X:\s+(\d+)", self.run_in("ethtool -g hand"), re.M)[2:],
                         ["64", "128"])
        self.run_in(f"ip maddress del {GROUP.hex(':')} dev hand; ethtool -G hand rx 256 tx 256; "
                    f"ip link set dev hand address {card.mac}; ip link set peer mtu 1500")
        self.set_addresses()
        self.exchange_while(lambda number: None, size=MIB, rounds=1)
