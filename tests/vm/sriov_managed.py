# SPDX-License-Identifier: GPL-2.0-or-later
"""Of VFs what management decides, by ip link set vf, its own socket and devlink."""
import json
import re

from capture import Capture
from disturb import TYPE
from sriov import FOREIGN, VIFS


class Tools:
    """Everything is seen and set with the standard tools, and read back."""

    def test_devlink_info(self):
        out = self.run_in(f"devlink dev info pci/{self.place}")
        for line in ("driver svio", "board.id 1234:5110", "fw.mgmt.api 1.0", "fw.mgmt management qos",
                     "vif.id 1"):
            self.assertIn(line, out)
        out = self.run_in(f"devlink dev info pci/{self.vf_place(0)}")
        self.assertIn("board.id 1234:5111", out)
        self.assertIn("vif.slot 1", out)

    def test_read_back(self):
        """What each operation sets is what ip link shows, and what management's own socket says."""
        before = self.link_of(0)
        self.assertEqual((before["spoofchk"], before["trust"], before["link_state"]), (True, False, "auto"))

        def vif():
            return self.management.ask("vif-show", slot=1)["vif"]
        self.set_vf(0, "mac 02:00:00:00:77:01")
        self.assertEqual(self.link_of(0)["address"], "02:00:00:00:77:01")
        self.assertEqual(vif()["permanent_mac"], "02:00:00:00:77:01")
        self.set_vf(0, "vlan 100 qos 5")
        self.assertEqual(self.link_of(0)["vlan_list"][0]["vlan"], 100)
        self.assertEqual(self.link_of(0)["vlan_list"][0]["qos"], 5)
        self.assertEqual((vif()["vlan"], vif()["priority"]), (100, 5))
        self.set_vf(0, "vlan 0")
        self.assertEqual(vif()["vlan"], 0)
        for words, low, high in (("max_tx_rate 500", 0, 500), ("min_tx_rate 20 max_tx_rate 300", 20, 300),
                                 ("max_tx_rate 0 min_tx_rate 0", 0, 0), ("rate 40", 0, 40), ("rate 0", 0, 0)):
            self.set_vf(0, words)
            self.assertEqual(self.link_of(0)["rate"], {"max_tx": high, "min_tx": low}, words)
            self.assertEqual((vif()["min_mbps"], vif()["max_mbps"]), (low, high))
        for word in ("spoofchk", "trust"):
            for value in (True, False, True):
                self.set_vf(0, f"{word} {'on' if value else 'off'}")
                self.assertEqual(self.link_of(0)[word], value)
        self.assertEqual((vif()["trust"], vif()["allow_promisc"]), (True, True))
        self.set_vf(0, "trust off")
        for word, state in (("enable", "up"), ("disable", "down"), ("auto", "auto")):
            self.set_vf(0, f"state {word}")
            self.assertEqual(self.link_of(0)["link_state"], word)
            self.assertEqual(vif()["link"], state)
        self.set_vf(0, f"mac {before['address']}")
        self.assertEqual(self.link_of(0)["address"], before["address"])

    def test_refusals(self):
        for words in ("mac 01:00:5e:00:00:01", "vlan 5 proto 802.1ad", "min_tx_rate 50 max_tx_rate 20",
                      f"mac {self.mac_of('v1')}"):
            self.assertNotEqual(self.set_vf(0, words, check=False).rc, 0, words)
        for n in (2, VIFS, 99):
            self.assertNotEqual(self.set_vf(n, "trust on", check=False).rc, 0, n)
        self.assertEqual(self.link_of(0)["vlan_list"][0].get("vlan", 0), 0)
        self.assertNotEqual(self.vm.run(f"echo {VIFS + 1} >{self.pci}/sriov_numvfs", check=False).rc, 0)
        self.assertEqual(self.number(), 2)

    def test_other_doors(self):
        """What management's socket changes, ip link shows."""
        answer = self.management.ask("vif-set", slot=2, set={"vlan": 7, "max_mbps": 90})
        self.assertEqual(answer["status"], "OK", answer)
        self.assertEqual(self.link_of(1)["vlan_list"][0]["vlan"], 7)
        self.assertEqual(self.link_of(1)["rate"]["max_tx"], 90)
        answer = self.management.ask("vif-set", slot=2,
                                     set={"vlan": 0, "guest_tagging": True, "max_mbps": 0})
        self.assertEqual(answer["status"], "OK", answer)

    def test_statistics(self):
        """ip -s link has of each VF what its own driver reads."""
        self.wait_answer("v0", "v1")
        self.run_in(f"ip netns exec v0 ping -q -c 20 -i 0.01 -s 1000 {self.address('v1')}")

        def told(n):
            stats = self.link_of(n)["stats"]
            # iproute2 names those of sending once more, "tx_bytes".
            return [stats[way].get(what, stats[way].get(f"{way}_{what}"))
                    for way in ("rx", "tx") for what in ("packets", "bytes")]

        def own(n):
            counters = self.counters(n)
            return [counters[f"{way}_{what}"] for way in ("rx", "tx") for what in ("frames", "bytes")]
        for n in range(2):
            self.assertGreater(own(n)[0], 20)
            self.wait(lambda n=n: told(n) == own(n), lambda n=n: f"{told(n)} is {own(n)}")


