// SPDX-License-Identifier: GPL-2.0-or-later
/// Registers (SPEC.md chapter 4) and the life of a function (chapter 3).
#include "driver.hpp"

#include <map>
#include <set>

using namespace svio;
using namespace svio::test;

namespace {

class Registers : public testing::Test {
  protected:
    Rig rig;
    uint64_t bad() { return rig.stat(SVIO_STAT_BAD_REGISTER); }
    void expect_bad_read(uint32_t offset) {
        uint64_t before = bad();
        EXPECT_EQ(rig.read(offset), 0u) << std::hex << offset;
        EXPECT_EQ(bad(), before + 1) << std::hex << offset;
    }
    void expect_bad_write(uint32_t offset, uint32_t value) {
        uint64_t before = bad();
        rig.write(offset, value);
        EXPECT_EQ(bad(), before + 1) << std::hex << offset;
    }
    void expect_reset_state() {
        EXPECT_EQ(rig.read(SVIO_REG_STATUS), uint32_t{SVIO_STATUS_READY | SVIO_STATUS_LINK_UP});
        EXPECT_EQ(rig.read(SVIO_REG_CONTROL), 0u);
        EXPECT_EQ(rig.read(SVIO_REG_EVENT), 0u);
        EXPECT_EQ(rig.read(SVIO_REG_EVENT_VECTOR), uint32_t{SVIO_NO_VECTOR});
        EXPECT_EQ(rig.read(SVIO_REG_DRIVER_FEATURES_LO), 0u);
        EXPECT_EQ(rig.read(SVIO_REG_DRIVER_FEATURES_HI), 0u);
        for (unsigned direction : {SVIO_SEND, SVIO_RECEIVE}) {
            for (uint32_t reg = 0; reg <= SVIO_QUEUE_MODERATION; reg += 4)
                EXPECT_EQ(rig.queue(direction, reg), reg == SVIO_QUEUE_VECTOR ? SVIO_NO_VECTOR : 0u) << reg;
        }
        for (uint32_t i = 0; i < 64; i += 4)
            EXPECT_EQ(rig.read(SVIO_REG_MAILBOX + i), 0u);
        EXPECT_EQ(rig.read(SVIO_REG_MAILBOX_STATE), uint32_t{SVIO_MAILBOX_IDLE});
        EXPECT_EQ(rig.vif->mac(), vif_mac);
        EXPECT_EQ(rig.ram.windows(), 0);
    }
};

const std::map<uint32_t, uint32_t> read_only = {
    {SVIO_REG_MAGIC, 0x4f495653},
    {SVIO_REG_ABI_VERSION, 0x10000},
    {SVIO_REG_FUNCTION, 0x80000000},
    {SVIO_REG_STATUS, SVIO_STATUS_READY | SVIO_STATUS_LINK_UP},
    {SVIO_REG_DEVICE_FEATURES_LO, 0x5fff},
    {SVIO_REG_DEVICE_FEATURES_HI, 0},
    {SVIO_REG_QUEUE_PAIRS, 1},
    {SVIO_REG_QUEUE_SIZE_MAX, 4096},
    {SVIO_REG_QUEUE_SIZE_HINT, 256},
    {SVIO_REG_MTU_MAX, 9000},
    {SVIO_REG_VIF_ID_LO, 1},
    {SVIO_REG_VIF_ID_HI, 0},
    {SVIO_REG_VIF_KIND, SVIO_KIND_NET},
    {SVIO_REG_MAC_LO, 0x12005452},
    {SVIO_REG_MAC_HI, 0x5634},
    {SVIO_REG_LINK_SPEED, 12345},
    {SVIO_REG_MAILBOX_STATE, SVIO_MAILBOX_IDLE},
    {SVIO_REG_ADMIN_SIZE_MAX, 0},
    {SVIO_QUEUE_REG(0, SVIO_SEND, SVIO_QUEUE_STATE), 0},
    {SVIO_QUEUE_REG(0, SVIO_SEND, SVIO_QUEUE_POSITION), 0},
    {SVIO_QUEUE_REG(0, SVIO_RECEIVE, SVIO_QUEUE_STATE), 0},
    {SVIO_QUEUE_REG(0, SVIO_RECEIVE, SVIO_QUEUE_POSITION), 0},
};

const std::set<uint32_t> write_only = {SVIO_REG_MAILBOX_BELL, SVIO_BELL(0, SVIO_SEND),
                                       SVIO_BELL(0, SVIO_RECEIVE)};

std::set<uint32_t> read_write() {
    std::set<uint32_t> all = {SVIO_REG_CONTROL, SVIO_REG_EVENT, SVIO_REG_EVENT_VECTOR,
                              SVIO_REG_DRIVER_FEATURES_LO, SVIO_REG_DRIVER_FEATURES_HI};
    for (uint32_t i = 0; i < 64; i += 4)
        all.insert(SVIO_REG_MAILBOX + i);
    for (unsigned direction : {SVIO_SEND, SVIO_RECEIVE}) {
        for (uint32_t reg : {SVIO_QUEUE_BASE_LO, SVIO_QUEUE_BASE_HI, SVIO_QUEUE_EVENT_LO, SVIO_QUEUE_EVENT_HI,
                             SVIO_QUEUE_SIZE, SVIO_QUEUE_VECTOR, SVIO_QUEUE_CONTROL, SVIO_QUEUE_MODERATION})
            all.insert(SVIO_QUEUE_REG(0, direction, reg));
    }
    return all;
}

} // namespace

