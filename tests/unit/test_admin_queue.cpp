// SPDX-License-Identifier: GPL-2.0-or-later
/// The PF's admin queue (SPEC.md 8.3): registers, the ring, options, every command, and what a PF may do
/// wrong.
#include "managed_board.hpp"

using namespace svio;
using namespace svio::test;

namespace {

/// The fields of a configuration that tests change.
struct Change {
    uint32_t mask = 0;
    uint16_t vlan = 0;
    uint8_t trust = 0;
    uint8_t spoof_check = 0;
    uint8_t link = 0;
    uint32_t weight = 0;
    uint32_t core = 0;
    svio_vif_config config() const {
        svio_vif_config config{};
        config.mask = mask;
        config.vlan = vlan;
        config.trust = trust;
        config.spoof_check = spoof_check;
        config.link = link;
        config.weight = weight;
        config.core = core;
        return config;
    }
};

class Admin : public testing::TestWithParam<bool> {
  protected:
    Admin() : board({.direct = GetParam()}), ring(board) {}
    uint16_t create(uint32_t slot, const Change &change = {}, uint64_t *id = nullptr) {
        return create_as(slot, change.config(), id);
    }
    uint16_t create_as(uint32_t slot, svio_vif_config config, uint64_t *id = nullptr) {
        config.kind = SVIO_KIND_NET;
        svio_command command = ring.make(SVIO_OP_VIF_CREATE, slot);
        uint16_t status = ring.run_with(command, config);
        if (id)
            *id = command.u.vif.id;
        return status;
    }
    uint16_t change(uint32_t slot, const Change &change) { return change_to(slot, change.config()); }
    uint16_t change_to(uint32_t slot, const svio_vif_config &config) {
        svio_command command = ring.make(SVIO_OP_VIF_RECONFIGURE, slot);
        return ring.run_with(command, config);
    }
    uint16_t plain(uint16_t opcode, uint32_t slot) {
        svio_command command = ring.make(opcode, slot);
        return ring.run(command);
    }
    /// A command with room for an answer.
    uint16_t ask(svio_command &command, uint32_t room) {
        std::memset(ring.ram().at(AdminRing::data, room + 8), 0xee, room + 8);
        command.data_addr = AdminRing::data;
        command.data_len = room;
        uint16_t status = ring.run(command);
        EXPECT_EQ(*ring.ram().at(AdminRing::data + room), 0xee) << "not a byte more";
        return status;
    }
    svio_vif_config query(uint32_t slot) {
        svio_command command = ring.make(SVIO_OP_VIF_QUERY, slot);
        EXPECT_EQ(ask(command, sizeof(svio_vif_config)), SVIO_ST_OK);
        EXPECT_EQ(command.data_len, sizeof(svio_vif_config));
        return ring.back<svio_vif_config>();
    }

    ManagedBoard board;
    AdminRing ring;
};

INSTANTIATE_TEST_SUITE_P(Memory, Admin, testing::Bool());

} // namespace

// ---- registers ----

TEST_P(Admin, RegistersAreThePhysicalFunctionsAlone) {
    EXPECT_EQ(board.read(0, SVIO_REG_ADMIN_SIZE_MAX), 64u);
    EXPECT_EQ(board.read(0, SVIO_REG_ADMIN_BASE_LO), static_cast<uint32_t>(AdminRing::base));
    EXPECT_EQ(board.read(0, SVIO_REG_ADMIN_BASE_HI), static_cast<uint32_t>(AdminRing::base >> 32));
    EXPECT_EQ(board.read(0, SVIO_REG_ADMIN_SIZE), 16u);
    EXPECT_EQ(board.read(0, SVIO_REG_ADMIN_VECTOR), AdminRing::vector);
    EXPECT_EQ(board.read(0, SVIO_REG_ADMIN_CONTROL), 1u);
    EXPECT_EQ(ring.state(), uint32_t{SVIO_QUEUE_RUNNING});
    uint64_t bad = board.vif(0).counters.get(SVIO_STAT_BAD_REGISTER);
    EXPECT_EQ(board.read(0, SVIO_REG_ADMIN_BELL), 0u) << "write only";
    board.write(0, SVIO_REG_ADMIN_SIZE_MAX, 1);
    board.write(0, SVIO_REG_ADMIN_STATE, 0);
    board.write(0, SVIO_REG_ADMIN_BASE_LO, 0); // it runs
    board.write(0, SVIO_REG_ADMIN_SIZE, 32);
    board.write(0, SVIO_REG_ADMIN_VECTOR, SVIO_VECTORS);
    EXPECT_EQ(board.read(0, SVIO_REG_ADMIN_BELL + 4), 0u);
    EXPECT_EQ(board.vif(0).counters.get(SVIO_STAT_BAD_REGISTER), bad + 7);
    EXPECT_EQ(board.read(0, SVIO_REG_ADMIN_SIZE), 16u);
    board.write(0, SVIO_REG_ADMIN_VECTOR, SVIO_NO_VECTOR);
    EXPECT_EQ(board.read(0, SVIO_REG_ADMIN_VECTOR), uint32_t{SVIO_NO_VECTOR});

    board.enable(1, true);
    bad = board.vif(1).counters.get(SVIO_STAT_BAD_REGISTER);
    for (uint32_t offset = SVIO_REG_ADMIN_SIZE_MAX; offset <= SVIO_REG_ADMIN_BELL; offset += 4) {
        EXPECT_EQ(board.read(1, offset), 0u);
        board.write(1, offset, 1);
    }
    EXPECT_EQ(board.vif(1).counters.get(SVIO_STAT_BAD_REGISTER), bad + 16);
    EXPECT_EQ(ring.state(), uint32_t{SVIO_QUEUE_RUNNING}) << "a VF cannot touch it";
}

