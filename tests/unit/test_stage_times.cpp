// SPDX-License-Identifier: GPL-2.0-or-later
/// Histograms of how long messages take from stage to stage (SPEC.md 14.1), on a clock that the tests move.
#include "driver.hpp"
#include "many.hpp"

#include <map>

using namespace svio;
using namespace svio::test;

namespace {

/// Polled by a core, and slow.
class SlowPort final : public FakePort {
  public:
    bool native() const override { return true; }
    void send(std::span<const iovec> frames, std::span<Verdict> verdicts) override {
        if (!frames.empty())
            clock->forward(send_ns);
        FakePort::send(frames, verdicts);
    }
    bool fill() override { return !incoming.empty(); }
    std::span<const uint8_t> front() override { return incoming.front(); }
    void pop() override {
        clock->forward(take_ns);
        incoming.pop_front();
    }

    std::deque<Frame> incoming;
    ManualClock *clock = nullptr;
    uint64_t send_ns = 0, take_ns = 0;
};

using Counts = std::map<std::string, uint64_t>;

/// {"0/send/picked_up/1536": how often}: core, stage, and the least value of the bucket.
Counts stage_times(const Board &board) {
    Counts found;
    board.visit_counters([&](const std::string &path, uint64_t value) {
        constexpr std::string_view cores = "cores/", within = "/stage_times/";
        if (size_t at = path.find(within); at != std::string::npos)
            found[path.substr(cores.size(), at - cores.size()) + "/" + path.substr(at + within.size())] =
                value;
    });
    return found;
}

class StageTimesTest : public testing::Test {
  protected:
    StageTimesTest() {
        auto own = std::make_unique<SlowPort>();
        port = own.get();
        rig = std::make_unique<Rig>(RigOptions{.stage_times = true}, std::move(own));
        port->clock = &rig->clock;
        rig->bring_up();
        rig->work();
    }
    void post(unsigned n) {
        for (; n > 0; n--)
            rig->tx.post(make_frame(60, n));
    }
    Counts counts() { return stage_times(*rig->board); }

    SlowPort *port = nullptr;
    std::unique_ptr<Rig> rig;
};

} // namespace