TEST_F(Registers, ReadOnlyOnesSayWhatTheyShouldAndRefuseWrites) {
    for (auto [offset, value] : read_only) {
        uint64_t before = bad();
        EXPECT_EQ(rig.read(offset), value) << std::hex << offset;
        EXPECT_EQ(bad(), before);
        expect_bad_write(offset, ~value);
        EXPECT_EQ(rig.read(offset), value) << std::hex << offset;
    }
}

TEST_F(Registers, WriteOnlyOnesCannotBeRead) {
    for (uint32_t offset : write_only) {
        uint64_t before = bad();
        rig.write(offset, 1);
        EXPECT_EQ(bad(), before);
        expect_bad_read(offset);
    }
}

TEST_F(Registers, AllOfTheRestOfTheBarAreHoles) {
    std::set<uint32_t> writable = read_write();
    uint64_t holes = 0;
    for (uint32_t offset = 0; offset < SVIO_BAR_REGS_SIZE; offset += 4) {
        if (writable.count(offset) || read_only.count(offset) || write_only.count(offset))
            continue;
        uint64_t before = bad();
        ASSERT_EQ(rig.read(offset), 0u) << std::hex << offset;
        rig.write(offset, 0xffffffff);
        ASSERT_EQ(bad(), before + 2) << std::hex << offset;
        holes++;
    }
    EXPECT_EQ(holes, SVIO_BAR_REGS_SIZE / 4 - writable.size() - read_only.size() - write_only.size());
    expect_bad_read(SVIO_BAR_REGS_SIZE);
    expect_bad_write(SVIO_BAR_REGS_SIZE, 1);
    expect_bad_read(0xfffffffc);
    EXPECT_EQ(rig.read(SVIO_REG_STATUS), uint32_t{SVIO_STATUS_READY | SVIO_STATUS_LINK_UP});
}

TEST_F(Registers, UnalignedAccessesAreBad) {
    for (uint32_t offset : {0x1u, 0x2u, 0x3u, 0x11u, 0x4001u, 0x8001u, 0x8802u, 0x81u}) {
        expect_bad_read(offset);
        expect_bad_write(offset, 7);
    }
    uint64_t before = bad();
    rig.vif->bad_access(); // what an adapter does for a narrow one
    EXPECT_EQ(bad(), before + 1);
}

