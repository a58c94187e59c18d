// SPDX-License-Identifier: GPL-2.0-or-later
#include "driver.hpp"

using namespace svio;
using namespace svio::test;

namespace {

class Sending : public testing::Test {
  protected:
    Rig rig;
    void expect_error(uint32_t code, uint32_t position) {
        uint32_t state = rig.queue(SVIO_SEND, SVIO_QUEUE_STATE);
        EXPECT_EQ(SVIO_QUEUE_STATE_OF(state), uint32_t{SVIO_QUEUE_ERROR});
        EXPECT_EQ(SVIO_QUEUE_ERROR_OF(state), code);
        EXPECT_EQ(rig.queue(SVIO_SEND, SVIO_QUEUE_POSITION), position);
        EXPECT_EQ(rig.tx.done(), position);
        EXPECT_EQ(rig.read(SVIO_REG_EVENT), uint32_t{SVIO_EVENT_QUEUE_ERROR});
        EXPECT_EQ(rig.signals.count(Rig::event_vector), 1u);
        EXPECT_EQ(rig.stat(SVIO_STAT_QUEUE_ERRORS), 1u);
        EXPECT_EQ(rig.send_stat(SVIO_QSTAT_ERRORS), 1u);
        EXPECT_EQ(rig.queue(SVIO_RECEIVE, SVIO_QUEUE_STATE), uint32_t{SVIO_QUEUE_RUNNING});
        EXPECT_EQ(rig.read(SVIO_REG_STATUS) & SVIO_STATUS_FAILED, 0u);
    }
};

// A good message before, one after: the first must be carried, the last must not.
struct Malformed {
    const char *name;
    uint32_t code;
    void (*post)(Rig &rig);
};

std::ostream &operator<<(std::ostream &out, const Malformed &m) {
    return out << m.name;
}

void flagged(Rig &rig, uint32_t flag) {
    rig.tx.post_raw(rig.tx.buffer_at(rig.tx.next), 60, flag);
}

template <unsigned bit> void one_flag(Rig &rig) {
    flagged(rig, 1u << bit);
}

void chain_of(Rig &rig, uint32_t entries, uint32_t length, uint32_t last_extra = 0) {
    for (uint32_t i = 0; i < entries; i++)
        rig.tx.post_raw(rig.tx.buffers, length, i + 1 < entries ? SVIO_ENTRY_MORE : last_extra);
}

const Malformed malformed[] = {
    {"empty", SVIO_QERR_EMPTY, [](Rig &rig) { rig.tx.post_raw(rig.tx.buffers, 0); }},
    {"empty_in_chain", SVIO_QERR_EMPTY,
     [](Rig &rig) {
         rig.tx.post_raw(rig.tx.buffers, 60, SVIO_ENTRY_MORE);
         rig.tx.post_raw(rig.tx.buffers, 0);
     }},
    {"below_ram", SVIO_QERR_DMA, [](Rig &rig) { rig.tx.post_raw(FakeRam::base - 1, 60); }},
    {"across_the_end", SVIO_QERR_DMA,
     [](Rig &rig) { rig.tx.post_raw(FakeRam::base + rig.ram.size() - 59, 60); }},
    {"wraps_the_address_space", SVIO_QERR_DMA, [](Rig &rig) { rig.tx.post_raw(UINT64_MAX - 10, 60); }},
    {"address_zero", SVIO_QERR_DMA, [](Rig &rig) { rig.tx.post_raw(0, 60); }},
    {"hole", SVIO_QERR_DMA,
     [](Rig &rig) {
         uint64_t page = rig.allocate(4096);
         rig.ram.holes = {{page, 4096}};
         rig.tx.post_raw(page + 4095, 60);
     }},
    {"second_piece_not_ram", SVIO_QERR_DMA,
     [](Rig &rig) {
         rig.tx.post_raw(rig.tx.buffers, 60, SVIO_ENTRY_MORE);
         rig.tx.post_raw(0, 60);
     }},
    {"chain_33", SVIO_QERR_CHAIN, [](Rig &rig) { chain_of(rig, SVIO_CHAIN_MAX + 1, 20); }},
    {"chain_endless", SVIO_QERR_CHAIN, [](Rig &rig) { chain_of(rig, 60, 20, SVIO_ENTRY_MORE); }},
    {"length_one_entry", SVIO_QERR_LENGTH,
     [](Rig &rig) { rig.tx.post_raw(FakeRam::base, SVIO_MESSAGE_MAX + 1); }},
    {"length_4g", SVIO_QERR_LENGTH, [](Rig &rig) { rig.tx.post_raw(FakeRam::base, UINT32_MAX); }},
    {"length_in_chain", SVIO_QERR_LENGTH,
     [](Rig &rig) {
         rig.tx.post_raw(FakeRam::base, SVIO_MESSAGE_MAX, SVIO_ENTRY_MORE);
         rig.tx.post_raw(FakeRam::base, 1);
     }},
    {"length_wraps_in_chain", SVIO_QERR_LENGTH,
     [](Rig &rig) {
         rig.tx.post_raw(FakeRam::base, 60, SVIO_ENTRY_MORE);
         rig.tx.post_raw(FakeRam::base, UINT32_MAX - 30);
     }},
    {"flags_in_second_entry", SVIO_QERR_FLAGS, [](Rig &rig) { chain_of(rig, 2, 60, SVIO_ENTRY_CSUM); }},
    // Every bit but POSTED (31), DONE (30, ignored) and MORE (0): unknown, or of a feature that was not
    // accepted.
    {"flag_csum", SVIO_QERR_FLAGS, one_flag<1>},
    {"flag_csum_ok", SVIO_QERR_FLAGS, one_flag<2>},
    {"flag_seg", SVIO_QERR_FLAGS, one_flag<3>},
    {"flag_vlan", SVIO_QERR_FLAGS, one_flag<4>},
    {"flag_hash", SVIO_QERR_FLAGS, one_flag<5>},
    {"loop_in_second_entry", SVIO_QERR_FLAGS, [](Rig &rig) { chain_of(rig, 2, 60, SVIO_ENTRY_LOOP); }},
    {"flag_bit7", SVIO_QERR_FLAGS, one_flag<7>},
    {"flag_bit8", SVIO_QERR_FLAGS, one_flag<8>},
    {"flag_bit9", SVIO_QERR_FLAGS, one_flag<9>},
    {"flag_bit10", SVIO_QERR_FLAGS, one_flag<10>},
    {"flag_bit11", SVIO_QERR_FLAGS, one_flag<11>},
    {"flag_bit12", SVIO_QERR_FLAGS, one_flag<12>},
    {"flag_bit13", SVIO_QERR_FLAGS, one_flag<13>},
    {"flag_bit14", SVIO_QERR_FLAGS, one_flag<14>},
    {"flag_bit15", SVIO_QERR_FLAGS, one_flag<15>},
    {"flag_bit16", SVIO_QERR_FLAGS, one_flag<16>},
    {"flag_bit17", SVIO_QERR_FLAGS, one_flag<17>},
    {"flag_bit18", SVIO_QERR_FLAGS, one_flag<18>},
    {"flag_bit19", SVIO_QERR_FLAGS, one_flag<19>},
    {"flag_bit20", SVIO_QERR_FLAGS, one_flag<20>},
    {"flag_bit21", SVIO_QERR_FLAGS, one_flag<21>},
    {"flag_bit22", SVIO_QERR_FLAGS, one_flag<22>},
    {"flag_bit23", SVIO_QERR_FLAGS, one_flag<23>},
    {"flag_bit24", SVIO_QERR_FLAGS, one_flag<24>},
    {"flag_bit25", SVIO_QERR_FLAGS, one_flag<25>},
    {"flag_bit26", SVIO_QERR_FLAGS, one_flag<26>},
    {"flag_bit27", SVIO_QERR_FLAGS, one_flag<27>},
    {"flag_bit28", SVIO_QERR_FLAGS, one_flag<28>},
    {"flag_bit29", SVIO_QERR_FLAGS, one_flag<29>},
};

class SendMalformed : public testing::TestWithParam<std::tuple<Malformed, bool>> {};

} // namespace