class Traffic:
    """Who hears whom."""

    def test_spoofed(self):
        """A foreign source MAC is dropped and counted, unless the check is off."""
        self.spoof()
        self.assertGreaterEqual(self.link_of(0)["stats"]["tx"]["dropped"], 5)
        before = self.counters(0)["drop_tx_spoof"]
        self.set_vf(0, "spoofchk off")
        frame = self.raw(self.mac_of("v1"), FOREIGN)
        with Capture(self.vm, self.dev("v1"), TYPE, prefix=self.prefix("v1")) as capture:
            self.send_raw(0, frame, 5)
            self.assertEqual([data.hex() for data in capture.wait_frames(5)], 5 * [frame.hex()])
        self.assertEqual(self.counters(0)["drop_tx_spoof"], before)
        self.set_vf(0, "spoofchk on")

    def test_vlans(self):
        """VFs in VLANs of management: apart from each other, tagged on the wire, without tags of theirs."""
        self.wait_answer("v0", "v1")
        self.set_vf(0, "vlan 10 qos 3")
        self.no_answer("v0", "v1")
        self.no_answer("v1", "v0")
        self.set_vf(1, "vlan 10")
        self.wait_answer("v0", "v1")
        # The same network as that of "far": the way back must be said.
        self.run_in("ip -n W link add link far name far10 type vlan id 10 && "
                    "ip -n W address add 10.9.0.3/32 dev far10 && ip -n W link set far10 up && "
                    f"ip -n W route add {self.address('v0')}/32 dev far10 src 10.9.0.3")
        self.wait(lambda: self.vm.run("ip netns exec v0 ping -q -c 1 -W 2 10.9.0.3", check=False).rc == 0,
                  "the wire's VLAN answers")
        self.run_in("ip -n W link del far10")
        tagged = [self.raw(self.mac_of("v1"), self.mac_of("v0"), bytes.fromhex(tag))
                  for tag in ("8100000a", "81000014")]
        self.assert_dropped("drop_tx_vlan", *tagged, count=2)
        for n in (0, 1):
            self.set_vf(n, "vlan 0")
        self.wait_answer("v0", "W")

    def test_guest_tagging(self):
        """Without a VLAN of management a guest makes its own."""
        for n in (0, 1):
            self.run_in(f"ip -n v{n} link add link vf{n} name tag type vlan id 33 && "
                        f"ip -n v{n} address add 10.33.0.{n + 1}/24 dev tag && ip -n v{n} link set tag up")
        self.wait(lambda: self.vm.run("ip netns exec v0 ping -q -c 1 -W 2 10.33.0.2", check=False).rc == 0,
                  "an answer in the guests' VLAN")
        for n in (0, 1):
            self.run_in(f"ip -n v{n} link del tag")