TEST(StageHistogram, BucketsAreFourInEachDoubling) {
    for (size_t bucket = 0; bucket + 1 < Histogram::buckets; bucket++) {
        EXPECT_EQ(Histogram::bucket_of(Histogram::least(bucket)), bucket);
        EXPECT_EQ(Histogram::bucket_of(Histogram::least(bucket + 1) - 1), bucket);
    }
    EXPECT_EQ(Histogram::least(Histogram::bucket_of(100)), 96u);
    EXPECT_EQ(Histogram::least(Histogram::bucket_of(112)), 112u);
    EXPECT_EQ(Histogram::least(Histogram::bucket_of(1'000'000)), 917'504u);
    EXPECT_EQ(Histogram::bucket_of(UINT64_MAX), Histogram::buckets - 1);
    EXPECT_GT(Histogram::least(Histogram::buckets - 1), 60'000'000'000u);
}

TEST_F(StageTimesTest, NothingIsCountedBeforeTheFirstMessage) {
    EXPECT_EQ(counts(), Counts{});
}

TEST_F(StageTimesTest, TheLastLookThatFoundNothingBoundsWhenAMessageWasPosted) {
    port->send_ns = 640;
    rig->tx.set_signal_at(rig->tx.next);
    post(2);
    rig->clock.forward(1500);
    rig->board->core(0).round();
    EXPECT_EQ(counts(), (Counts{{"0/send/picked_up/1280", 2},
                                {"0/send/switched/0", 2},
                                {"0/send/delivered/640", 2},
                                {"0/send/signalled/640", 1}}));
    rig->clock.forward(100);
    rig->work();
    rig->clock.forward(256);
    post(1);
    rig->board->core(0).round();
    EXPECT_EQ(counts()["0/send/picked_up/256"], 1u) << "looks in between count, also empty ones";
}

TEST_F(StageTimesTest, ADoorbellSaysWhen) {
    ASSERT_TRUE(rig->sleep());
    rig->clock.forward(5'000'000);
    ASSERT_TRUE(rig->send(make_frame(60, 1)));
    rig->clock.forward(320);
    rig->board->core(0).round();
    EXPECT_EQ(counts()["0/send/picked_up/320"], 1u);
    EXPECT_EQ(port->sent.size(), 1u);
}

TEST_F(StageTimesTest, AFullPortShowsAsTimeUntilDelivered) {
    port->room = 0;
    post(1);
    rig->work();
    EXPECT_EQ(counts().count("0/send/delivered/0"), 0u);
    rig->clock.forward(8192);
    port->unblock(10);
    rig->work();
    EXPECT_EQ(counts()["0/send/delivered/8192"], 1u);
}

TEST_F(StageTimesTest, ModerationShowsAsTimeUntilSignalled) {
    rig->set_queue(SVIO_SEND, SVIO_QUEUE_MODERATION, 0u << 16 | 50);
    rig->tx.set_signal_at(rig->tx.next);
    post(1);
    rig->work();
    EXPECT_EQ(counts().count("0/send/signalled/0"), 0u);
    rig->clock.forward(57'344);
    rig->work();
    EXPECT_EQ(counts()["0/send/signalled/57344"], 1u);
}

TEST_F(StageTimesTest, WhatComesFromTheWireIsDeliveredAndSignalled) {
    port->take_ns = 448;
    rig->rx.post_all();
    rig->rx.set_signal_at(rig->rx.clean);
    port->incoming = {make_frame(60, 1), make_frame(60, 2)};
    rig->board->core(0).round();
    EXPECT_EQ(counts(), (Counts{{"0/receive/delivered/896", 2}, {"0/receive/signalled/0", 1}}))
        << "the round's time for both";
}

TEST(StageTimes, FromVifToVifNothingGoesThroughThePort) {
    ManyRig rig({.board = {.cores = 1, .poll_us = 0, .threads = false, .stage_times = true}});
    rig.work();
    rig.send(1, make_frame(60, 1, mac_of(2), mac_of(1)));
    rig.clock.forward(160);
    rig.work();
    ASSERT_EQ(rig.take(2).size(), 1u);
    Counts found = stage_times(*rig.board);
    EXPECT_EQ(found["0/send/switched/0"], 1u);
    EXPECT_EQ(found["0/receive/delivered/0"], 1u);
    for (auto &[name, count] : found)
        EXPECT_EQ(name.find("send/delivered"), std::string::npos) << name;
}

TEST(StageTimes, OffThereAreNone) {
    Rig rig;
    rig.bring_up();
    rig.send(make_frame(60, 1));
    rig.work();
    ASSERT_EQ(rig.sent().size(), 1u);
    EXPECT_EQ(stage_times(*rig.board), Counts{});
}

// For the thread sanitizer: anybody may read while the core writes.
TEST(StageTimes, TheyAreReadWhileCoresWork) {
    constexpr uint64_t messages = 2000;
    Rig rig({.threads = true, .manual_clock = false, .stage_times = true});
    rig.bring_up();
    std::atomic<bool> over{false};
    std::thread reader([&] {
        while (!over)
            stage_times(*rig.board);
    });
    for (uint64_t i = 0; i < messages; i++) {
        rig.send(make_frame(60, i));
        ASSERT_TRUE(eventually([&] { return rig.tx.done() == rig.tx.next; }));
    }
    over = true;
    reader.join();
    ASSERT_TRUE(eventually([&] { return rig.sent().size() == messages; }));
    rig.board->stop();
    std::map<std::string, uint64_t> total;
    for (auto &[name, count] : stage_times(*rig.board))
        total[name.substr(0, name.rfind('/'))] += count;
    EXPECT_EQ(total["0/send/switched"], messages);
    EXPECT_EQ(total["0/send/delivered"], messages);
    EXPECT_GE(total["0/send/picked_up"], messages - 1) << "a first look may find one";
}