TEST_P(Admin, SetUpIsChecked) {
    auto start = [this](uint64_t base, uint32_t size) {
        ring.set(SVIO_REG_ADMIN_CONTROL, 0);
        EXPECT_EQ(ring.state(), uint32_t{SVIO_QUEUE_DISABLED});
        ring.set(SVIO_REG_ADMIN_BASE_LO, static_cast<uint32_t>(base));
        ring.set(SVIO_REG_ADMIN_BASE_HI, static_cast<uint32_t>(base >> 32));
        ring.set(SVIO_REG_ADMIN_SIZE, size);
        board.take_events(0);
        uint64_t errors = board.vif(0).counters.get(SVIO_STAT_QUEUE_ERRORS);
        ring.set(SVIO_REG_ADMIN_CONTROL, 1);
        bool failed = SVIO_QUEUE_STATE_OF(ring.state()) == SVIO_QUEUE_ERROR;
        EXPECT_EQ(board.vif(0).counters.get(SVIO_STAT_QUEUE_ERRORS), errors + failed);
        EXPECT_EQ(board.take_events(0), failed ? uint32_t{SVIO_EVENT_QUEUE_ERROR} : 0u);
        ring.ring_bell();
        board.work();
        return SVIO_QUEUE_ERROR_OF(ring.state());
    };
    for (uint32_t size : {0u, 8u, 17u, 128u, 0x80000000u, UINT32_MAX})
        EXPECT_EQ(start(AdminRing::base, size), uint32_t{SVIO_QERR_CONFIG}) << size;
    EXPECT_EQ(start(AdminRing::base + 32, 16), uint32_t{SVIO_QERR_CONFIG});
    EXPECT_EQ(start(0, 16), uint32_t{SVIO_QERR_DMA});
    EXPECT_EQ(start(UINT64_MAX - 63, 16), uint32_t{SVIO_QERR_DMA});
    EXPECT_EQ(start(FakeRam::base + ring.ram().size() - 64, 16), uint32_t{SVIO_QERR_DMA});
    EXPECT_EQ(start(AdminRing::base, 64), uint32_t{SVIO_QERR_NONE});
    EXPECT_EQ(board.functions[0]->ram.windows(), 1);
    ring.set(SVIO_REG_ADMIN_CONTROL, 0);
    EXPECT_EQ(board.functions[0]->ram.windows(), 0) << "every address is forgotten";
}

TEST(AdminQueue, WithoutOneThereIsARegisterThatSaysSo) {
    ManagedBoard board({.admin_size = 0});
    EXPECT_EQ(board.read(0, SVIO_REG_ADMIN_SIZE_MAX), 0u);
    uint64_t bad = board.vif(0).counters.get(SVIO_STAT_BAD_REGISTER);
    for (uint32_t offset = SVIO_REG_ADMIN_BASE_LO; offset <= SVIO_REG_ADMIN_BELL; offset += 4) {
        board.read(0, offset);
        board.write(0, offset, 1);
    }
    EXPECT_EQ(board.vif(0).counters.get(SVIO_STAT_BAD_REGISTER), bad + 14);
}

// ---- the ring ----

TEST_P(Admin, CommandsAreAnsweredInOrderOverManyLaps) {
    for (unsigned batch = 0; batch < 20; batch++) {
        uint64_t signals = board.functions[0]->signals.count(AdminRing::vector);
        std::vector<uint32_t> posted;
        for (unsigned n = 0; n < 1 + batch % 16; n++) {
            svio_command command = ring.make(n % 2 ? SVIO_OP_NOP : 0x7777);
            command.tag = static_cast<uint16_t>(n);
            posted.push_back(ring.post(command));
        }
        ring.ring_bell();
        EXPECT_FALSE(ring.done(posted[0])) << "by the management core, not in the doorbell";
        EXPECT_TRUE(board.core->step());
        EXPECT_TRUE(ring.done(posted[0]));
        EXPECT_EQ(posted.size() > 1 && ring.done(posted[1]), false) << "one at a time";
        board.work();
        for (size_t n = 0; n < posted.size(); n++) {
            ASSERT_TRUE(ring.done(posted[n]));
            EXPECT_EQ(ring.answer(posted[n]).tag, n);
            EXPECT_EQ(ring.answer(posted[n]).status, n % 2 ? SVIO_ST_OK : SVIO_ST_UNSUPPORTED);
        }
        EXPECT_EQ(board.functions[0]->signals.count(AdminRing::vector), signals + posted.size());
    }
}