TEST_F(Registers, QueuesBeyondQueuePairsAreHoles) {
    for (unsigned pair : {1u, 7u, 8u, 63u}) {
        for (uint32_t reg = 0; reg < 0x28; reg += 4) {
            expect_bad_read(SVIO_QUEUE_REG(pair, SVIO_SEND, reg));
            expect_bad_write(SVIO_QUEUE_REG(pair, SVIO_RECEIVE, reg), 1);
        }
    }
    for (unsigned pair = 1; pair < 8; pair++)
        expect_bad_write(SVIO_BELL(pair, SVIO_SEND), 1);
}

TEST_F(Registers, AVirtualFunctionHasNoAdminRegisters) {
    FunctionConfig config;
    config.physical = false;
    config.slot = 5;
    config.id = 0x1122334455667788;
    Rig vf({.vif = config});
    EXPECT_EQ(vf.read(SVIO_REG_FUNCTION), 5u);
    EXPECT_EQ(vf.read(SVIO_REG_VIF_ID_LO), 0x55667788u);
    EXPECT_EQ(vf.read(SVIO_REG_VIF_ID_HI), 0x11223344u);
    uint64_t before = vf.stat(SVIO_STAT_BAD_REGISTER);
    EXPECT_EQ(vf.read(SVIO_REG_ADMIN_SIZE_MAX), 0u);
    EXPECT_EQ(vf.stat(SVIO_STAT_BAD_REGISTER), before + 1);
}

TEST_F(Registers, QueueRegistersKeepWhatIsWritten) {
    for (unsigned direction : {SVIO_SEND, SVIO_RECEIVE}) {
        uint32_t value = 0x12345600 + direction;
        for (uint32_t reg : {SVIO_QUEUE_BASE_LO, SVIO_QUEUE_BASE_HI, SVIO_QUEUE_EVENT_LO, SVIO_QUEUE_EVENT_HI,
                             SVIO_QUEUE_SIZE, SVIO_QUEUE_MODERATION}) {
            rig.set_queue(direction, reg, value);
            EXPECT_EQ(rig.queue(direction, reg), value++);
        }
        for (uint32_t vector : {0u, 8u, uint32_t{SVIO_NO_VECTOR}}) {
            rig.set_queue(direction, SVIO_QUEUE_VECTOR, vector);
            EXPECT_EQ(rig.queue(direction, SVIO_QUEUE_VECTOR), vector);
        }
        for (uint32_t vector : {9u, 0xfffeu, 0x10000u, 0xffffffffu})
            expect_bad_write(SVIO_QUEUE_REG(0, direction, SVIO_QUEUE_VECTOR), vector);
        EXPECT_EQ(rig.queue(direction, SVIO_QUEUE_VECTOR), uint32_t{SVIO_NO_VECTOR});
    }
}

TEST_F(Registers, AStartedQueueKeepsItsSetUp) {
    rig.bring_up();
    for (unsigned direction : {SVIO_SEND, SVIO_RECEIVE}) {
        for (uint32_t reg : {SVIO_QUEUE_BASE_LO, SVIO_QUEUE_BASE_HI, SVIO_QUEUE_EVENT_LO, SVIO_QUEUE_EVENT_HI,
                             SVIO_QUEUE_SIZE}) {
            uint32_t before = rig.queue(direction, reg);
            expect_bad_write(SVIO_QUEUE_REG(0, direction, reg), before ^ 0x1000);
            EXPECT_EQ(rig.queue(direction, reg), before);
        }
        EXPECT_EQ(rig.queue(direction, SVIO_QUEUE_CONTROL), 1u);
        rig.set_queue(direction, SVIO_QUEUE_MODERATION, 0x50007);
        EXPECT_EQ(rig.queue(direction, SVIO_QUEUE_MODERATION), 0x50007u);
        // Enabling twice changes nothing.
        rig.set_queue(direction, SVIO_QUEUE_CONTROL, 1);
        EXPECT_EQ(rig.queue(direction, SVIO_QUEUE_STATE), uint32_t{SVIO_QUEUE_RUNNING});
    }
}

