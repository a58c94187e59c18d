// SPDX-License-Identifier: GPL-2.0-or-later
/// A wire whose other end does not read: frames wait for a bounded time, then they are dropped with a reason
/// until the wire takes one again (SPEC.md 5.3).
#include "driver.hpp"

using namespace svio;
using namespace svio::test;

namespace {

constexpr uint64_t stall_ns = uint64_t{SVIO_PORT_STALL_MS} * 1'000'000;

class Stall : public testing::TestWithParam<bool> {
  protected:
    Stall() : rig(GetParam() ? polled_rig() : std::make_unique<Rig>()) {
        rig->bring_up();
        port().unblock(0);
    }
    FakePort &port() { return rig->push ? static_cast<FakePort &>(*rig->push) : *rig->polled; }
    void unblock(size_t frames) {
        port().unblock(frames);
        rig->board->port_ready();
    }
    uint64_t stalled() { return rig->stat(SVIO_STAT_DROP_TX_STALLED); }
    std::unique_ptr<Rig> rig;
};

} // namespace

INSTANTIATE_TEST_SUITE_P(Every, Stall, testing::Bool(),
                         [](const auto &info) { return std::string(info.param ? "native" : "netdev"); });

TEST_P(Stall, FramesWaitAndArriveWhenItEndsInTime) {
    std::vector<Frame> frames;
    for (unsigned i = 0; i < 5; i++)
        rig->tx.post(frames.emplace_back(make_frame(100 + i, i)));
    rig->work();
    rig->clock.forward(stall_ns - 1000);
    rig->work();
    EXPECT_TRUE(rig->sent().empty());
    EXPECT_EQ(stalled(), 0u);
    unblock(SIZE_MAX);
    rig->work();
    EXPECT_EQ(rig->sent(), frames);
    EXPECT_EQ(stalled(), 0u);
}

TEST_P(Stall, AfterTheTimeFramesAreDroppedUntilTheWireTakesOne) {
    for (unsigned i = 0; i < 40; i++)
        rig->tx.post(make_frame(100, i));
    rig->work();
    EXPECT_LT(rig->tx.done(), 40u); // back-pressure, at first
    EXPECT_EQ(stalled(), 0u);
    rig->clock.forward(stall_ns);
    rig->work();
    EXPECT_EQ(rig->tx.done(), 40u);
    EXPECT_EQ(stalled(), 40u);
    // The queue goes on meanwhile, without another wait.
    rig->tx.post(make_frame(100, 40));
    rig->work();
    EXPECT_EQ(rig->tx.done(), 41u);
    EXPECT_EQ(stalled(), 41u);
    EXPECT_TRUE(rig->sent().empty());
    // The wire is back: nothing is dropped, and the next stall has its own time.
    unblock(1);
    Frame good = make_frame(77, 41), late = make_frame(78, 42);
    rig->tx.post(good);
    rig->tx.post(late);
    rig->work();
    EXPECT_EQ(rig->sent(), std::vector<Frame>{good});
    rig->clock.forward(stall_ns - 1000);
    rig->work();
    EXPECT_EQ(stalled(), 41u);
    unblock(1);
    rig->work();
    EXPECT_EQ(rig->sent(), (std::vector<Frame>{good, late}));
    EXPECT_EQ(rig->stat(SVIO_STAT_TX_FRAMES), 2u);
}

TEST_P(Stall, EachFrameThatLeavesBeginsTheTimeAnew) {
    for (unsigned i = 0; i < 6; i++)
        rig->tx.post(make_frame(100, i));
    rig->work();
    for (unsigned i = 0; i < 6; i++) {
        rig->clock.forward(stall_ns - 1000);
        unblock(1);
        rig->work();
        EXPECT_EQ(rig->sent().size(), i + 1);
    }
    EXPECT_EQ(stalled(), 0u);
}

TEST(StallForEver, ZeroMeansNoLimit) {
    BigLock lock;
    ManualClock clock;
    CountedHooks hooks;
    FakeRam ram(size_t{1} << 20);
    Board board({.cores = 1, .poll_us = 0, .threads = false, .stall_ms = 0}, lock, clock, hooks,
                std::make_unique<PolledPort>());
    EXPECT_EQ(board.stall_ns(), 0u);
}

/// With threads: a sleeping core wakes up by itself when the time is over.
TEST(StallThreads, ASleepingCoreWakesUpToDrop) {
    Rig rig({.threads = true, .manual_clock = false});
    rig.bring_up();
    {
        std::lock_guard guard(rig.lock);
        rig.push->unblock(0);
    }
    for (unsigned i = 0; i < 3; i++)
        rig.send(make_frame(100, i));
    ASSERT_TRUE(eventually([&] { return rig.stat(SVIO_STAT_DROP_TX_STALLED) == 3; }));
    EXPECT_EQ(rig.tx.done(), 3u);
}
