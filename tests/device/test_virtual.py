# SPDX-License-Identifier: GPL-2.0-or-later
"""executor=virtual: cores that QEMU's virtual clock steps, and the peer inside of the process, port=echo."""
import unittest

import abi
from case import MAC_TEXT, DeviceCase
from driver import Driver
from machine import run_to_end
from sriov import SriovCase
from svio_tool.qmp import QmpError
from test_management import AdminQueue
from wires import MAC, PEER, arp_request, frame

ICOUNT = ("-icount", "shift=0,sleep=off")
ECHO_MAC = bytes.fromhex("5254005ec001")
OWN, OTHER = (10, 0, 2, 15), (10, 0, 2, 2)


def arp_answer(of=OTHER):
    request = arp_request(MAC, OWN, of)
    return (MAC + ECHO_MAC + request[12:21] + b"\x02" + ECHO_MAC + bytes(of) + MAC + bytes(OWN) +
            request[42:])


class Virtual(DeviceCase):
    def echo(self, options="", extra=ICOUNT, executor="virtual"):
        self.machine = self.start(*extra, "-device", f"svio-nic,id=svio0,mac={MAC_TEXT},port=echo,"
                                                     f"executor={executor}{options}")
        self.function = self.machine.function()
        self.function.assign()
        self.driver = Driver(self.function).bring_up()

    def ask(self, of=OTHER):
        self.driver.transmit(arp_request(MAC, OWN, of))
        self.assert_frame(self.driver.expect("the answer"), arp_answer(of))

    def test_messages_each_way(self):
        self.boot(options="executor=virtual,poll-us=0", extra=ICOUNT).bring_up()
        self.assertEqual(self.machine.threads(), [])
        for seed in range(20):
            self.check_both(seed, size=60 + 100 * seed)
        vif = self.machine.vif()
        self.assertEqual((vif["tx_frames"], vif["rx_frames"]), (20, 20))
        self.assertGreater(self.machine.cores()["sleeps"], 0)

    def test_a_full_ring_at_once(self):
        # The test reads in its own time: two virtual seconds without that may be over in no time.
        self.boot(options="executor=virtual,port-stall-ms=0", extra=ICOUNT, cores=2).bring_up()
        self.check_full_ring()

    def test_echo(self):
        self.echo()
        for _ in range(20):
            self.ask()
        self.assertEqual(self.machine.threads("svio"), [])

    def test_echo_for_threads(self):
        self.echo(extra=(), executor="threads", options=",cores=2")
        for _ in range(20):
            self.ask()

    def test_echo_with_an_address(self):
        self.machine = self.start("-device", f"svio-nic,id=svio0,mac={MAC_TEXT},port=echo:10.7.0.1")
        self.function = self.machine.function()
        self.function.assign()
        self.driver = Driver(self.function).bring_up()
        self.driver.transmit(arp_request(MAC, OWN, OTHER))
        self.ask((10, 7, 0, 1))
        self.assertIsNone(self.driver.receive.take(), "nobody has the other address")

    def test_stop_reset_and_function_level_reset(self):
        """A machine that is stopped, a reset and bus mastering off hold the cores; then it goes on."""
        self.echo()
        self.ask()
        self.machine.stop()
        parked = self.machine.cores()["polls"]
        self.driver.send.send(arp_request(MAC, OWN, OTHER))
        self.assertEqual(self.machine.cores()["polls"], parked)
        self.machine.cont()
        self.assert_frame(self.driver.expect("what was posted meanwhile"), arp_answer())
        self.function.command(master=False)
        self.function.command(master=True)
        self.ask()
        self.driver.bring_up()
        self.ask()
        self.machine.qmp.command("system_reset")
        self.function.assign()
        self.driver = Driver(self.function).bring_up()
        self.ask()

    def test_is_not_saved(self):
        self.echo()
        with self.assertRaisesRegex(QmpError, "executor=virtual can be neither migrated nor saved"):
            self.machine.qmp.command("migrate", {"uri": f"file:{self.folder}/state"})


class VirtualFunctions(SriovCase):
    """VFs, and the PF's admin queue, without a thread."""
    kind = "netdev"

    def test_vfs_and_their_management(self):
        self.boot_sriov(2, "executor=virtual", extra=ICOUNT)
        self.pf.enable(2)
        self.driver.bring_up()
        self.assertEqual(self.machine.threads(), [])
        queue = AdminQueue(self.driver)
        option = abi.svio_option.pack(id=abi.SVIO_OPTION_MANAGEMENT)
        self.assertEqual(queue.run(abi.SVIO_OP_ACCEPT_OPTIONS, data=option)[0], abi.SVIO_ST_OK)
        config = abi.svio_vif_config.pack(mask=abi.SVIO_CFG_MAC, mac=bytes.fromhex("020000000002"))
        self.assertEqual(queue.run(abi.SVIO_OP_VIF_RECONFIGURE, data=config, slot=2)[0], abi.SVIO_ST_OK)
        one, two = self.virtual(1), self.virtual(2)
        self.assertEqual(two.mac, bytes.fromhex("020000000002"))
        for sender, receiver in ((one, two), (two, one)):
            self.check_vf_out(sender)
            self.check_in(frame(300, 1, to=sender.mac), driver=sender)
            data = frame(1000, 2, to=receiver.mac, source=sender.mac)
            sender.transmit(data, pieces=2)
            self.assert_frame(receiver.expect("a frame of the other VF"), data)
        self.assertEqual(queue.run(abi.SVIO_OP_VIF_DESTROY, slot=2)[0], abi.SVIO_ST_OK)
        self.assertEqual(two.read(abi.SVIO_REG_VIF_KIND), abi.SVIO_KIND_NONE)
        one.transmit(frame(60, 3, to=PEER, source=one.mac))
        self.assert_frame(self.wire.receive(), frame(60, 3, to=PEER, source=one.mac))
        # VFs go and come.
        self.pf.disable()
        self.pf.enable(2)
        self.check_vf_out(self.virtual(2))


class Refusals(unittest.TestCase):
    def test_what_excludes_it(self):
        for before, options, sentence in (
                ((), "executor=virtual", r"executor=virtual needs QEMU's option -icount with a number"),
                (("-icount", "shift=auto"), "executor=virtual", r"needs QEMU's option -icount with a number"),
                (ICOUNT, "executor=both", r"executor=both is neither threads nor virtual"),
                (ICOUNT, "executor=virtual,port=dgram:/tmp/a,,/tmp/b", r"port=dgram:\S* exclude each other"),
                (ICOUNT, "executor=virtual,port=tap:t0", r"executor=virtual and port=tap:t0 exclude"),
                (ICOUNT, "executor=virtual,mgmt=/tmp/m", r"executor=virtual and mgmt= exclude each other"),
                (ICOUNT, "poll-cost-ns=0", r"poll-cost-ns=0 is not between 1 and 1000000000"),
                (ICOUNT, "message-cost-ns=1000000001", r"message-cost-ns=1000000001 is more than 1000000000"),
                ((), "port=echo:nobody", r"port=echo:nobody is neither echo nor echo:ADDRESS")):
            with self.subTest(options=options, before=before):
                status, said = run_to_end(*before, "-device", "svio-nic," + options)
                self.assertEqual(status, 1, said)
                self.assertRegex(said, sentence)


if __name__ == "__main__":
    unittest.main()