TEST_P(SendMalformed, StopsTheQueueAtItsHeadAndCarriesWhatWasBefore) {
    auto [bad, direct] = GetParam();
    Rig rig({.direct = direct});
    rig.bring_up(128, 2048, SVIO_F_LOOPBACK);
    Frame before = make_frame(200, 1), chained = make_frame(300, 2);
    rig.tx.post(before);
    rig.tx.post(chained, {100, 100});
    uint32_t head = rig.tx.next;
    ASSERT_EQ(head, 4u);
    bad.post(rig);
    rig.tx.post(make_frame(80, 3));
    rig.work();
    EXPECT_EQ(rig.sent(), (std::vector<Frame>{before, chained}));
    uint32_t state = rig.queue(SVIO_SEND, SVIO_QUEUE_STATE);
    EXPECT_EQ(state, SVIO_QUEUE_ERROR | bad.code << 8);
    EXPECT_EQ(rig.queue(SVIO_SEND, SVIO_QUEUE_POSITION), head);
    EXPECT_EQ(rig.tx.done(), head);
    EXPECT_EQ(rig.read(SVIO_REG_EVENT), uint32_t{SVIO_EVENT_QUEUE_ERROR});
    EXPECT_EQ(rig.signals.count(Rig::event_vector), 1u);
    EXPECT_EQ(rig.stat(SVIO_STAT_QUEUE_ERRORS), 1u);
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_ERRORS), 1u);
    for (uint32_t code = SVIO_QERR_CONFIG; code < SVIO_QERR_COUNT; code++) {
        auto reason = static_cast<svio_qstat>(SVIO_QSTAT_ERROR_CONFIG + code - SVIO_QERR_CONFIG);
        EXPECT_EQ(rig.send_stat(reason), code == bad.code ? 1u : 0u);
    }
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_MESSAGES), 2u);

    // The receive queue goes on, and stop and start bring the send queue back at position 0.
    rig.ram.holes.clear();
    rig.rx.post(4);
    Frame in = make_frame(99, 9);
    rig.offer(in);
    EXPECT_EQ(rig.rx.take(), in);
    rig.set_queue(SVIO_SEND, SVIO_QUEUE_CONTROL, 0);
    EXPECT_EQ(rig.queue(SVIO_SEND, SVIO_QUEUE_STATE), uint32_t{SVIO_QUEUE_DISABLED});
    rig.lay_out(rig.tx, 128, 2048);
    rig.program(SVIO_SEND, rig.tx, Rig::send_vector);
    Frame again = make_frame(70, 10);
    rig.tx.post(again);
    rig.work();
    EXPECT_EQ(rig.sent().back(), again);
    EXPECT_EQ(rig.tx.done(), 1u);
}