class LiveChanges:
    """What management changes live, and what a guest may."""

    def test_link_state(self):
        for word, up in (("disable", False), ("enable", True), ("disable", False), ("auto", True)):
            self.set_vf(0, f"state {word}")
            self.wait_carrier("v0", up)
        self.wait_answer("v0", "v1")

    def test_mac(self):
        """The PF gives a VF its MAC while it is up; the guest has it at once and may not take another."""
        old = self.mac_of("v0")
        self.set_vf(0, "mac 02:00:00:00:99:01")
        self.wait(lambda: self.mac_of("v0") == "02:00:00:00:99:01", "the VF has its new MAC")
        self.run_in("ip netns exec v1 ip neighbour flush all")
        self.wait_answer("v1", "v0")
        change = "ip -n v0 link set vf0 address 02:00:00:00:99:77"
        self.assertNotEqual(self.vm.run(change, check=False).rc, 0)
        self.assertEqual(self.mac_of("v0"), "02:00:00:00:99:01")
        self.set_vf(0, "trust on")
        self.run_in(change)
        self.run_in("ip netns exec v1 ip neighbour flush all")
        self.wait_answer("v1", "v0")
        self.set_vf(0, f"mac {old}")
        self.set_vf(0, "trust off")
        self.wait(lambda: self.mac_of("v0") == old, "the VF has its old MAC")
        self.run_in("ip netns exec v1 ip neighbour flush all")
        self.wait_answer("v1", "v0")

    def test_promiscuous(self):
        """Only a trusted VF hears what nobody else claims."""
        frame = self.raw(FOREIGN, self.mac_of("v1"))
        self.run_in("ip -n v0 link set vf0 promisc on")

        def heard():
            before = self.counters(0)["rx_frames"]
            sent = self.counters(1)["tx_frames"]
            self.send_raw(1, frame, 3)
            # At least: the guest may send of its own accord at any time.
            self.wait(lambda: self.counters(1)["tx_frames"] >= sent + 3, "3 foreign frames are sent")
            self.wait_answer("v1", "v0")        # behind them, in order
            return self.counters(0)["rx_frames"] - before
        # Whatever comes of it, the next test finds the VF as it was.
        self.addCleanup(self.set_vf, 0, "trust off")
        self.addCleanup(self.run_in, "ip -n v0 link set vf0 promisc off")
        quiet = heard()
        self.run_in("ip -n v0 link set vf0 promisc off")
        self.set_vf(0, "trust on")
        self.run_in("ip -n v0 link set vf0 promisc on")
        self.wait(lambda: heard() >= quiet + 3, "a trusted VF hears foreign frames")

    def test_guest_asks(self):
        """A guest's request for QoS is trimmed to what management allows, or refused."""
        param = f"dev param set pci/{self.vf_place(0)} name qos_max_mbps value %d cmode runtime"
        show = f"devlink -j dev param show pci/{self.vf_place(0)} name qos_max_mbps"

        def granted():
            found = json.loads(self.run_in(show))["param"]
            values = next(iter(found.values()))[0]["values"]
            return int(values[0]["value"])
        self.management.ask("vif-set", slot=1, set={"qos_limit": {"min_mbps": 0, "max_mbps": 0,
                                                                  "weight": 0}})
        self.assertNotEqual(self.vm.run("devlink " + param % 50, check=False).rc, 0)
        answer = self.management.ask("vif-set", slot=1, set={"qos_limit": {"min_mbps": 10, "max_mbps": 400,
                                                                           "weight": 5}})
        self.assertEqual(answer["status"], "OK", answer)
        self.run_in("devlink " + param % 300)
        self.assertEqual(granted(), 300)
        self.assertEqual(self.link_of(0)["rate"]["max_tx"], 300)
        self.run_in("devlink " + param % 900)
        self.assertEqual(granted(), 400)
        self.set_vf(0, "max_tx_rate 0")
        self.assertEqual(granted(), 0)

    def test_slot_without_vif(self):
        """A VF whose VIF is taken away loses its interface, and gets one with the next."""
        old = self.vif_id(1)
        answer = self.management.ask("vif-destroy", slot=2)
        self.assertEqual(answer["status"], "OK", answer)
        gone = "ip -n v1 link show vf1"
        self.wait(lambda: self.vm.run(gone, check=False).rc != 0, "the interface is gone")
        self.assertEqual(self.link_of(1)["address"], "00:00:00:00:00:00")
        self.assertNotEqual(self.set_vf(1, "trust on", check=False).rc, 0)
        self.assertTrue(self.answers("v0", "W"))
        answer = self.management.ask("vif-create", slot=2, set={"mac": "02:00:00:00:55:02"})
        self.assertEqual(answer["status"], "OK", answer)
        self.take(1)
        self.assertEqual(self.mac_of("v1"), "02:00:00:00:55:02")
        self.assertGreater(self.vif_id(1), old)
        self.assertEqual(self.counters(1)["drop_tx_spoof"], 0)
        self.wait_answer("v0", "v1")
        # One that is automatic again, for the other tests.
        self.management.ask("vif-destroy", slot=2)
        self.set_number(0)

    def vif_id(self, n):
        out = self.run_in(f"devlink dev info pci/{self.vf_place(n)}")
        return int(re.search(r"vif\.id (\d+)", out)[1])


class Kept:
    """What management has set outlives resets."""

    def test_kept_vf(self):
        self.set_vf(0, "trust on")
        self.run_in(f"echo 1 >/sys/bus/pci/devices/{self.vf_place(0)}/reset")
        self.wait_answer("v0", "v1")
        self.assertTrue(self.link_of(0)["trust"])
        self.set_vf(0, "trust off")

    def test_kept_pf(self):
        """A reset of the PF takes VF Enable away, and with it automatic VIFs: their successors inherit."""
        self.set_vf(0, "mac 02:00:00:00:66:01")
        self.set_vf(0, "spoofchk off")
        self.run_in(f"echo 1 >{self.pci}/reset")
        self.wait_answer("v0", "v1")
        self.assertEqual(self.link_of(0)["address"], "02:00:00:00:66:01")
        self.assertFalse(self.link_of(0)["spoofchk"])
        self.set_number(0)