TEST_P(Admin, WithoutABellNothingIsLookedFor) {
    uint32_t position = ring.post(ring.make(SVIO_OP_NOP));
    board.work(); // what enabling began is over: the ring was empty
    EXPECT_TRUE(ring.done(position)) << "enabling looks too";
    position = ring.post(ring.make(SVIO_OP_NOP));
    board.work();
    EXPECT_FALSE(ring.done(position));
    ring.ring_bell();
    board.work();
    EXPECT_TRUE(ring.done(position));
}

TEST_P(Admin, UnknownFlagsStopTheQueueAlone) {
    board.work();
    svio_command command = ring.make(SVIO_OP_NOP);
    command.flags = SVIO_COMMAND_POSTED | 1;
    ring.post_raw(0, command);
    ring.ring_bell();
    board.work();
    EXPECT_EQ(SVIO_QUEUE_ERROR_OF(ring.state()), uint32_t{SVIO_QERR_FLAGS});
    EXPECT_EQ(board.take_events(0), uint32_t{SVIO_EVENT_QUEUE_ERROR});
    ring.ring_bell();
    board.work();
    EXPECT_EQ(board.ask(R"({"op":"info"})").at("status"), "OK") << "the other doors are open";
    ring.set(SVIO_REG_ADMIN_CONTROL, 0);
    ring.start();
    command = ring.make(SVIO_OP_NOP);
    EXPECT_EQ(ring.run(command), SVIO_ST_OK);
}

TEST(AdminQueue, ATranslatedRingThatBecomesUnreachable) {
    ManagedBoard board({.direct = false});
    AdminRing ring(board);
    board.work();
    ring.post(ring.make(SVIO_OP_NOP));
    board.functions[0]->ram.holes.push_back({AdminRing::base, 64});
    ring.ring_bell();
    board.work();
    EXPECT_EQ(SVIO_QUEUE_ERROR_OF(ring.state()), uint32_t{SVIO_QERR_DMA});
}

TEST_P(Admin, WithoutBusMasteringCommandsWait) {
    board.work();
    board.set_dma(0, false);
    uint32_t position = ring.post(ring.make(SVIO_OP_NOP));
    uint64_t accesses = ring.ram().accesses;
    ring.ring_bell();
    board.work();
    EXPECT_FALSE(ring.done(position));
    EXPECT_EQ(ring.ram().accesses, accesses);
    board.set_dma(0, true);
    board.work();
    EXPECT_TRUE(ring.done(position));
}

TEST_P(Admin, AStoppedMachineKeepsItsCommands) {
    board.work();
    uint32_t position = ring.post(ring.make(SVIO_OP_NOP));
    {
        Pause pause(*board.board);
        ring.ring_bell();
        board.work();
        EXPECT_FALSE(ring.done(position));
    }
    board.work();
    EXPECT_TRUE(ring.done(position));
}

TEST_P(Admin, AResetForgetsRingAndOptions) {
    ring.accept_all();
    EXPECT_EQ(plain(SVIO_OP_VIF_DESTROY, 1), SVIO_ST_NOT_FOUND);
    ring.post(ring.make(SVIO_OP_NOP));
    ring.ring_bell();
    board.write(0, SVIO_REG_CONTROL, SVIO_CONTROL_RESET);
    EXPECT_EQ(ring.state(), uint32_t{SVIO_QUEUE_DISABLED});
    EXPECT_EQ(board.read(0, SVIO_REG_ADMIN_BASE_LO), 0u);
    EXPECT_EQ(board.read(0, SVIO_REG_ADMIN_VECTOR), uint32_t{SVIO_NO_VECTOR});
    EXPECT_EQ(board.functions[0]->ram.windows(), 0);
    board.work();
    ring.start();
    EXPECT_EQ(plain(SVIO_OP_VIF_DESTROY, 1), SVIO_ST_UNSUPPORTED);
}

TEST_P(Admin, ResetOfAVirtualFunctionLeavesTheQueue) {
    board.enable(1, true);
    board.write(1, SVIO_REG_CONTROL, SVIO_CONTROL_RESET);
    EXPECT_EQ(ring.state(), uint32_t{SVIO_QUEUE_RUNNING});
}

// ---- options ----