INSTANTIATE_TEST_SUITE_P(Every, SendMalformed,
                         testing::Combine(testing::ValuesIn(malformed), testing::Bool()),
                         [](const auto &info) {
                             return std::string(std::get<0>(info.param).name) +
                                    (std::get<1>(info.param) ? "_direct" : "_slow");
                         });

TEST_F(Sending, OneMessageEachByteAndEachCounter) {
    rig.bring_up();
    Frame frame = make_frame(1514, 7);
    rig.tx.post(frame);
    rig.work();
    EXPECT_EQ(rig.sent(), std::vector<Frame>{frame});
    EXPECT_EQ(rig.tx.done(), 1u);
    EXPECT_EQ(rig.queue(SVIO_SEND, SVIO_QUEUE_POSITION), 1u);
    EXPECT_EQ(rig.stat(SVIO_STAT_TX_FRAMES), 1u);
    EXPECT_EQ(rig.stat(SVIO_STAT_TX_BYTES), 1514u);
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_POSTED), 1u);
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_MESSAGES), 1u);
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_BYTES), 1514u);
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_CHAINED), 0u);
    EXPECT_EQ(rig.core_stat(CorePickedUp), 1u);
    EXPECT_EQ(rig.core_stat(CoreSwitched), 1u);
}

TEST_F(Sending, AnEmptyRingIsNotTouched) {
    rig.bring_up();
    uint64_t written = rig.ram.written_bytes;
    rig.work();
    EXPECT_EQ(rig.tx.done(), 0u);
    EXPECT_EQ(rig.ram.written_bytes, written);
    EXPECT_EQ(rig.core_stat(CorePickedUp), 0u);
}

