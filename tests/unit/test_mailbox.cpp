// SPDX-License-Identifier: GPL-2.0-or-later
/// Mailbox commands (SPEC.md chapter 7) and what they change: MAC, receive mode, multicast filter, counters.
#include "driver.hpp"

#include <map>

using namespace svio;
using namespace svio::test;

namespace {

class Mailbox : public testing::Test {
  protected:
    void SetUp() override {
        rig.bring_up();
        rig.rx.post_all();
        data = rig.allocate(4096);
    }
    static svio_command make(uint16_t opcode) {
        svio_command command{};
        command.opcode = opcode;
        command.slot = SVIO_SLOT_SELF;
        command.tag = 0x1234;
        return command;
    }
    uint16_t run(svio_command &command) {
        uint64_t commands = rig.stat(SVIO_STAT_COMMANDS), refused = rig.stat(SVIO_STAT_COMMANDS_REFUSED);
        uint16_t opcode = command.opcode, tag = command.tag;
        rig.command(command);
        EXPECT_EQ(command.opcode, opcode);
        EXPECT_EQ(command.tag, tag);
        EXPECT_EQ(rig.stat(SVIO_STAT_COMMANDS), commands + 1);
        EXPECT_EQ(rig.stat(SVIO_STAT_COMMANDS_REFUSED), refused + (command.status != SVIO_ST_OK));
        return command.status;
    }
    uint16_t set_mac(const Mac &mac) {
        svio_command command = make(SVIO_OP_SET_MAC);
        std::copy(mac.begin(), mac.end(), command.u.set_mac.mac);
        return run(command);
    }
    uint16_t rx_mode(uint32_t flags) {
        svio_command command = make(SVIO_OP_RX_MODE);
        command.u.rx_mode.flags = flags;
        return run(command);
    }
    uint16_t multicast(uint8_t op, const std::vector<Mac> &macs) {
        svio_command command = make(SVIO_OP_MULTICAST);
        command.u.multicast.op = op;
        command.u.multicast.count = static_cast<uint8_t>(macs.size());
        for (size_t i = 0; i < macs.size() && i < 6; i++)
            std::copy(macs[i].begin(), macs[i].end(), command.u.multicast.mac[i]);
        return run(command);
    }
    bool hears(const Mac &to) {
        uint64_t filtered = rig.stat(SVIO_STAT_DROP_RX_FILTER);
        rig.offer(make_frame(60, 1, to));
        bool heard = rig.rx.take_all().size() == 1;
        rig.rx.post_all();
        EXPECT_EQ(rig.stat(SVIO_STAT_DROP_RX_FILTER), filtered + !heard);
        return heard;
    }
    static Mac group(uint8_t n) { return {0x33, 0x33, 0, 0, 1, n}; }

    Rig rig;
    uint64_t data = 0;
};

} // namespace

TEST_F(Mailbox, NopAndUnknownOpcodes) {
    svio_command nop = make(SVIO_OP_NOP);
    nop.flags = 0xffff; // not used
    EXPECT_EQ(run(nop), SVIO_ST_OK);
    for (unsigned opcode = 0; opcode < 0x10000; opcode += opcode >= 0x230 ? 257 : 1) {
        bool known = opcode >= SVIO_OP_NOP && opcode <= SVIO_OP_RX_OFFLOADS &&
                     opcode != SVIO_OP_QOS_REQUEST; // without management
        if (known)
            continue;
        svio_command command = make(static_cast<uint16_t>(opcode));
        ASSERT_EQ(run(command), SVIO_ST_UNSUPPORTED) << opcode;
    }
}

TEST_F(Mailbox, AnotherSlotIsDenied) {
    for (uint32_t slot : {0u, 1u, 63u, 0xfffffffeu}) {
        svio_command command = make(SVIO_OP_NOP);
        command.slot = slot;
        EXPECT_EQ(run(command), SVIO_ST_DENIED);
    }
}