TEST_P(Admin, OptionsAreDescribed) {
    svio_command command = ring.make(SVIO_OP_DESCRIBE_OPTIONS);
    ASSERT_EQ(ask(command, 56), SVIO_ST_OK);
    EXPECT_EQ(command.data_len, 56u);
    const uint8_t *at = ring.ram().at(AdminRing::data, 56);
    std::map<uint16_t, std::array<uint32_t, 2>> found;
    for (;;) {
        svio_option option;
        std::memcpy(&option, at, sizeof(option));
        at += sizeof(option);
        EXPECT_EQ(option.required, 0u);
        if (option.id == SVIO_OPTION_END)
            break;
        ASSERT_EQ(option.length, 8);
        std::memcpy(found[option.id].data(), at, 8);
        at += option.length;
    }
    std::map<uint16_t, std::array<uint32_t, 2>> wanted = {{SVIO_OPTION_MANAGEMENT, {4, SVIO_CFG_KNOWN}},
                                                          {SVIO_OPTION_QOS, {0, SVIO_WEIGHT_MAX}},
                                                          {SVIO_OPTION_CORE_MAP, {2, 0}}};
    EXPECT_EQ(found, wanted);
    command = ring.make(SVIO_OP_DESCRIBE_OPTIONS);
    EXPECT_EQ(ask(command, 55), SVIO_ST_NO_SPACE);
    EXPECT_EQ(command.data_len, 0u);
    command = ring.make(SVIO_OP_DESCRIBE_OPTIONS);
    command.data_len = 4096;
    command.data_addr = 0x1000;
    EXPECT_EQ(ring.run(command), SVIO_ST_DMA);
}

TEST_P(Admin, CommandsNeedTheirOptions) {
    const uint16_t management[] = {SVIO_OP_VIF_CREATE, SVIO_OP_VIF_DESTROY, SVIO_OP_VIF_RECONFIGURE,
                                   SVIO_OP_VIF_QUERY,  SVIO_OP_VIF_LIST,    SVIO_OP_VIF_BIND,
                                   SVIO_OP_VIF_UNBIND};
    for (uint16_t opcode : management)
        EXPECT_EQ(plain(opcode, 1), SVIO_ST_UNSUPPORTED) << opcode;
    for (uint16_t opcode : {SVIO_OP_CORE_LIST, SVIO_OP_CORE_MAP})
        EXPECT_EQ(plain(opcode, 1), SVIO_ST_UNSUPPORTED) << opcode;
    ASSERT_EQ(ring.accept({SVIO_OPTION_MANAGEMENT, SVIO_OPTION_END, 99}), SVIO_ST_OK)
        << "nothing after the end";
    ASSERT_EQ(create(1, {}), SVIO_ST_OK);
    for (uint32_t bit : {SVIO_CFG_RATE, SVIO_CFG_WEIGHT, SVIO_CFG_QOS_LIMIT, SVIO_CFG_CORE})
        EXPECT_EQ(change(1, {.mask = bit, .weight = 2}), SVIO_ST_UNSUPPORTED) << bit;
    EXPECT_EQ(plain(SVIO_OP_CORE_MAP, 1), SVIO_ST_UNSUPPORTED);
    ASSERT_EQ(ring.accept({SVIO_OPTION_MANAGEMENT, SVIO_OPTION_QOS}), SVIO_ST_OK);
    EXPECT_EQ(change(1, {.mask = SVIO_CFG_WEIGHT, .weight = 2}), SVIO_ST_OK);
    EXPECT_EQ(board.vif(1).settings().weight, 2u);
    ASSERT_EQ(ring.accept({}), SVIO_ST_OK) << "none is a subset too";
    EXPECT_EQ(plain(SVIO_OP_VIF_DESTROY, 1), SVIO_ST_UNSUPPORTED);
}

TEST_P(Admin, BrokenListsOfOptionsChangeNothing) {
    ring.accept_all();
    EXPECT_EQ(ring.accept({SVIO_OPTION_SHARED_SIGNALS}), SVIO_ST_UNSUPPORTED) << "not described";
    EXPECT_EQ(ring.accept({5}), SVIO_ST_UNSUPPORTED);
    EXPECT_EQ(ring.accept({0xffff}), SVIO_ST_UNSUPPORTED);
    struct Broken {
        uint16_t length;
        uint32_t size;
        uint16_t status;
    };
    for (Broken broken : {Broken{4, 16, SVIO_ST_INVALID}, Broken{8, 8, SVIO_ST_INVALID},
                          Broken{0xfff8, 16, SVIO_ST_INVALID}, Broken{0, 12, SVIO_ST_INVALID},
                          Broken{0, 1032, SVIO_ST_INVALID}, Broken{0, UINT32_MAX, SVIO_ST_INVALID}}) {
        svio_option list[2] = {{.id = SVIO_OPTION_QOS, .length = broken.length, .required = 0}, {}};
        list[1].id = SVIO_OPTION_QOS;
        ring.ram().put(AdminRing::data, list, sizeof(list));
        svio_command command = ring.make(SVIO_OP_ACCEPT_OPTIONS);
        command.data_addr = AdminRing::data;
        command.data_len = broken.size;
        EXPECT_EQ(ring.run(command), broken.status) << broken.length << " " << broken.size;
    }
    svio_command command = ring.make(SVIO_OP_ACCEPT_OPTIONS);
    command.data_len = 8;
    EXPECT_EQ(ring.run(command), SVIO_ST_DMA);
    EXPECT_EQ(plain(SVIO_OP_VIF_DESTROY, 1), SVIO_ST_NOT_FOUND) << "what was accepted before holds";
}