TEST_F(Registers, QueueStartErrors) {
    struct {
        const char *what;
        uint64_t base, event;
        uint32_t size, error;
    } cases[] = {
        {"size 0", FakeRam::base, FakeRam::base, 0, SVIO_QERR_CONFIG},
        {"size 8", FakeRam::base, FakeRam::base, 8, SVIO_QERR_CONFIG},
        {"size 48", FakeRam::base, FakeRam::base, 48, SVIO_QERR_CONFIG},
        {"size 8192", FakeRam::base, FakeRam::base, 8192, SVIO_QERR_CONFIG},
        {"size 2^31", FakeRam::base, FakeRam::base, 0x80000000, SVIO_QERR_CONFIG},
        {"size -1", FakeRam::base, FakeRam::base, 0xffffffff, SVIO_QERR_CONFIG},
        {"base alignment", FakeRam::base + 32, FakeRam::base, 16, SVIO_QERR_CONFIG},
        {"event alignment", FakeRam::base, FakeRam::base + 4, 16, SVIO_QERR_CONFIG},
        {"base 0", 0, FakeRam::base, 16, SVIO_QERR_DMA},
        {"event 0", FakeRam::base, 0, 16, SVIO_QERR_DMA},
        {"base wraps", UINT64_MAX - 63, FakeRam::base, 16, SVIO_QERR_DMA},
        {"ring over the end", FakeRam::base + rig.ram.size() - 448, FakeRam::base, 16, SVIO_QERR_DMA},
        {"event over the end", FakeRam::base, FakeRam::base + rig.ram.size() - 64, 16, SVIO_QERR_DMA},
        {"ring with a hole", FakeRam::base + 8192, FakeRam::base, 256, SVIO_QERR_DMA},
    };
    rig.ram.holes = {{FakeRam::base + 8192 + 256 * 32 - 1, 1}};
    rig.write(SVIO_REG_EVENT_VECTOR, 4);
    uint64_t errors = 0;
    for (unsigned direction : {SVIO_SEND, SVIO_RECEIVE}) {
        for (const auto &c : cases) {
            Ring ring;
            ring.base = c.base;
            ring.event = c.event;
            ring.size = c.size;
            rig.program(direction, ring, 1);
            EXPECT_EQ(rig.queue(direction, SVIO_QUEUE_STATE), SVIO_QUEUE_ERROR | c.error << 8) << c.what;
            EXPECT_EQ(rig.read(SVIO_REG_EVENT), uint32_t{SVIO_EVENT_QUEUE_ERROR}) << c.what;
            rig.write(SVIO_REG_EVENT, SVIO_EVENT_ALL);
            EXPECT_EQ(rig.signals.count(4), ++errors);
            rig.work();
            rig.set_queue(direction, SVIO_QUEUE_CONTROL, 0);
            EXPECT_EQ(rig.queue(direction, SVIO_QUEUE_STATE), uint32_t{SVIO_QUEUE_DISABLED}) << c.what;
            EXPECT_EQ(rig.ram.windows(), 0) << c.what;
        }
    }
    EXPECT_EQ(rig.stat(SVIO_STAT_QUEUE_ERRORS), errors);
    // The vector is checked when it is written; the queue checks it once more.
    SendQueue queue;
    queue.regs = {
        .base = FakeRam::base, .event = FakeRam::base + 4096, .size = 16, .vector = 9, .moderation = 0};
    queue.start(rig.ram, 4096);
    EXPECT_EQ(queue.state_register(), SVIO_QUEUE_ERROR | SVIO_QERR_CONFIG << 8);
}