TEST_F(Mailbox, Identify) {
    std::memset(rig.ram.at(data, 256), 0xee, 256);
    svio_command command = make(SVIO_OP_IDENTIFY);
    command.data_addr = data;
    command.data_len = 200;
    EXPECT_EQ(run(command), SVIO_ST_OK);
    EXPECT_EQ(command.data_len, sizeof(svio_vif_info));
    svio_vif_info info;
    std::memcpy(&info, rig.ram.at(data), sizeof(info));
    EXPECT_EQ(info.id, 1u);
    EXPECT_EQ(info.slot, 0u);
    EXPECT_EQ(info.kind, uint32_t{SVIO_KIND_NET});
    EXPECT_EQ(info.features, Vif::features);
    EXPECT_EQ(std::memcmp(info.mac, vif_mac.data(), 6), 0);
    EXPECT_EQ(info.vlan, 0);
    EXPECT_EQ(info.mtu_max, 9000u);
    EXPECT_EQ(info.queue_pairs, 1u);
    EXPECT_EQ(info.queue_size_max, 4096u);
    EXPECT_EQ(info.link_up, 1u);
    EXPECT_EQ(info.speed_mbps, 12345u);
    EXPECT_EQ(*rig.ram.at(data + sizeof(info)), 0xee) << "not a byte more";

    Mac mac = {2, 1, 2, 3, 4, 5};
    EXPECT_EQ(set_mac(mac), SVIO_ST_OK);
    command = make(SVIO_OP_IDENTIFY);
    command.data_addr = data;
    command.data_len = sizeof(info);
    EXPECT_EQ(run(command), SVIO_ST_OK);
    std::memcpy(&info, rig.ram.at(data), sizeof(info));
    EXPECT_EQ(std::memcmp(info.mac, mac.data(), 6), 0);

    command.data_len = sizeof(info) - 1;
    EXPECT_EQ(run(command), SVIO_ST_NO_SPACE);
    for (uint64_t address : {uint64_t{0}, FakeRam::base + rig.ram.size() - 10, UINT64_MAX}) {
        command.data_len = sizeof(info);
        command.data_addr = address;
        EXPECT_EQ(run(command), SVIO_ST_DMA);
    }
    rig.set_dma(false);
    command.data_len = sizeof(info);
    command.data_addr = data;
    EXPECT_EQ(run(command), SVIO_ST_DMA);
}

TEST_F(Mailbox, DataLenIsWhatTheDeviceWrote) {
    for (uint16_t opcode : {SVIO_OP_NOP, SVIO_OP_RX_MODE, SVIO_OP_VLAN_FILTER, SVIO_OP_IDENTIFY}) {
        svio_command command = make(opcode);
        command.data_len = 4096; // IDENTIFY: to an address that cannot be reached
        run(command);
        EXPECT_EQ(command.data_len, 0u) << opcode;
    }
}

TEST_F(Mailbox, SetMacDecidesWhatIsReceived) {
    Mac mac = {2, 0, 0, 0, 0, 9};
    EXPECT_TRUE(hears(vif_mac));
    EXPECT_FALSE(hears(mac));
    EXPECT_EQ(set_mac(mac), SVIO_ST_OK);
    EXPECT_FALSE(hears(vif_mac));
    EXPECT_TRUE(hears(mac));
    EXPECT_TRUE(hears(broadcast_mac));
    EXPECT_EQ(set_mac({}), SVIO_ST_INVALID);
    EXPECT_EQ(set_mac(group(1)), SVIO_ST_INVALID);
    EXPECT_EQ(set_mac(broadcast_mac), SVIO_ST_INVALID);
    EXPECT_TRUE(hears(mac));
    EXPECT_EQ(rig.read(SVIO_REG_MAC_LO), 0x12005452u) << "the permanent one stays";
    rig.reset();
    rig.bring_up();
    rig.rx.post_all();
    EXPECT_TRUE(hears(vif_mac));
    EXPECT_FALSE(hears(mac));
}

TEST_F(Mailbox, ReceiveMode) {
    EXPECT_FALSE(hears(peer_mac));
    EXPECT_FALSE(hears(group(1)));
    EXPECT_EQ(rx_mode(SVIO_RX_ALL_MULTICAST), SVIO_ST_OK);
    EXPECT_FALSE(hears(peer_mac));
    EXPECT_TRUE(hears(group(1)));
    EXPECT_EQ(rx_mode(SVIO_RX_PROMISC), SVIO_ST_OK);
    EXPECT_TRUE(hears(peer_mac));
    EXPECT_TRUE(hears(group(1)));
    for (uint32_t bit = 2; bit < 32; bit++)
        EXPECT_EQ(rx_mode(1u << bit), SVIO_ST_INVALID);
    EXPECT_TRUE(hears(peer_mac)) << "a refused command changes nothing";
    EXPECT_EQ(rx_mode(0), SVIO_ST_OK);
    EXPECT_FALSE(hears(peer_mac));
    EXPECT_EQ(rx_mode(SVIO_RX_PROMISC), SVIO_ST_OK);
    rig.reset();
    rig.bring_up();
    rig.rx.post_all();
    EXPECT_FALSE(hears(peer_mac)) << "reset empties the receive mode";
}

