// SPDX-License-Identifier: GPL-2.0-or-later
/// A guest that means harm: random entries, event words, registers, doorbells and commands. The board must
/// neither crash nor hang nor leave its RAM, and must work again after a reset. SVIO_SEED=n repeats a run.
#include "driver.hpp"

#include <cstdlib>
#include <iostream>
#include <random>

using namespace svio;
using namespace svio::test;

namespace {

class Hostile {
  public:
    Hostile(Rig &rig, uint64_t seed) : rig_(rig), random_(seed) {}

    void one() {
        // A queue in error does nothing: often enough it is started anew, so that there is something to
        // attack.
        for (unsigned direction : {SVIO_SEND, SVIO_RECEIVE}) {
            uint32_t state = SVIO_QUEUE_STATE_OF(rig_.queue(direction, SVIO_QUEUE_STATE));
            errors += state == SVIO_QUEUE_ERROR;
            if (state != SVIO_QUEUE_RUNNING && below(6) == 0)
                restart(direction);
        }
        switch (below(12)) {
        case 0:
        case 1:
        case 2:
        case 3:
            entry(below(2) ? static_cast<Ring &>(rig_.tx) : rig_.rx);
            break;
        case 4:
            event_words(below(2) ? static_cast<Ring &>(rig_.tx) : rig_.rx);
            break;
        case 5:
            registers();
            break;
        case 6:
            setup();
            break;
        case 7:
            command();
            break;
        case 8:
            rig_.write(SVIO_BELL(0, below(2)), 1);
            break;
        case 9:
            rig_.tx.post(make_frame(14 + below(500), below(1000)));
            break;
        case 10:
            rig_.rx.post_one(1 + below(2048));
            break;
        default:
            ram_noise();
            break;
        }
    }
    uint32_t below(uint32_t n) { return static_cast<uint32_t>(random_() % n); }

    uint64_t errors = 0;

  private:
    void restart(unsigned direction) {
        Ring &ring = direction == SVIO_SEND ? static_cast<Ring &>(rig_.tx) : rig_.rx;
        rig_.set_queue(direction, SVIO_QUEUE_CONTROL, 0);
        for (uint32_t i = 0; i < ring.size; i++)
            ring.set_flags(i, 0);
        ring.next = 0;
        rig_.program(direction, ring, below(9));
        if (rig_.read(SVIO_REG_CONTROL) == SVIO_CONTROL_FEATURES_OK)
            rig_.write(SVIO_REG_CONTROL, SVIO_CONTROL_RUN);
    }
    uint64_t any() { return random_(); }
    uint64_t address() {
        switch (below(6)) {
        case 0:
            return any();
        case 1:
            return 0;
        case 2:
            return FakeRam::base + rig_.ram.size() - below(4096);
        case 3:
            return FakeRam::base - below(64);
        default:
            return FakeRam::base + below(static_cast<uint32_t>(rig_.ram.size()));
        }
    }
    uint32_t length() {
        switch (below(6)) {
        case 0:
            return static_cast<uint32_t>(any());
        case 1:
            return below(2) ? 0 : SVIO_MESSAGE_MAX + below(3) - 1;
        default:
            return below(3000);
        }
    }
    void entry(Ring &ring) {
        uint32_t at = below(4) ? ring.next : below(ring.size);
        put64(ring.entry_at(at), address());
        rig_.ram.set_word(ring.entry_at(at) + 8, length());
        for (uint32_t i = 12; i < 28; i += 4)
            rig_.ram.set_word(ring.entry_at(at) + i, static_cast<uint32_t>(any()));
        uint32_t flags = below(3) ? below(2) : static_cast<uint32_t>(any());
        if (below(8))
            flags = (flags & ~SVIO_ENTRY_POSTED) | ring.lap_flag(at, SVIO_ENTRY_POSTED);
        ring.set_flags(at, flags);
        ring.next += below(3) != 0;
    }
    void put64(uint64_t at, uint64_t value) {
        rig_.ram.set_word(at, static_cast<uint32_t>(value));
        rig_.ram.set_word(at + 4, static_cast<uint32_t>(value >> 32));
    }
    void event_words(Ring &ring) {
        rig_.ram.set_word(ring.event + 4 * below(32), below(2) ? static_cast<uint32_t>(any()) : ring.next);
    }
    void registers() {
        uint32_t offset = below(3) ? below(0x100) : below(SVIO_BAR_REGS_SIZE);
        uint32_t value = below(2) ? static_cast<uint32_t>(any()) : 1u << below(32);
        if (offset == SVIO_REG_CONTROL && below(8))
            value &= ~uint32_t{SVIO_CONTROL_RESET};
        if (below(3))
            rig_.write(offset, value);
        else
            rig_.read(offset);
    }
    void setup() {
        unsigned direction = below(2);
        uint32_t regs[] = {SVIO_QUEUE_BASE_LO, SVIO_QUEUE_EVENT_LO, SVIO_QUEUE_SIZE,      SVIO_QUEUE_VECTOR,
                           SVIO_QUEUE_CONTROL, SVIO_QUEUE_CONTROL,  SVIO_QUEUE_MODERATION};
        uint32_t reg = regs[below(std::size(regs))];
        uint32_t value = static_cast<uint32_t>(address());
        if (reg == SVIO_QUEUE_SIZE)
            value = below(3) ? 16u << below(9) : static_cast<uint32_t>(any());
        else if (reg == SVIO_QUEUE_VECTOR)
            value = below(12);
        else if (reg == SVIO_QUEUE_CONTROL)
            value = below(2);
        else if (below(4))
            value &= ~63u;
        rig_.set_queue(direction, reg, value);
    }
    void command() {
        static constexpr uint16_t opcodes[] = {SVIO_OP_NOP,     SVIO_OP_IDENTIFY,    SVIO_OP_SET_MAC,
                                               SVIO_OP_RX_MODE, SVIO_OP_MULTICAST,   SVIO_OP_STATS,
                                               SVIO_OP_SET_MTU, SVIO_OP_VLAN_FILTER, SVIO_OP_VIF_DESTROY};
        svio_command command;
        uint32_t words[16];
        for (uint32_t &word : words)
            word = static_cast<uint32_t>(any());
        std::memcpy(&command, words, sizeof(command));
        command.slot = SVIO_SLOT_SELF;
        command.opcode = opcodes[below(std::size(opcodes))];
        command.data_addr = address();
        command.data_len = length();
        command.u.multicast.op = static_cast<uint8_t>(below(4));
        command.u.multicast.count = static_cast<uint8_t>(below(9));
        EXPECT_LT(rig_.command(command), SVIO_ST_COUNT);
    }
    void ram_noise() {
        for (unsigned n = 0; n < 8; n++)
            rig_.ram.set_word(FakeRam::base + 4 * below(static_cast<uint32_t>(rig_.ram.size() / 4)),
                              static_cast<uint32_t>(any()));
    }