TEST_F(Registers, AStartClearsTheDevicesWordsAndAStopForgetsPosition) {
    rig.bring_up();
    rig.tx.post(make_frame(60, 1));
    rig.work();
    rig.sleep();
    EXPECT_EQ(rig.tx.done(), 1u);
    EXPECT_EQ(rig.tx.bell_at(), 1u);
    rig.set_queue(SVIO_SEND, SVIO_QUEUE_CONTROL, 0);
    EXPECT_EQ(rig.ram.windows(), 2);
    EXPECT_EQ(rig.queue(SVIO_SEND, SVIO_QUEUE_POSITION), 0u);
    EXPECT_EQ(rig.queue(SVIO_SEND, SVIO_QUEUE_SIZE), 64u) << "stopping is not forgetting";
    rig.set_queue(SVIO_SEND, SVIO_QUEUE_CONTROL, 1);
    EXPECT_EQ(rig.tx.done(), 0u);
    EXPECT_EQ(rig.tx.bell_at(), 0u);
}

TEST_F(Registers, FeatureNegotiation) {
    uint64_t refused[] = {SVIO_F_TIMESTAMP, SVIO_F_TIMESTAMP | SVIO_F_RX_CHAIN, SVIO_F_SHARED_SIGNALS,
                          1ULL << 63, ~0ULL};
    for (uint64_t features : refused) {
        rig.write(SVIO_REG_DRIVER_FEATURES_LO, static_cast<uint32_t>(features));
        rig.write(SVIO_REG_DRIVER_FEATURES_HI, static_cast<uint32_t>(features >> 32));
        rig.write(SVIO_REG_CONTROL, SVIO_CONTROL_FEATURES_OK);
        EXPECT_EQ(rig.read(SVIO_REG_STATUS) & SVIO_STATUS_FEATURES_OK, 0u) << features;
        EXPECT_EQ(rig.read(SVIO_REG_CONTROL), 0u);
    }
    rig.negotiate(SVIO_F_MODERATION); // a retry with a subset
    EXPECT_EQ(rig.read(SVIO_REG_CONTROL), uint32_t{SVIO_CONTROL_FEATURES_OK});
    expect_bad_write(SVIO_REG_DRIVER_FEATURES_LO, SVIO_F_RX_CHAIN);
    expect_bad_write(SVIO_REG_DRIVER_FEATURES_HI, 1);
    EXPECT_EQ(rig.read(SVIO_REG_DRIVER_FEATURES_LO), uint32_t{SVIO_F_MODERATION}) << "frozen";
    EXPECT_EQ(rig.read(SVIO_REG_DRIVER_FEATURES_HI), 0u);
    rig.write(SVIO_REG_CONTROL, 0);
    EXPECT_EQ(rig.read(SVIO_REG_CONTROL), uint32_t{SVIO_CONTROL_FEATURES_OK}) << "until the next reset";
    rig.reset();
    EXPECT_EQ(rig.read(SVIO_REG_CONTROL), 0u);
    rig.negotiate(0); // nothing is a subset too
}

TEST_F(Registers, RunWithoutFeaturesIsIgnoredAndCounted) {
    expect_bad_write(SVIO_REG_CONTROL, SVIO_CONTROL_RUN);
    EXPECT_EQ(rig.read(SVIO_REG_STATUS) & SVIO_STATUS_RUNNING, 0u);
    rig.write(SVIO_REG_DRIVER_FEATURES_LO, SVIO_F_TIMESTAMP);
    expect_bad_write(SVIO_REG_CONTROL, SVIO_CONTROL_RUN | SVIO_CONTROL_FEATURES_OK);
    EXPECT_EQ(rig.read(SVIO_REG_CONTROL), 0u);
    rig.write(SVIO_REG_DRIVER_FEATURES_LO, 0);
    uint64_t before = bad();
    rig.write(SVIO_REG_CONTROL, SVIO_CONTROL_RUN | SVIO_CONTROL_FEATURES_OK);
    EXPECT_EQ(bad(), before);
    EXPECT_EQ(rig.read(SVIO_REG_CONTROL), uint32_t{SVIO_CONTROL_RUN | SVIO_CONTROL_FEATURES_OK});
    EXPECT_EQ(rig.read(SVIO_REG_STATUS), uint32_t{SVIO_STATUS_READY | SVIO_STATUS_FEATURES_OK |
                                                  SVIO_STATUS_RUNNING | SVIO_STATUS_LINK_UP});
}