TEST(AdminQueue, SharedSignalsAreAnOptionWhereTheyAre) {
    ManagedBoard board({.shared_signals = true});
    AdminRing ring(board);
    EXPECT_EQ(ring.accept({SVIO_OPTION_SHARED_SIGNALS, SVIO_OPTION_QOS}), SVIO_ST_OK);
    svio_command command = ring.make(SVIO_OP_DESCRIBE_OPTIONS);
    command.data_addr = AdminRing::data;
    command.data_len = 4096;
    EXPECT_EQ(ring.run(command), SVIO_ST_OK);
    EXPECT_EQ(command.data_len, 64u);
}

// ---- commands ----

TEST_P(Admin, VifsAreCreatedChangedShownAndDestroyed) {
    ring.accept_all();
    svio_vif_config config{};
    config.mask = SVIO_CFG_MAC | SVIO_CFG_VLAN | SVIO_CFG_NAME | SVIO_CFG_RATE | SVIO_CFG_LINK;
    const Mac mac = {2, 0, 0, 0, 0, 7};
    std::copy(mac.begin(), mac.end(), config.mac);
    config.vlan = 12 | 5 << 13;
    config.min_mbps = 5;
    config.max_mbps = 50;
    config.link = SVIO_LINK_UP;
    config.trust = 1; // not in the mask
    std::memcpy(config.name, "seven", 5);
    uint64_t id = 0;
    ASSERT_EQ(create_as(3, config, &id), SVIO_ST_OK);
    EXPECT_EQ(id, 2u);
    svio_vif_config shown = query(3);
    EXPECT_EQ(shown.id, 2u);
    EXPECT_EQ(shown.slot, 3u);
    EXPECT_EQ(shown.mask, uint32_t{SVIO_CFG_KNOWN});
    EXPECT_EQ(shown.kind, uint32_t{SVIO_KIND_NET});
    EXPECT_EQ(std::memcmp(shown.mac, mac.data(), 6), 0);
    EXPECT_EQ(shown.vlan, 12 | 5 << 13);
    EXPECT_EQ(shown.trust, 0);
    EXPECT_EQ(shown.spoof_check, 1);
    EXPECT_EQ(shown.guest_tagging, 0);
    EXPECT_EQ(shown.link, SVIO_LINK_UP);
    EXPECT_EQ(shown.min_mbps, 5u);
    EXPECT_EQ(shown.max_mbps, 50u);
    EXPECT_EQ(shown.weight, 1u);
    EXPECT_EQ(shown.core, uint32_t{SVIO_CORE_AUTO});
    EXPECT_STREQ(reinterpret_cast<const char *>(shown.name), "seven");

    ASSERT_EQ(change(3, {.mask = SVIO_CFG_TRUST | SVIO_CFG_WEIGHT, .trust = 1, .weight = 9}), SVIO_ST_OK);
    shown = query(3);
    EXPECT_EQ(shown.trust, 1);
    EXPECT_EQ(shown.weight, 9u);
    EXPECT_EQ(shown.vlan, 12 | 5 << 13);
    EXPECT_EQ(board.ask(R"({"op":"vif-show","name":"seven"})").at("vif").at("weight"), 9);
    EXPECT_EQ(plain(SVIO_OP_VIF_DESTROY, 3), SVIO_ST_OK);
    EXPECT_EQ(plain(SVIO_OP_VIF_DESTROY, 3), SVIO_ST_NOT_FOUND);
    EXPECT_EQ(board.id(3), 0u);
}