    Rig &rig_;
    std::mt19937_64 random_;
};

uint64_t seed() {
    const char *text = std::getenv("SVIO_SEED");
    return text ? std::strtoull(text, nullptr, 0) : 20260801;
}

/// After whatever happened: a reset, and the device carries messages both ways, byte for byte.
void expect_works(Rig &rig, const std::function<void(const Frame &)> &settle) {
    rig.reset();
    EXPECT_EQ(rig.ram.windows(), 0);
    rig.bring_up();
    rig.rx.post_all();
    size_t before = rig.sent().size();
    static uint64_t sequence = 1'000'000;
    Frame out = make_frame(600, sequence++), in = make_frame(700, sequence++);
    rig.send(out, {77, 88});
    rig.offer(in);
    settle(out);
    ASSERT_EQ(rig.sent().size(), before + 1);
    EXPECT_EQ(rig.sent().back(), out);
    EXPECT_EQ(rig.rx.take_all(), std::vector<Frame>{in});
    EXPECT_EQ(rig.tx.done(), 3u);
}

class HostileGuest : public testing::TestWithParam<bool> {};

} // namespace

INSTANTIATE_TEST_SUITE_P(Windows, HostileGuest, testing::Bool(),
                         [](const auto &info) { return info.param ? "direct" : "slow"; });