class SendSizes : public testing::TestWithParam<std::tuple<uint32_t, bool>> {};

TEST_P(SendSizes, FullRingsOverManyLaps) {
    auto [size, direct] = GetParam();
    Rig rig({.direct = direct, .ram = size_t{4} << 20});
    rig.bring_up(size, 64);
    uint64_t sequence = 0;
    for (unsigned lap = 0; lap < 5; lap++) {
        for (uint32_t i = 0; i < size; i++)
            rig.tx.post(make_frame(30 + (sequence + i) % 34, sequence + i));
        ASSERT_EQ(rig.tx.room(), 0u);
        rig.work();
        ASSERT_EQ(rig.tx.room(), size);
        ASSERT_EQ(rig.push->sent.size(), size);
        for (uint32_t i = 0; i < size; i++, sequence++)
            ASSERT_EQ(rig.push->sent[i], make_frame(30 + sequence % 34, sequence));
        rig.push->sent.clear();
    }
    EXPECT_EQ(rig.queue(SVIO_SEND, SVIO_QUEUE_POSITION), 5 * size);
    EXPECT_EQ(rig.queue(SVIO_SEND, SVIO_QUEUE_STATE), uint32_t{SVIO_QUEUE_RUNNING});
}

INSTANTIATE_TEST_SUITE_P(All, SendSizes,
                         testing::Combine(testing::Values(16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
                                          testing::Bool()));

TEST_F(Sending, ChainsThatWrapTheRing) {
    rig.bring_up(16);
    for (uint64_t n = 0; n < 200; n++) {
        Frame frame = make_frame(700, n);
        rig.tx.post(frame, {100, 1, 250, 14, 35});
        rig.work();
        ASSERT_EQ(rig.push->sent.back(), frame);
        ASSERT_EQ(rig.tx.done(), 6 * (n + 1));
    }
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_CHAINED), 200u);
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_POSTED), 1200u);
}

TEST_F(Sending, TheLongestChainAndTheLongestMessage) {
    rig.bring_up(64, 4096);
    Frame chain = make_frame(SVIO_CHAIN_MAX * 20, 1);
    rig.tx.post(chain, std::vector<uint32_t>(SVIO_CHAIN_MAX, 20));
    ASSERT_EQ(rig.tx.next, uint32_t{SVIO_CHAIN_MAX});
    Frame message = make_frame(SVIO_MESSAGE_MAX, 2);
    rig.tx.post(message, std::vector<uint32_t>(SVIO_MESSAGE_MAX / 4096, 4096));
    ASSERT_EQ(rig.tx.next, SVIO_CHAIN_MAX + 17u);
    rig.work();
    EXPECT_EQ(rig.sent(), (std::vector<Frame>{chain, message}));
    EXPECT_EQ(rig.queue(SVIO_SEND, SVIO_QUEUE_STATE), uint32_t{SVIO_QUEUE_RUNNING});
}

TEST_F(Sending, ManyOfTheLongestMessagesPassTheBoundedOutbox) {
    rig.bring_up(16);
    uint64_t buffer = rig.allocate(SVIO_MESSAGE_MAX);
    Frame message = make_frame(SVIO_MESSAGE_MAX, 5);
    std::memcpy(rig.ram.at(buffer, message.size()), message.data(), message.size());
    for (unsigned i = 0; i < 16; i++)
        rig.tx.post_raw(buffer, SVIO_MESSAGE_MAX);
    rig.work();
    EXPECT_EQ(rig.sent(), std::vector<Frame>(16, message));
    EXPECT_EQ(rig.tx.done(), 16u);
}