TEST_P(Admin, WhatIsRefusedByTheOtherDoorsIsHereToo) {
    ring.accept_all();
    ASSERT_EQ(create(1, {}), SVIO_ST_OK);
    EXPECT_EQ(create(1, {}), SVIO_ST_EXISTS);
    EXPECT_EQ(create(0, {}), SVIO_ST_EXISTS);
    EXPECT_EQ(create(5, {}), SVIO_ST_NOT_FOUND);
    EXPECT_EQ(create(2, {.mask = 1u << 15}), SVIO_ST_INVALID);
    EXPECT_EQ(create(2, {.mask = SVIO_CFG_MAC}), SVIO_ST_INVALID);
    EXPECT_EQ(change(1, {.mask = SVIO_CFG_VLAN, .vlan = 0x1001}), SVIO_ST_INVALID);
    EXPECT_EQ(change(1, {.mask = SVIO_CFG_VLAN, .vlan = 4095}), SVIO_ST_INVALID);
    EXPECT_EQ(change(1, {.mask = SVIO_CFG_SPOOF_CHECK, .spoof_check = 2}), SVIO_ST_INVALID);
    EXPECT_EQ(change(1, {.mask = SVIO_CFG_LINK, .link = 3}), SVIO_ST_INVALID);
    EXPECT_EQ(change(1, {.mask = SVIO_CFG_CORE, .core = 2}), SVIO_ST_NOT_FOUND);
    EXPECT_EQ(change(4, {}), SVIO_ST_NOT_FOUND);
    svio_vif_config name{};
    name.mask = SVIO_CFG_NAME;
    std::memset(name.name, 'x', sizeof(name.name));
    EXPECT_EQ(change_to(1, name), SVIO_ST_INVALID) << "without an end";
    const std::vector<std::vector<uint8_t>> bad_text = {
        {0xff}, {0xc0, 0x80}, {0xe0, 0x80, 0x80}, {0xed, 0xa0, 0x80},       {0xf4, 0x90, 0x80, 0x80},
        {0xc3}, {0x1b},       {0xc2, 0x85},       {0xf0, 0x80, 0x80, 0x80}, {0x7f},
        {0x80}};
    for (const auto &bytes : bad_text) {
        std::memset(name.name, 0, sizeof(name.name));
        std::copy(bytes.begin(), bytes.end(), name.name);
        EXPECT_EQ(change_to(1, name), SVIO_ST_INVALID) << unsigned{bytes[0]};
    }
    svio_vif_config wrong_kind{};
    wrong_kind.kind = 2;
    svio_command command = ring.make(SVIO_OP_VIF_CREATE, 2);
    EXPECT_EQ(ring.run_with(command, wrong_kind), SVIO_ST_UNSUPPORTED);
    for (uint16_t opcode : {SVIO_OP_VIF_CREATE, SVIO_OP_VIF_RECONFIGURE, SVIO_OP_VIF_QUERY}) {
        command = ring.make(opcode, opcode == SVIO_OP_VIF_CREATE ? 2 : 1);
        command.data_addr = AdminRing::data;
        command.data_len = sizeof(svio_vif_config) - 1;
        EXPECT_EQ(ring.run(command), SVIO_ST_NO_SPACE) << opcode;
        command = ring.make(opcode, opcode == SVIO_OP_VIF_CREATE ? 2 : 1);
        command.data_addr = FakeRam::base + ring.ram().size() - 64;
        command.data_len = 4096;
        EXPECT_EQ(ring.run(command), SVIO_ST_DMA) << opcode;
    }
    EXPECT_EQ(plain(SVIO_OP_VIF_DESTROY, 0), SVIO_ST_DENIED);
    EXPECT_EQ(plain(SVIO_OP_VIF_DESTROY, SVIO_SLOT_SELF), SVIO_ST_DENIED);
    EXPECT_EQ(plain(SVIO_OP_VIF_UNBIND, 0), SVIO_ST_DENIED);
    EXPECT_EQ(plain(SVIO_OP_CORE_MAP, 4), SVIO_ST_NOT_FOUND);
    EXPECT_EQ(board.ask(R"({"op":"vif-list"})").at("vifs").size(), 2u);
}

TEST_P(Admin, UnboundVifsAreNamedByTheirId) {
    ring.accept_all();
    uint64_t id = 0;
    ASSERT_EQ(create(SVIO_SLOT_SELF, {}, &id), SVIO_ST_OK);
    svio_command command = ring.make(SVIO_OP_VIF_QUERY);
    command.u.vif.id = id;
    ASSERT_EQ(ask(command, sizeof(svio_vif_config)), SVIO_ST_OK);
    EXPECT_EQ(ring.back<svio_vif_config>().slot, uint32_t{SVIO_SLOT_SELF});
    command = ring.make(SVIO_OP_VIF_BIND, 2);
    command.u.vif.id = id;
    EXPECT_EQ(ring.run(command), SVIO_ST_OK);
    EXPECT_EQ(board.id(2), id);
    command = ring.make(SVIO_OP_VIF_BIND, 3);
    command.u.vif.id = id;
    EXPECT_EQ(ring.run(command), SVIO_ST_STATE);
    command = ring.make(SVIO_OP_VIF_BIND, 3);
    command.u.vif.id = 77;
    EXPECT_EQ(ring.run(command), SVIO_ST_NOT_FOUND);
    EXPECT_EQ(plain(SVIO_OP_VIF_UNBIND, 2), SVIO_ST_OK);
    EXPECT_EQ(plain(SVIO_OP_VIF_UNBIND, 2), SVIO_ST_NOT_FOUND);
    command = ring.make(SVIO_OP_VIF_UNBIND);
    command.u.vif.id = id;
    EXPECT_EQ(ring.run(command), SVIO_ST_STATE);
    command = ring.make(SVIO_OP_VIF_DESTROY);
    command.u.vif.id = id;
    EXPECT_EQ(ring.run(command), SVIO_ST_OK);
}