TEST_F(Mailbox, MulticastFilter) {
    EXPECT_EQ(multicast(SVIO_MC_ADD, {group(1), group(2), group(1)}), SVIO_ST_OK);
    EXPECT_TRUE(hears(group(1)));
    EXPECT_TRUE(hears(group(2)));
    EXPECT_FALSE(hears(group(3)));
    EXPECT_EQ(multicast(SVIO_MC_REMOVE, {group(1), group(9)}), SVIO_ST_OK);
    EXPECT_FALSE(hears(group(1)));
    EXPECT_TRUE(hears(group(2)));
    EXPECT_EQ(multicast(SVIO_MC_CLEAR, {group(5)}), SVIO_ST_OK);
    EXPECT_FALSE(hears(group(2)));
    EXPECT_TRUE(hears(group(5)));
    EXPECT_EQ(multicast(SVIO_MC_ADD, {group(6), vif_mac}), SVIO_ST_INVALID);
    EXPECT_FALSE(hears(group(6))) << "none of a refused command";
    EXPECT_EQ(multicast(3, {}), SVIO_ST_INVALID);
    EXPECT_EQ(multicast(SVIO_MC_ADD, std::vector<Mac>(7, group(1))), SVIO_ST_INVALID);
    EXPECT_EQ(multicast(SVIO_MC_ADD, {}), SVIO_ST_OK);

    EXPECT_EQ(multicast(SVIO_MC_CLEAR, {}), SVIO_ST_OK);
    for (uint8_t n = 0; n < 60; n += 6)
        ASSERT_EQ(multicast(SVIO_MC_ADD,
                            {group(n), group(n + 1), group(n + 2), group(n + 3), group(n + 4), group(n + 5)}),
                  SVIO_ST_OK);
    EXPECT_EQ(multicast(SVIO_MC_ADD, {group(100), group(101), group(102), group(103), group(104)}),
              SVIO_ST_NO_SPACE);
    EXPECT_FALSE(hears(group(100))) << "none is added then";
    EXPECT_EQ(multicast(SVIO_MC_ADD, {group(60), group(61), group(62), group(63), group(0), group(1)}),
              SVIO_ST_OK)
        << "those that are there already take no space";
    EXPECT_TRUE(hears(group(63)));
    EXPECT_EQ(multicast(SVIO_MC_ADD, {group(64)}), SVIO_ST_NO_SPACE);
    EXPECT_EQ(multicast(SVIO_MC_REMOVE, {group(7)}), SVIO_ST_OK);
    EXPECT_EQ(multicast(SVIO_MC_ADD, {group(64)}), SVIO_ST_OK);
    EXPECT_TRUE(hears(group(64)));
    rig.reset();
    rig.bring_up();
    rig.rx.post_all();
    EXPECT_FALSE(hears(group(64))) << "reset empties the filter";
}

TEST_F(Mailbox, BroadcastAndMulticastAreCountedApart) {
    EXPECT_EQ(rx_mode(SVIO_RX_PROMISC), SVIO_ST_OK);
    hears(vif_mac);
    hears(broadcast_mac);
    hears(group(1));
    hears({0xff, 0, 0, 0, 0, 1}); // begins as broadcast does
    EXPECT_EQ(rig.stat(SVIO_STAT_RX_BROADCAST), 1u);
    EXPECT_EQ(rig.stat(SVIO_STAT_RX_MULTICAST), 2u);
    EXPECT_EQ(rig.stat(SVIO_STAT_RX_FRAMES), 4u);
}

TEST_F(Mailbox, SetMtu) {
    auto set_mtu = [&](uint32_t mtu) {
        svio_command command = make(SVIO_OP_SET_MTU);
        command.u.set_mtu.mtu = mtu;
        return run(command);
    };
    EXPECT_EQ(set_mtu(67), SVIO_ST_INVALID);
    EXPECT_EQ(set_mtu(68), SVIO_ST_OK);
    EXPECT_EQ(set_mtu(9000), SVIO_ST_OK);
    EXPECT_EQ(set_mtu(9001), SVIO_ST_INVALID);
    EXPECT_EQ(set_mtu(0xffffffff), SVIO_ST_INVALID);
}