TEST_P(HostileGuest, AgainstCoresThatTheTestCalls) {
    unsigned actions = under_tsan ? 100'000 : 200'000;
    std::cout << "seed " << seed() << ", " << actions << " actions\n";
    Rig rig({.cores = 2, .direct = GetParam(), .ram = size_t{1} << 20});
    Hostile guest(rig, seed());
    uint64_t worked = 0;
    auto settle = [&](const Frame &) { rig.work(); };
    for (unsigned n = 0; n < actions; n++) {
        if (n % 500 == 0) {
            rig.push->unblock(SIZE_MAX);
            rig.push->held.clear();
            rig.ram.holes.clear();
            rig.set_dma(true);
            ASSERT_NO_FATAL_FAILURE(expect_works(rig, settle)) << "after " << n;
            worked++;
            rig.push->sent.clear();
            for (unsigned i = guest.below(4); i > 0; i--)
                rig.ram.holes.emplace_back(FakeRam::base + guest.below(1 << 20), 1 + guest.below(8192));
        }
        guest.one();
        rig.clock.forward(guest.below(20'000));
        if (guest.below(4) == 0)
            rig.offer(make_frame(guest.below(3000), n, guest.below(2) ? vif_mac : broadcast_mac));
        if (guest.below(64) == 0)
            rig.push->unblock(guest.below(5));
        if (guest.below(64) == 0)
            rig.set_dma(guest.below(4) != 0);
        if (guest.below(3) == 0)
            rig.work();
        if (guest.below(16) == 0)
            rig.sleep(guest.below(2));
        if (rig.push->held.size() > 64)
            rig.push->held.clear();
    }
    rig.ram.holes.clear();
    rig.set_dma(true);
    rig.push->unblock(SIZE_MAX);
    rig.push->held.clear();
    expect_works(rig, settle);
    EXPECT_GT(guest.errors, 0u);
    EXPECT_EQ(worked, actions / 500);
    EXPECT_GT(rig.stat(SVIO_STAT_QUEUE_ERRORS), actions / 100) << "the guest was not hostile enough";
    EXPECT_GT(rig.stat(SVIO_STAT_BAD_REGISTER), 50u);
    EXPECT_GT(rig.stat(SVIO_STAT_COMMANDS_REFUSED), 50u);
    EXPECT_EQ(rig.stat(SVIO_STAT_QUEUE_ERRORS),
              rig.send_stat(SVIO_QSTAT_ERRORS) + rig.receive_stat(SVIO_QSTAT_ERRORS))
        << "each error was told";
}

TEST_P(HostileGuest, AgainstRunningCores) {
    unsigned actions = under_tsan ? 50'000 : 100'000;
    std::cout << "seed " << seed() + 1 << ", " << actions << " actions\n";
    Rig rig({.cores = 2,
             .poll_us = 20,
             .threads = true,
             .direct = GetParam(),
             .manual_clock = false,
             .ram = size_t{1} << 20});
    rig.ram.racy = true;
    Hostile guest(rig, seed() + 1);
    for (unsigned n = 0; n < actions; n++) {
        if (n % 1000 == 0) {
            {
                std::lock_guard guard(rig.lock);
                rig.push->held.clear();
            }
            rig.set_dma(true);
            // One attack that surely lands, then the reset that mends it.
            rig.reset();
            rig.bring_up();
            rig.tx.post_raw(0, 60);
            rig.kick(SVIO_SEND, rig.tx, 0);
            ASSERT_TRUE(eventually([&] {
                return rig.queue(SVIO_SEND, SVIO_QUEUE_STATE) == (SVIO_QUEUE_ERROR | SVIO_QERR_DMA << 8);
            }));
            ASSERT_NO_FATAL_FAILURE(
                expect_works(rig,
                             [&](const Frame &out) {
                                 size_t done = rig.tx.next;
                                 EXPECT_TRUE(eventually([&] { return rig.tx.done() == done; }));
                                 // What was taken leaves when the core has the lock.
                                 EXPECT_TRUE(eventually([&] {
                                     std::lock_guard guard(rig.lock);
                                     return !rig.push->sent.empty() && rig.push->sent.back() == out;
                                 }));
                             }))
                << "after " << n;
            std::lock_guard guard(rig.lock);
            rig.push->sent.clear();
        }
        guest.one();
        if (guest.below(4) == 0) {
            rig.offer(make_frame(guest.below(3000), n));
            std::lock_guard guard(rig.lock);
            if (rig.push->held.size() > 64)
                rig.push->held.clear();
        }
        if (guest.below(128) == 0)
            rig.set_dma(guest.below(4) != 0);
        // Now and then the cores get to see it: until they have polled, and so come to an end of their work.
        if (guest.below(16) == 0) {
            uint64_t polls = rig.core_stat(CorePolls);
            rig.write(SVIO_BELL(0, SVIO_SEND), 1);
            ASSERT_TRUE(eventually([&] { return rig.core_stat(CorePolls) > polls; })) << "the core hangs";
        }
    }
    rig.board->stop();
    EXPECT_GE(rig.send_stat(SVIO_QSTAT_ERRORS), actions / 1000);
}