TEST_F(Sending, ATornChainAtTheEndOfWhatIsPosted) {
    rig.bring_up();
    rig.tx.post(make_frame(60, 1));
    rig.tx.post_raw(rig.tx.buffers, 60, SVIO_ENTRY_MORE);
    rig.tx.post_raw(rig.tx.buffers, 60, SVIO_ENTRY_MORE);
    rig.work();
    EXPECT_EQ(rig.sent().size(), 1u);
    expect_error(SVIO_QERR_TORN, 1);
}

TEST_F(Sending, ARingOfNothingButMoreIsTorn) {
    rig.bring_up(16);
    for (unsigned i = 0; i < 16; i++)
        rig.tx.post_raw(rig.tx.buffers, 60, SVIO_ENTRY_MORE);
    rig.work();
    EXPECT_TRUE(rig.sent().empty());
    expect_error(SVIO_QERR_TORN, 0);
}

TEST_F(Sending, ATailWithoutItsHeadIsNotThere) {
    rig.bring_up();
    // The rest of a chain is published before its head: nothing may be taken yet.
    Frame frame = make_frame(120, 3);
    rig.tx.post(frame, {60});
    uint32_t head = rig.tx.flags(0);
    rig.tx.set_flags(0, head ^ SVIO_ENTRY_POSTED);
    rig.work();
    EXPECT_TRUE(rig.sent().empty());
    EXPECT_EQ(rig.queue(SVIO_SEND, SVIO_QUEUE_STATE), uint32_t{SVIO_QUEUE_RUNNING});
    rig.tx.set_flags(0, head);
    rig.work();
    EXPECT_EQ(rig.sent(), std::vector<Frame>{frame});
}

TEST_F(Sending, AStaleEntryIsNeverLive) {
    rig.bring_up(16);
    for (uint64_t n = 0; n < 16; n++)
        rig.tx.post(make_frame(60, n));
    rig.work();
    ASSERT_EQ(rig.sent().size(), 16u);
    rig.work(); // the ring still holds all of lap one
    EXPECT_EQ(rig.sent().size(), 16u);
    for (uint64_t n = 16; n < 20; n++)
        rig.tx.post(make_frame(60, n));
    rig.work(); // position 20 on: stale entries of lap one behind live ones of lap two
    ASSERT_EQ(rig.sent().size(), 20u);
    for (uint64_t n = 0; n < 20; n++)
        EXPECT_EQ(sequence_of(rig.sent()[n]), n);
}

TEST_F(Sending, DoneSetByTheDriverIsIgnored) {
    rig.bring_up();
    Frame frame = make_frame(60, 4);
    std::memcpy(rig.ram.at(rig.tx.buffer_at(0)), frame.data(), frame.size());
    rig.tx.post_raw(rig.tx.buffer_at(0), 60, SVIO_ENTRY_DONE);
    rig.work();
    EXPECT_EQ(rig.sent(), std::vector<Frame>{frame});
}

TEST_F(Sending, EntriesFarAheadWaitForTheGapToClose) {
    rig.bring_up(64);
    rig.tx.next = 5;
    rig.tx.post(make_frame(60, 5));
    rig.tx.next = 63;
    rig.tx.post(make_frame(60, 63));
    rig.work();
    EXPECT_TRUE(rig.sent().empty());
    rig.tx.next = 0;
    for (uint64_t n = 0; n < 5; n++)
        rig.tx.post(make_frame(60, n));
    rig.work();
    EXPECT_EQ(rig.sent().size(), 6u);
    EXPECT_EQ(rig.tx.done(), 6u);
    rig.tx.next = 6;
    for (uint64_t n = 6; n < 63; n++)
        rig.tx.post(make_frame(60, n));
    rig.work();
    ASSERT_EQ(rig.sent().size(), 64u);
    for (uint64_t n = 0; n < 64; n++)
        EXPECT_EQ(sequence_of(rig.sent()[n]), n);
}