TEST_F(Mailbox, StatsOfTheVifAndOfAPair) {
    rig.offer(make_frame(100, 1));
    rig.tx.post(make_frame(200, 1), {50});
    rig.work();
    auto stats = [&](uint32_t pair, uint32_t length, uint64_t address) {
        svio_command command = make(SVIO_OP_STATS);
        command.u.stats.pair = pair;
        command.data_addr = address;
        command.data_len = length;
        uint16_t status = run(command);
        return std::pair(status, command.data_len);
    };
    auto value = [&](uint32_t n) {
        uint64_t v;
        std::memcpy(&v, rig.ram.at(data + 8 * n, 8), 8);
        return v;
    };
    EXPECT_EQ(stats(SVIO_STATS_VIF, 4096, data),
              std::pair(uint16_t{SVIO_ST_OK}, uint32_t{8 * SVIO_STAT_COUNT}));
    EXPECT_EQ(value(SVIO_STAT_TX_FRAMES), 1u);
    EXPECT_EQ(value(SVIO_STAT_TX_BYTES), 200u);
    EXPECT_EQ(value(SVIO_STAT_RX_FRAMES), 1u);
    EXPECT_EQ(value(SVIO_STAT_RX_BYTES), 100u);
    for (uint32_t n = 0; n < SVIO_STAT_COUNT; n++) {
        if (n == SVIO_STAT_COMMANDS)
            continue;
        EXPECT_EQ(value(n), rig.stat(static_cast<svio_stat>(n))) << n;
    }
    EXPECT_EQ(stats(0, 4096, data), std::pair(uint16_t{SVIO_ST_OK}, uint32_t{16 * SVIO_QSTAT_COUNT}));
    for (uint32_t n = 0; n < SVIO_QSTAT_COUNT; n++) {
        EXPECT_EQ(value(n), rig.send_stat(static_cast<svio_qstat>(n)));
        EXPECT_EQ(value(SVIO_QSTAT_COUNT + n), rig.receive_stat(static_cast<svio_qstat>(n)));
    }
    EXPECT_EQ(value(SVIO_QSTAT_POSTED), 2u);
    EXPECT_EQ(value(SVIO_QSTAT_CHAINED), 1u);
    EXPECT_EQ(value(SVIO_QSTAT_COUNT + SVIO_QSTAT_BYTES), 100u);
    // A shorter buffer gets the first of them, whole ones only.
    std::memset(rig.ram.at(data, 64), 0xee, 64);
    EXPECT_EQ(stats(SVIO_STATS_VIF, 23, data), std::pair(uint16_t{SVIO_ST_OK}, uint32_t{16}));
    EXPECT_EQ(value(1), 200u);
    EXPECT_EQ(*rig.ram.at(data + 16), 0xee);
    EXPECT_EQ(stats(SVIO_STATS_VIF, 7, data).first, SVIO_ST_NO_SPACE);
    EXPECT_EQ(stats(1, 4096, data).first, SVIO_ST_NOT_FOUND);
    EXPECT_EQ(stats(8, 4096, data).first, SVIO_ST_NOT_FOUND);
    EXPECT_EQ(stats(SVIO_STATS_VIF, 4096, 16).first, SVIO_ST_DMA);
}

TEST_F(Mailbox, CounterPathsAreAllThere) {
    std::map<std::string, uint64_t> all;
    rig.tx.post(make_frame(77, 1));
    rig.work();
    rig.board->visit_counters([&](const std::string &path, uint64_t value) {
        EXPECT_TRUE(all.emplace(path, value).second) << path << " twice";
    });
    // Beside counters: cpu_ns of the core, id of the VIF, frames that came for nobody.
    EXPECT_EQ(all.size(), CoreStatCount + 1 + 1 + 1 + SVIO_STAT_COUNT + 2 * size_t{SVIO_QSTAT_COUNT});
    EXPECT_EQ(all.at("vifs/0/id"), 1u);
    EXPECT_EQ(all.at("vifs/0/tx_bytes"), 77u);
    EXPECT_EQ(all.at("vifs/0/queues/0/send/posted"), 1u);
    EXPECT_EQ(all.at("vifs/0/queues/0/receive/posted"), 0u);
    EXPECT_EQ(all.at("cores/0/picked_up"), 1u);
    EXPECT_EQ(all.at("port/unclaimed"), 0u);
}