TEST_F(Registers, EventsAreClearedByWritingOnes) {
    rig.bring_up();
    rig.tx.post_raw(0, 60);
    rig.work();
    {
        std::lock_guard guard(rig.lock);
        rig.vif->set_link(false);
    }
    EXPECT_EQ(rig.read(SVIO_REG_EVENT), uint32_t{SVIO_EVENT_QUEUE_ERROR | SVIO_EVENT_LINK});
    EXPECT_EQ(rig.signals.count(Rig::event_vector), 2u);
    rig.write(SVIO_REG_EVENT, SVIO_EVENT_LINK | 0xfffffff0);
    EXPECT_EQ(rig.read(SVIO_REG_EVENT), uint32_t{SVIO_EVENT_QUEUE_ERROR});
    rig.write(SVIO_REG_EVENT, 0);
    EXPECT_EQ(rig.read(SVIO_REG_EVENT), uint32_t{SVIO_EVENT_QUEUE_ERROR});
    rig.write(SVIO_REG_EVENT, SVIO_EVENT_QUEUE_ERROR);
    EXPECT_EQ(rig.read(SVIO_REG_EVENT), 0u);
    // Another vector, none, and one that is out of range.
    auto flip = [&](bool up) {
        std::lock_guard guard(rig.lock);
        rig.vif->set_link(up);
    };
    rig.write(SVIO_REG_EVENT_VECTOR, 8);
    flip(true);
    EXPECT_EQ(rig.signals.count(8), 1u);
    flip(true); // no change, no event
    EXPECT_EQ(rig.signals.count(8), 1u);
    expect_bad_write(SVIO_REG_EVENT_VECTOR, 9);
    EXPECT_EQ(rig.read(SVIO_REG_EVENT_VECTOR), 8u);
    rig.write(SVIO_REG_EVENT_VECTOR, SVIO_NO_VECTOR);
    uint64_t total = rig.signals.total();
    flip(false);
    EXPECT_EQ(rig.signals.total(), total);
    EXPECT_EQ(rig.read(SVIO_REG_EVENT), uint32_t{SVIO_EVENT_LINK});
}

TEST_F(Registers, ResetInEveryStateGivesTheStateReset) {
    std::function<void()> states[] = {
        [] {},
        [&] { rig.write(SVIO_REG_DRIVER_FEATURES_LO, 0xffffffff); },
        [&] { rig.negotiate(); },
        [&] { rig.bring_up(); },
        [&] {
            rig.bring_up();
            rig.write(SVIO_REG_CONTROL, 0);
        },
        [&] {
            rig.bring_up();
            rig.tx.post_raw(0, 60);
            rig.work();
        },
        [&] {
            rig.bring_up();
            rig.set_dma(false);
        },
        [&] {
            rig.bring_up();
            rig.tx.post(make_frame(60, 1));
            rig.offer(make_frame(60, 1)); // held in the port for want of buffers
        },
    };
    uint64_t resets = 0;
    for (auto &state : states) {
        state();
        rig.write(SVIO_REG_EVENT_VECTOR, 3);
        for (uint32_t i = 0; i < 64; i += 4)
            rig.write(SVIO_REG_MAILBOX + i, 0xdeadbeef);
        rig.write(SVIO_REG_MAILBOX_BELL, 1);
        rig.set_queue(SVIO_SEND, SVIO_QUEUE_MODERATION, 77);
        rig.reset();
        EXPECT_EQ(rig.stat(SVIO_STAT_RESETS), ++resets);
        expect_reset_state();
        EXPECT_TRUE(rig.push->held.empty()) << "a frame is not held for ever";
        rig.set_dma(true);
        // And it works.
        rig.push->sent.clear();
        rig.bring_up();
        rig.rx.post(1);
        rig.offer(make_frame(60, 2));
        rig.tx.post(make_frame(60, 3));
        rig.work();
        EXPECT_EQ(rig.rx.take(), make_frame(60, 2));
        EXPECT_EQ(rig.sent(), std::vector<Frame>{make_frame(60, 3)});
        rig.reset();
        ++resets;
    }
    EXPECT_EQ(rig.stat(SVIO_STAT_TX_FRAMES), std::size(states)) << "counters stay";
}