TEST_F(Sending, TheDeviceWritesNothingIntoSendEntries) {
    rig.bring_up(16);
    for (uint64_t n = 0; n < 16; n++)
        rig.tx.post(make_frame(60 + n, n));
    Frame before(rig.ram.at(rig.tx.base, 512), rig.ram.at(rig.tx.base, 512) + 512);
    rig.work();
    EXPECT_EQ(rig.sent().size(), 16u);
    EXPECT_EQ(std::memcmp(rig.ram.at(rig.tx.base, 512), before.data(), 512), 0);
}

// ---- the end of the 32 bits, on the queue alone ----

namespace {

struct FarSend : SendQueue {
    void go_to(uint32_t position, Clock &clock) {
        advance(position, 0, clock);
        signal_due(clock, true);
    }
};

} // namespace

TEST_F(Sending, PositionsWrapAt32Bits) {
    for (uint32_t size : {16u, 4096u}) {
        rig.bring_up(size, 256);
        FarSend queue;
        queue.regs = {.base = rig.tx.base, .event = rig.tx.event, .size = size, .vector = 3, .moderation = 0};
        queue.start(rig.ram, 4096);
        ASSERT_TRUE(queue.running());
        uint32_t start = 0u - 21;
        queue.go_to(start, rig.clock);
        // What lies in the ring is of the lap before.
        for (uint32_t i = 0; i < size; i++)
            rig.tx.set_flags(start + i, rig.tx.lap_flag(start + i, SVIO_ENTRY_POSTED) ^ SVIO_ENTRY_POSTED);
        rig.tx.next = start;
        rig.tx.set_signal_at(2);
        Outbox outbox;
        unsigned signals = 0;
        for (uint64_t n = 0; n < 40; n++) {
            EXPECT_FALSE(queue.arm_bell());
            EXPECT_EQ(rig.tx.bell_at(), start + 2 * static_cast<uint32_t>(n));
            uint32_t from = rig.tx.next;
            Frame frame = make_frame(200, n);
            rig.tx.post(frame, {77});
            EXPECT_TRUE(rig.tx.must_ring(from));
            size_t looped;
            ASSERT_EQ(queue.collect(*rig.vif, rig.ram, outbox, 32, rig.clock, looped), 1u);
            const Staged &staged = outbox.frames().front();
            EXPECT_EQ(Frame(outbox.data(staged), outbox.data(staged) + staged.length), frame);
            outbox.pop(1);
            EXPECT_EQ(queue.position(), start + 2 * (static_cast<uint32_t>(n) + 1));
            EXPECT_EQ(rig.tx.done(), queue.position());
            bool due = queue.signal_due(rig.clock, false);
            EXPECT_EQ(due, n == 11) << "position 2 lies in [1, 3), at message " << n;
            signals += due;
        }
        EXPECT_EQ(signals, 1u);
        EXPECT_EQ(queue.state(), uint32_t{SVIO_QUEUE_RUNNING});
        rig.reset();
    }
}

// A malformed message behind a good one, and the event block has gone where the device would publish the good
// one.
TEST(SendErrors, AQueueThatFailsTwiceInARoundHasOneErrorAndTheFirstCause) {
    Rig rig{RigOptions{.direct = false}};
    rig.bring_up();
    rig.tx.post(make_frame(60, 1));
    rig.tx.post_raw(rig.tx.buffer_at(1), 0);
    rig.ram.holes.push_back({rig.tx.event, sizeof(svio_queue_event)});
    rig.work();
    EXPECT_EQ(rig.queue(SVIO_SEND, SVIO_QUEUE_STATE), SVIO_QUEUE_ERROR | uint32_t{SVIO_QERR_EMPTY} << 8);
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_ERRORS), 1u);
    EXPECT_EQ(rig.stat(SVIO_STAT_QUEUE_ERRORS), 1u);
}