TEST_P(Admin, ListsComeInPieces) {
    ring.accept_all();
    board.enable_all(4);
    ASSERT_EQ(create(SVIO_SLOT_SELF, {}), SVIO_ST_OK);
    std::vector<uint32_t> slots;
    for (uint32_t first = 0;;) {
        svio_command command = ring.make(SVIO_OP_VIF_LIST);
        command.u.list.first = first;
        ASSERT_EQ(ask(command, 2 * sizeof(svio_vif_info) + 5), SVIO_ST_OK);
        EXPECT_EQ(command.data_len, command.u.list.count * sizeof(svio_vif_info));
        if (command.u.list.count == 0)
            break;
        for (uint32_t n = 0; n < command.u.list.count; n++) {
            svio_vif_info info;
            std::memcpy(&info, ring.ram().at(AdminRing::data + n * sizeof(info), sizeof(info)), sizeof(info));
            EXPECT_EQ(info.kind, uint32_t{SVIO_KIND_NET});
            slots.push_back(info.slot);
        }
        first += command.u.list.count;
    }
    EXPECT_EQ(slots, (std::vector<uint32_t>{0, 1, 2, 3, 4, SVIO_SLOT_SELF}));
    svio_command command = ring.make(SVIO_OP_VIF_LIST);
    EXPECT_EQ(ask(command, sizeof(svio_vif_info) - 1), SVIO_ST_NO_SPACE);
    command = ring.make(SVIO_OP_CORE_LIST);
    command.u.list.first = 1;
    ASSERT_EQ(ask(command, 4000), SVIO_ST_OK);
    EXPECT_EQ(command.u.list.count, 1u);
    EXPECT_EQ(ring.back<svio_core_info>().core, 1u);
    command = ring.make(SVIO_OP_CORE_LIST);
    command.u.list.first = UINT32_MAX;
    ASSERT_EQ(ask(command, 4000), SVIO_ST_OK);
    EXPECT_EQ(command.u.list.count, 0u);
}

TEST_P(Admin, CoresAreMapped) {
    ring.accept_all();
    board.enable(1, true);
    for (uint32_t core : {1u, 0u, SVIO_CORE_AUTO}) {
        svio_command command = ring.make(SVIO_OP_CORE_MAP, 1);
        command.u.core_map.core = core;
        EXPECT_EQ(ring.run(command), SVIO_ST_OK);
        EXPECT_EQ(board.vif(1).settings().core, core);
    }
    svio_command command = ring.make(SVIO_OP_CORE_MAP, 1);
    command.u.core_map.core = 2;
    EXPECT_EQ(ring.run(command), SVIO_ST_NOT_FOUND);
}

TEST_P(Admin, CommandsOfTheMailboxForAnySlot) {
    board.enable(2, true);
    svio_command command = ring.make(SVIO_OP_IDENTIFY, 2);
    ASSERT_EQ(ask(command, sizeof(svio_vif_info)), SVIO_ST_OK);
    EXPECT_EQ(ring.back<svio_vif_info>().slot, 2u);
    command = ring.make(SVIO_OP_IDENTIFY);
    ASSERT_EQ(ask(command, sizeof(svio_vif_info)), SVIO_ST_OK);
    EXPECT_EQ(ring.back<svio_vif_info>().slot, 0u);

    board.vif(2).counters.add(SVIO_STAT_RX_FRAMES, 5);
    command = ring.make(SVIO_OP_STATS, 2);
    command.u.stats.pair = SVIO_STATS_VIF;
    ASSERT_EQ(ask(command, 8 * SVIO_STAT_COUNT), SVIO_ST_OK);
    EXPECT_EQ(command.data_len, 8u * SVIO_STAT_COUNT);
    uint64_t frames;
    std::memcpy(&frames, ring.ram().at(AdminRing::data + 8 * SVIO_STAT_RX_FRAMES), 8);
    EXPECT_EQ(frames, 5u);

    command = ring.make(SVIO_OP_SET_MAC, 2);
    std::copy(vif_mac.begin(), vif_mac.end(), command.u.set_mac.mac);
    EXPECT_EQ(ring.run(command), SVIO_ST_EXISTS);
    command = ring.make(SVIO_OP_NOP, 3);
    EXPECT_EQ(ring.run(command), SVIO_ST_OK) << "an empty slot answers this alone";
    command = ring.make(SVIO_OP_IDENTIFY, 3);
    EXPECT_EQ(ring.run(command), SVIO_ST_NOT_FOUND);
    command = ring.make(SVIO_OP_NOP, 5);
    EXPECT_EQ(ring.run(command), SVIO_ST_NOT_FOUND);
    command = ring.make(0x0fff, 2);
    EXPECT_EQ(ring.run(command), SVIO_ST_UNSUPPORTED);
}

TEST(AdminQueue, AVirtualFunctionHasNoneOfItsCommands) {
    ManagedBoard board;
    board.enable(1, true);
    for (uint16_t opcode : {SVIO_OP_DESCRIBE_OPTIONS, SVIO_OP_ACCEPT_OPTIONS, SVIO_OP_VIF_CREATE,
                            SVIO_OP_VIF_DESTROY, SVIO_OP_VIF_LIST, SVIO_OP_CORE_MAP}) {
        svio_command command{};
        command.opcode = opcode;
        EXPECT_EQ(board.mailbox(1, command), SVIO_ST_UNSUPPORTED);
        EXPECT_EQ(board.mailbox(0, command), SVIO_ST_UNSUPPORTED) << "not by the PF's mailbox either";
    }
}

// ---- interrupts that are writes to registers ----

namespace {

/// An MSI-X entry of a VF that points at a register of the PF.
class AimedSignals final : public Signals {
  public:
    explicit AimedSignals(std::function<void()> shot) : shot_(std::move(shot)) {}
    void raise(unsigned) override { shot_(); }

  private:
    std::function<void()> shot_;
};

} // namespace