TEST_F(Registers, ClearingRunStopsBothDirections) {
    rig.bring_up();
    rig.rx.post(4);
    rig.write(SVIO_REG_CONTROL, 0);
    rig.tx.post(make_frame(60, 1));
    uint64_t accesses = rig.ram.accesses, written = rig.ram.written_bytes;
    rig.work();
    rig.sleep();
    rig.offer(make_frame(60, 2));
    EXPECT_EQ(rig.ram.accesses, accesses);
    EXPECT_EQ(rig.ram.written_bytes, written);
    EXPECT_EQ(rig.stat(SVIO_STAT_DROP_RX_NOT_RUNNING), 1u);
    EXPECT_EQ(rig.queue(SVIO_SEND, SVIO_QUEUE_STATE), uint32_t{SVIO_QUEUE_RUNNING});
    rig.write(SVIO_REG_CONTROL, SVIO_CONTROL_RUN);
    rig.work();
    EXPECT_EQ(rig.sent(), std::vector<Frame>{make_frame(60, 1)});
}

TEST_F(Registers, BusMasterOffKeepsStateAndGoesOn) {
    rig.bring_up();
    rig.rx.post(4);
    rig.tx.post(make_frame(60, 1));
    rig.work();
    rig.set_dma(false);
    rig.tx.post(make_frame(60, 2));
    uint64_t accesses = rig.ram.accesses, written = rig.ram.written_bytes, signals = rig.signals.total();
    rig.work();
    rig.sleep();
    rig.offer(make_frame(60, 3));
    rig.write(SVIO_BELL(0, SVIO_SEND), 1);
    rig.work();
    EXPECT_EQ(rig.ram.accesses, accesses);
    EXPECT_EQ(rig.ram.written_bytes, written);
    EXPECT_EQ(rig.signals.total(), signals);
    EXPECT_EQ(rig.queue(SVIO_SEND, SVIO_QUEUE_POSITION), 1u);
    EXPECT_EQ(rig.read(SVIO_REG_EVENT), 0u);
    rig.set_dma(true);
    rig.work();
    EXPECT_EQ(rig.sent(), (std::vector<Frame>{make_frame(60, 1), make_frame(60, 2)}));
    rig.offer(make_frame(60, 4));
    EXPECT_EQ(rig.rx.take(), make_frame(60, 4));
}

TEST_F(Registers, ASignalThatMeetsBusMasterOffIsSentWhenItIsOn) {
    rig.bring_up();
    rig.tx.set_signal_at(0);
    rig.tx.post(make_frame(60, 1));
    // Between the core's completion and its turn with the guest lock.
    rig.lock.on_lock = [&] { rig.vif->set_dma(false); };
    rig.work();
    EXPECT_EQ(rig.tx.done(), 1u);
    EXPECT_EQ(rig.signals.count(Rig::send_vector), 0u);
    rig.set_dma(true);
    rig.work();
    EXPECT_EQ(rig.signals.count(Rig::send_vector), 1u);
}