TEST(AdminQueue, AnInterruptThatResetsThePhysicalFunctionInTheMiddleOfACommand) {
    BigLock lock;
    ManualClock clock;
    CountedHooks hooks;
    FakeRam ram(size_t{256} << 10), other(4096);
    Board board({.cores = 1, .poll_us = 0, .threads = false}, lock, clock, hooks,
                std::make_unique<PushPort>(lock));
    SignalLog own(lock);
    Vif &physical = board.add_vif({.mac = vif_mac}, ram, own);
    unsigned shots = 0;
    AimedSignals aimed([&] {
        shots++;
        physical.write_register(SVIO_REG_CONTROL, SVIO_CONTROL_RESET);
    });
    Vif &vf = board.add_function({.slot = 1, .physical = false}, other, aimed);
    ManagementCore core(board, {.management = {}, .admin_size_max = 64, .socket = {}});
    physical.set_dma(true);
    vf.set_dma(true);
    std::lock_guard guard(lock);
    core.management().enable(1, true);
    vf.write_register(SVIO_REG_EVENT_VECTOR, 0);
    physical.write_register(SVIO_REG_ADMIN_BASE_LO, static_cast<uint32_t>(FakeRam::base));
    physical.write_register(SVIO_REG_ADMIN_BASE_HI, static_cast<uint32_t>(FakeRam::base >> 32));
    physical.write_register(SVIO_REG_ADMIN_SIZE, 16);
    physical.write_register(SVIO_REG_ADMIN_CONTROL, 1);
    svio_option accept{.id = SVIO_OPTION_MANAGEMENT, .length = 0, .required = 0};
    ram.put(FakeRam::base + 0x10000, &accept, sizeof(accept));
    svio_command commands[2] = {};
    commands[0].opcode = SVIO_OP_ACCEPT_OPTIONS;
    commands[0].data_addr = FakeRam::base + 0x10000;
    commands[0].data_len = sizeof(accept);
    commands[1].opcode = SVIO_OP_VIF_DESTROY;
    commands[1].slot = 1;
    for (svio_command &command : commands)
        command.flags = SVIO_COMMAND_POSTED;
    ram.put(FakeRam::base, commands, sizeof(commands));
    physical.write_register(SVIO_REG_ADMIN_BELL, 1);
    lock.unlock();
    while (core.step()) {
    }
    lock.lock();
    EXPECT_EQ(shots, 1u);
    EXPECT_FALSE(vf.present());
    EXPECT_EQ(physical.read_register(SVIO_REG_ADMIN_STATE), uint32_t{SVIO_QUEUE_DISABLED});
    svio_command answer;
    std::memcpy(&answer, ram.at(FakeRam::base + 64), sizeof(answer));
    EXPECT_EQ(answer.flags, SVIO_COMMAND_POSTED) << "a queue that was reset answers no more";
}

// ---- with threads ----

TEST(AdminQueueThreads, CommandsFromTheRingAndFromLinesAtTheSameTime) {
    ManagedBoard board({.vfs = 8, .threads = true});
    AdminRing ring(board);
    std::atomic<bool> over{false};
    std::atomic<unsigned> asked{0};
    std::thread asker([&] {
        while (!over) {
            std::string slot = std::to_string(5 + asked % 4);
            board.ask(R"({"op":"vif-create","slot":)" + slot + R"(,"set":{"weight":3}})");
            board.ask(R"({"op":"vif-list"})");
            EXPECT_EQ(board.status(R"({"op":"vif-destroy","slot":)" + slot + "}"), "OK");
            asked++;
        }
    });
    auto run = [&](svio_command command) {
        uint32_t position = ring.post(command);
        ring.ring_bell();
        EXPECT_TRUE(eventually([&] { return ring.done(position); }));
        return ring.answer(position);
    };
    svio_option accept{.id = SVIO_OPTION_MANAGEMENT, .length = 0, .required = 0};
    ring.ram().put(AdminRing::data, &accept, sizeof(accept));
    svio_command command = ring.make(SVIO_OP_ACCEPT_OPTIONS);
    command.data_addr = AdminRing::data;
    command.data_len = sizeof(accept);
    EXPECT_EQ(run(command).status, SVIO_ST_OK);
    svio_vif_config config{};
    config.kind = SVIO_KIND_NET;
    ring.ram().put(AdminRing::data, &config, sizeof(config));
    uint64_t last = 0;
    for (unsigned n = 0; n < 50 || asked < 10; n++) {
        command = ring.make(SVIO_OP_VIF_CREATE, 1 + n % 4);
        command.data_addr = AdminRing::data;
        command.data_len = sizeof(config);
        svio_command answer = run(command);
        EXPECT_EQ(answer.status, SVIO_ST_OK);
        EXPECT_GT(answer.u.vif.id, last);
        last = answer.u.vif.id;
        EXPECT_EQ(run(ring.make(SVIO_OP_VIF_DESTROY, 1 + n % 4)).status, SVIO_ST_OK);
    }
    over = true;
    asker.join();
    EXPECT_EQ(board.ask(R"({"op":"vif-list"})").at("vifs").size(), 1u);
    EXPECT_GT(board.hooks.begun, 0);
}
