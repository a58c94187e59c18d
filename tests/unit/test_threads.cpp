// SPDX-License-Identifier: GPL-2.0-or-later
/// Cores with threads of their own: life, sleep and wake, flow. Run it under the thread sanitizer.
#include "driver.hpp"
#include "native_port.hpp"
#include "temp_folder.hpp"

#include <fstream>

using namespace svio;
using namespace svio::test;

namespace {

RigOptions threaded(unsigned cores = 1, uint32_t poll_us = 0) {
    return {.cores = cores, .poll_us = poll_us, .threads = true, .manual_clock = false};
}

/// Sends `n` messages, one at a time: posts the next as soon as the last is done, which is when the core goes
/// to sleep. False: a message was never taken.
bool ping(Rig &rig, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        rig.send(make_frame(60, i));
        if (!eventually([&] { return rig.tx.done() == rig.tx.next; }))
            return false;
    }
    return true;
}

void expect_sequence(const std::vector<Frame> &frames, uint64_t n) {
    ASSERT_EQ(frames.size(), n);
    for (uint64_t i = 0; i < n; i++)
        ASSERT_EQ(sequence_of(frames[i]), i);
}

std::unique_ptr<Rig> dgram_rig(const RigOptions &options, const std::string &local,
                               const std::string &remote) {
    std::string error;
    auto port = open_native_port("dgram:" + local + "," + remote, error);
    EXPECT_NE(port, nullptr) << error;
    return port ? std::make_unique<Rig>(options, std::move(port)) : nullptr;
}

} // namespace

TEST(Threads, StartAndStopLeaveNothingBehind) {
    std::thread([] {}).join(); // a sanitizer's own thread comes with the first
    size_t threads = threads_now(), descriptors = descriptors_now();
    for (unsigned cores : {1u, 2u, 16u}) {
        for (unsigned n = 0; n < 10; n++) {
            Rig rig(threaded(cores));
            rig.bring_up(16);
            ASSERT_TRUE(ping(rig, 3));
            rig.board->stop();
            EXPECT_EQ(rig.hooks.begun, static_cast<int>(cores));
            EXPECT_EQ(rig.hooks.ended, static_cast<int>(cores));
            rig.board->stop(); // twice is once
            rig.reset();
            EXPECT_EQ(rig.ram.windows(), 0);
        }
    }
    EXPECT_TRUE(eventually([&] { return threads_now() == threads; }));
    EXPECT_EQ(descriptors_now(), descriptors);
}

TEST(Threads, AStoppedBoardStartsAgain) {
    Rig rig(threaded(2));
    rig.bring_up(16);
    for (unsigned n = 0; n < 20; n++) {
        ASSERT_TRUE(ping(rig, 5));
        rig.board->stop();
        uint32_t from = rig.tx.next;
        rig.tx.post(make_frame(60, 0));
        EXPECT_EQ(rig.tx.done(), from) << "nobody is there to take it";
        rig.board->start();
        ASSERT_TRUE(eventually([&] { return rig.tx.done() == rig.tx.next; }));
    }
    rig.board->stop();
    EXPECT_EQ(rig.hooks.begun, 42);
    EXPECT_EQ(rig.hooks.ended, 42);
    EXPECT_EQ(rig.sent().size(), 120u);
}

// Whoever waits for a core goes by it: a core that sleeps, is parked or has ended must not be said to poll.
TEST(Threads, SaysWhenItPolls) {
    Rig rig(threaded(2, 1000));
    rig.bring_up(16);
    ASSERT_TRUE(ping(rig, 5));
    EXPECT_TRUE(eventually([&] { return rig.hooks.said > 0; }));
    EXPECT_TRUE(eventually([&] { return rig.hooks.polling_now == 0; })) << "all sleep in the end";
    ASSERT_TRUE(ping(rig, 5));
    {
        std::lock_guard guard(rig.lock);
        rig.board->pause();
    }
    EXPECT_TRUE(eventually([&] { return rig.hooks.polling_now == 0; })) << "all are parked";
    {
        std::lock_guard guard(rig.lock);
        rig.board->resume();
    }
    ASSERT_TRUE(ping(rig, 5));
    rig.board->stop();
    EXPECT_EQ(rig.hooks.polling_now, 0);
}

TEST(Threads, StopWhilePaused) {
    for (unsigned n = 0; n < 50; n++) {
        Rig rig(threaded(2, n % 2 ? 1000 : 0));
        rig.bring_up(16);
        {
            std::lock_guard guard(rig.lock);
            rig.board->pause();
        }
        rig.board->stop();
        EXPECT_EQ(rig.hooks.ended, 2);
        std::lock_guard guard(rig.lock);
        rig.board->resume();
    }
}

TEST(Threads, NothingIsTouchedWhilePaused) {
    Rig rig(threaded(2, 50));
    rig.bring_up(64);
    uint32_t from_rx = 0;
    rig.rx.post_all();
    rig.kick(SVIO_RECEIVE, rig.rx, from_rx);
    for (unsigned n = 0; n < 300; n++) {
        rig.send(make_frame(60, n)); // on its way or not
        uint32_t done;
        {
            std::lock_guard guard(rig.lock);
            rig.board->pause();
            rig.board->pause(); // nests
            rig.board->resume();
            done = rig.tx.done();
            uint64_t accesses = rig.ram.accesses, written = rig.ram.written_bytes;
            uint64_t from = rig.tx.next;
            rig.tx.post(make_frame(60, n));
            if (rig.tx.must_ring(static_cast<uint32_t>(from)))
                rig.vif->write_register(SVIO_BELL(0, SVIO_SEND), 1);
            std::this_thread::yield();
            EXPECT_EQ(rig.tx.done(), done);
            EXPECT_EQ(rig.ram.accesses, accesses);
            EXPECT_EQ(rig.ram.written_bytes, written);
            // QEMU empties its queues towards a stopping machine: what comes is kept, out of the guest's
            // memory.
            EXPECT_TRUE(rig.board->receive(make_frame(60, n)));
            EXPECT_TRUE(rig.board->receive(make_frame(61, n)));
            EXPECT_EQ(rig.ram.accesses, accesses);
            EXPECT_EQ(rig.ram.written_bytes, written);
            rig.board->resume();
        }
        ASSERT_TRUE(eventually([&] { return rig.tx.done() == rig.tx.next; }));
        ASSERT_TRUE(eventually([&] { return rig.rx.ready() && rig.rx.completed(rig.rx.clean + 1); }));
        ASSERT_EQ(rig.rx.take_all(), (std::vector<Frame>{make_frame(60, n), make_frame(61, n)}));
        from_rx = rig.rx.next;
        rig.rx.post_all();
        rig.kick(SVIO_RECEIVE, rig.rx, from_rx);
    }
    rig.write(SVIO_REG_CONTROL, 0);
    std::lock_guard guard(rig.lock);
    Pause pause(*rig.board);
    EXPECT_FALSE(rig.board->receive(make_frame(60, 1))) << "for a function that does not run nothing is kept";
}

TEST(Threads, PauseByTheHolderOfTheGuestLockWhileACoreWaitsForIt) {
    Rig rig(threaded());
    rig.bring_up(16);
    for (uint64_t n = 0; n < 200; n++) {
        std::lock_guard guard(rig.lock);
        uint32_t from = rig.tx.next;
        rig.tx.post(make_frame(60, n));
        if (rig.tx.must_ring(from))
            rig.vif->write_register(SVIO_BELL(0, SVIO_SEND), 1);
        // The core has copied the frame, and now wants the lock for the netdev.
        ASSERT_TRUE(eventually([&] { return rig.tx.done() == rig.tx.next && rig.lock.waiting > 0; }));
        rig.board->pause();
        EXPECT_EQ(rig.push->sent.size(), n);
        rig.board->resume();
        // The frame leaves once the lock is free.
        rig.lock.unlock();
        ASSERT_TRUE(eventually([&] { return rig.push->sent_count == n + 1; }));
        rig.lock.lock();
    }
    expect_sequence(rig.sent(), 200);
}

TEST(Threads, ResetWhileACoreWaitsForTheLockDropsAndCounts) {
    Rig rig(threaded());
    uint64_t dropped = 0;
    for (uint64_t n = 0; n < 100; n++) {
        rig.bring_up(16);
        // Not still at the lock for the frame that the last reset took away.
        ASSERT_TRUE(eventually([&] { return rig.lock.waiting == 0; }));
        std::lock_guard guard(rig.lock);
        rig.tx.post(make_frame(60, n));
        rig.vif->write_register(SVIO_BELL(0, SVIO_SEND), 1);
        ASSERT_TRUE(eventually([&] { return rig.tx.done() == 1 && rig.lock.waiting > 0; }));
        rig.vif->write_register(SVIO_REG_CONTROL, SVIO_CONTROL_RESET);
        EXPECT_EQ(rig.stat(SVIO_STAT_DROP_TX_RESET), ++dropped);
        EXPECT_EQ(rig.ram.windows(), 0);
    }
    std::lock_guard guard(rig.lock);
    EXPECT_TRUE(rig.push->sent.empty());
}

TEST(Threads, ResetInALoopUnderTraffic) {
    Rig rig(threaded(2, 20));
    uint64_t posted = 0;
    for (unsigned n = 0; n < 200; n++) {
        rig.bring_up(16);
        rig.rx.post_all();
        for (unsigned i = 0; i < 10; i++, posted++) {
            rig.send(make_frame(60, posted));
            rig.offer(make_frame(60, i));
        }
        if (n % 3 == 0) {
            ASSERT_TRUE(eventually([&] { return rig.tx.done() == 10; }));
        }
        rig.reset();
        ASSERT_EQ(rig.ram.windows(), 0);
        uint64_t accesses = rig.ram.accesses, written = rig.ram.written_bytes;
        std::this_thread::yield();
        EXPECT_EQ(rig.ram.accesses, accesses);
        EXPECT_EQ(rig.ram.written_bytes, written);
    }
    uint64_t taken = rig.send_stat(SVIO_QSTAT_MESSAGES);
    EXPECT_EQ(rig.sent().size() + rig.stat(SVIO_STAT_DROP_TX_RESET), taken)
        << "each frame left or was counted";
    EXPECT_TRUE(eventually([&] { return rig.stat(SVIO_STAT_RX_FRAMES) == 2000; }));
    // Frames come in order, and none twice.
    uint64_t last = 0;
    for (const Frame &frame : rig.sent()) {
        ASSERT_TRUE(sequence_of(frame) == 0 || sequence_of(frame) > last);
        last = sequence_of(frame);
    }
}

TEST(Threads, NoMessageIsLostBetweenBellAndSleep) {
    uint64_t messages = under_tsan ? 50'000 : 100'000;
    Rig rig(threaded());
    rig.bring_up(16);
    for (uint64_t n = 0; n < messages; n++) {
        uint32_t from = rig.tx.next;
        rig.tx.post(make_frame(60, n));
        rig.kick(SVIO_SEND, rig.tx, from);
        // Now and then several are on their way, so that bells fall into all places of a round.
        uint32_t behind = n % 7 == 0 ? 0 : static_cast<uint32_t>(n % 5);
        auto taken = [&] { return rig.tx.next - rig.tx.done() <= behind; };
        ASSERT_TRUE(taken() || eventually(taken)) << "message " << n << " was never taken";
    }
    ASSERT_TRUE(eventually([&] { return rig.push->sent_count == messages; }));
    expect_sequence(rig.sent(), messages);
    EXPECT_TRUE(eventually([&] { return rig.core_stat(CoreSleeps) > 0; }));
    EXPECT_GT(rig.send_stat(SVIO_QSTAT_BELLS), 0u);
    EXPECT_LE(rig.send_stat(SVIO_QSTAT_BELLS), rig.send_stat(SVIO_QSTAT_BELLS_ARMED) + 1);
}

TEST(Threads, NoFrameAndNoSignalIsLostTowardsTheGuest) {
    // The guest waits for signals alone, and rings only when the bell asks.
    uint64_t messages = under_tsan ? 30'000 : 100'000;
    Rig rig(threaded());
    rig.bring_up(16);
    std::atomic<bool> finished{false};
    std::vector<Frame> got;
    std::thread guest([&] {
        while (got.size() < messages) {
            for (Frame &frame : rig.rx.take_all())
                got.push_back(std::move(frame));
            uint32_t from = rig.rx.next;
            rig.rx.post_all();
            rig.kick(SVIO_RECEIVE, rig.rx, from);
            uint64_t seen = rig.signals.count(Rig::receive_vector);
            rig.rx.set_signal_at(rig.rx.clean);
            mb();
            if (!rig.rx.ready() && got.size() < messages && !rig.signals.wait(Rig::receive_vector, seen)) {
                ADD_FAILURE() << "no signal after frame " << got.size();
                break;
            }
        }
        finished = true;
    });
    for (uint64_t n = 0; n < messages && !finished; n++) {
        Frame frame = make_frame(60, n);
        while (!finished) {
            std::unique_lock guard(rig.lock);
            if (rig.push->held.size() < 4) {
                rig.push->offer(frame);
                break;
            }
            guard.unlock();
            std::this_thread::yield();
        }
    }
    guest.join();
    expect_sequence(got, messages);
}

TEST(Threads, TheBacklogKeepsTheOrderWhileTheQueueIsFoughtOver) {
    uint64_t messages = under_tsan ? 2'000 : 20'000;
    Rig rig(threaded());
    rig.bring_up(64);
    rig.rx.post_all();
    std::atomic<bool> stop{false};
    std::thread rival([&] {
        while (!stop) {
            std::lock_guard busy(rig.vif->receive_queue().mutex);
            std::this_thread::yield();
        }
    });
    std::vector<Frame> got;
    uint64_t sent = 0;
    bool alive = eventually([&] {
        for (unsigned burst = 0; burst < 64 && sent < messages; burst++) {
            std::lock_guard guard(rig.lock);
            if (rig.push->held.size() > 32)
                break;
            rig.push->offer(make_frame(60, sent++));
        }
        for (Frame &frame : rig.rx.take_all())
            got.push_back(std::move(frame));
        uint32_t from = rig.rx.next;
        rig.rx.post_all();
        rig.kick(SVIO_RECEIVE, rig.rx, from);
        return got.size() == messages;
    });
    stop = true;
    rival.join();
    EXPECT_TRUE(alive) << got.size() << " of " << sent;
    expect_sequence(got, messages);
    EXPECT_GT(rig.core_stat(CoreBacklogged), 0u);
    EXPECT_EQ(rig.stat(SVIO_STAT_DROP_RX_BACKLOG), 0u);
}

TEST(Threads, ABlockedPortWakesASleepingCoreWhenItIsReady) {
    uint64_t messages = under_tsan ? 3'000 : 10'000;
    Rig rig(threaded());
    rig.bring_up(64);
    rig.push->unblock(0);
    uint64_t posted = 0;
    for (uint64_t sent = 0; sent < messages; sent++) {
        while (posted < messages && rig.tx.room() > 0)
            rig.send(make_frame(60, posted++));
        // Blocked: the core sleeps, at times, and nothing but port_ready() can wake it.
        ASSERT_TRUE(eventually([&] { return rig.push->blocked() || rig.core_stat(CorePortBlocked) == 0; }));
        std::lock_guard guard(rig.lock);
        rig.push->unblock(1);
        rig.board->port_ready();
        rig.lock.unlock();
        bool left = eventually([&] { return rig.push->sent_count > sent; });
        rig.lock.lock();
        ASSERT_TRUE(left) << "frame " << sent;
    }
    expect_sequence(rig.sent(), messages);
}

TEST(Threads, APolledPortNeedsNoBell) {
    // poll_us without end: the core never sleeps.
    Rig rig(threaded(1, 1'000'000'000));
    rig.bring_up(16);
    ASSERT_TRUE(ping(rig, 1000));
    EXPECT_EQ(rig.core_stat(CoreSleeps), 0u);
    EXPECT_LE(rig.send_stat(SVIO_QSTAT_BELLS), 1u);
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_BELLS_ARMED), 0u);
}

TEST(Threads, BehindAnIommuEachTranslationHasTheLock) {
    RigOptions options = threaded(2, 100);
    options.wants_lock = true;
    options.direct = false;
    Rig rig(options);
    rig.bring_up(16);
    ASSERT_TRUE(ping(rig, 500));
    rig.rx.post(4);
    rig.offer(make_frame(60, 1));
    EXPECT_EQ(rig.rx.take(), make_frame(60, 1));
    expect_sequence(rig.sent(), 500);
    std::lock_guard guard(rig.lock); // a pauser with the lock, a core that wants it
    for (unsigned n = 0; n < 100; n++) {
        rig.tx.post(make_frame(60, 0));
        rig.vif->write_register(SVIO_BELL(0, SVIO_SEND), 1);
        Pause pause(*rig.board);
        rig.lock.unlock();
        std::this_thread::yield();
        rig.lock.lock();
        if (rig.tx.room() == 0)
            break;
    }
}

// ---- two boards, back to back ----

namespace {

/// A guest that sends `n` numbered frames and receives as many, and sleeps on signals for both.
void converse(Rig &rig, const Mac &peer, uint64_t n, std::vector<uint64_t> &got, std::atomic<bool> &failed) {
    rig.rx.post_all();
    rig.kick(SVIO_RECEIVE, rig.rx, 0);
    uint64_t sent = 0;
    while ((sent < n || got.size() < n) && !failed) {
        uint64_t seen_tx = rig.signals.count(Rig::send_vector), seen = rig.signals.total();
        uint32_t from = rig.tx.next;
        while (sent < n && rig.tx.room() > 2) {
            Frame frame = make_frame(60 + sent % 1400, sent, peer);
            rig.tx.post(frame, sent % 3 ? std::vector<uint32_t>{} : std::vector<uint32_t>{20, 30});
            sent++;
        }
        if (from != rig.tx.next)
            rig.kick(SVIO_SEND, rig.tx, from);
        uint64_t before = got.size();
        while (rig.rx.ready()) {
            Frame frame = rig.rx.take();
            uint64_t sequence = sequence_of(frame);
            if (frame != make_frame(60 + sequence % 1400, sequence, rig.vif->config().mac))
                failed = true;
            got.push_back(sequence);
        }
        from = rig.rx.next;
        rig.rx.post_all();
        if (from != rig.rx.next)
            rig.kick(SVIO_RECEIVE, rig.rx, from);
        if (got.size() != before || seen_tx != rig.signals.count(Rig::send_vector))
            continue;
        // Arm both, look again, wait.
        if (sent < n)
            rig.tx.set_signal_at(rig.tx.clean);
        rig.rx.set_signal_at(rig.rx.clean);
        mb();
        if (rig.rx.ready() || (sent < n && rig.tx.room() > 2) || (sent == n && got.size() == n))
            continue;
        if (!eventually([&] { return rig.signals.total() > seen || failed; })) {
            ADD_FAILURE() << "no signal; sent " << sent << ", received " << got.size();
            failed = true;
        }
    }
}

} // namespace

class TwoBoards : public testing::TestWithParam<std::tuple<unsigned, uint32_t>> {};

INSTANTIATE_TEST_SUITE_P(CoresAndPolling, TwoBoards,
                         testing::Combine(testing::Values(1u, 2u), testing::Values(0u, 200u)));

TEST_P(TwoBoards, EverythingArrivesInOrderUnderFlowControl) {
    auto [cores, poll_us] = GetParam();
    uint64_t n = under_tsan ? 10'000 : 20'000;
    TempFolder folder;
    RigOptions options = threaded(cores, poll_us);
    Mac mac_a = vif_mac, mac_b = peer_mac;
    auto a = dgram_rig(options, folder / "a", folder / "b");
    options.mac = mac_b;
    auto b = dgram_rig(options, folder / "b", folder / "a");
    ASSERT_TRUE(a && b);
    // Small rings with small buffers: both ends run full all the time.
    a->bring_up(16);
    b->bring_up(32);
    a->rx.buffer_size = 512;
    std::atomic<bool> failed{false};
    std::vector<uint64_t> got_a, got_b;
    std::thread guest_b([&] { converse(*b, mac_a, n, got_b, failed); });
    converse(*a, mac_b, n, got_a, failed);
    guest_b.join();
    EXPECT_FALSE(failed);
    for (auto *got : {&got_a, &got_b}) {
        ASSERT_EQ(got->size(), n);
        for (uint64_t i = 0; i < n; i++)
            ASSERT_EQ((*got)[i], i);
    }
    for (Rig *rig : {a.get(), b.get()}) {
        // The core counts a frame after the other side may have seen it.
        EXPECT_TRUE(eventually([&] { return rig->stat(SVIO_STAT_TX_FRAMES) == n; }));
        EXPECT_TRUE(eventually([&] { return rig->stat(SVIO_STAT_RX_FRAMES) == n; }));
        EXPECT_EQ(rig->stat(SVIO_STAT_DROP_TX_PORT_ERROR), 0u);
    }
}

// ---- the polling budget ----

namespace {

/// Does the thread of core 0 wait in the kernel?
bool core_waits() {
    for (const auto &task : std::filesystem::directory_iterator("/proc/self/task")) {
        std::string name, id, state;
        std::ifstream(task.path() / "comm") >> name;
        if (name != "svio-core0")
            continue;
        std::ifstream(task.path() / "stat") >> id >> name >> state;
        return state == "S";
    }
    return false;
}

} // namespace

TEST(Budget, AnIdleBoardSleepsAndStaysAsleep) {
    RigOptions options = threaded(2, 200);
    options.manual_clock = true;
    Rig rig(options);
    rig.clock.step = 1000; // each look at the clock takes a microsecond
    rig.bring_up(16);
    auto asleep = [&](unsigned n) { return rig.core_stat(CoreSleeps, n) > rig.core_stat(CoreWakes, n); };
    ASSERT_TRUE(eventually([&] { return asleep(0) && asleep(1); }));
    for (unsigned n = 0; n < 2; n++) {
        uint64_t polls = rig.core_stat(CorePolls, n), sleeps = rig.core_stat(CoreSleeps, n);
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        EXPECT_EQ(rig.core_stat(CorePolls, n), polls) << "asleep, it polls no more";
        // Each look at the clock is one empty poll: no more than 200 between two sleeps, parks or wake-ups
        // that came before the sleep, of which bringing the VIF up gives some dozens.
        EXPECT_LE(polls, 220 * (sleeps + rig.core_stat(CoreParks, n) + 64));
    }
}

TEST(Budget, ATrickleDoesNotBurnACore) {
    RigOptions options = threaded(1, 200);
    options.manual_clock = true;
    Rig rig(options);
    rig.clock.step = 1000;
    rig.bring_up(16);
    // It has counted the sleep, and then looked at the clock, and does wait.
    auto asleep = [&] { return rig.core_stat(CoreSleeps) > rig.core_stat(CoreWakes) && core_waits(); };
    uint64_t polls = 0;
    for (unsigned n = 0; n < 16; n++) {
        ASSERT_TRUE(eventually(asleep));
        uint64_t before = rig.core_stat(CorePolls);
        rig.clock.forward(10'000'000); // a message each 10 ms
        rig.send(make_frame(60, n));
        ASSERT_TRUE(eventually([&] { return rig.tx.done() == n + 1 && asleep(); }));
        polls = rig.core_stat(CorePolls) - before;
    }
    EXPECT_LE(polls, 4u) << "after long sleeps nothing is left of the budget of 200 us";
    // Work that comes quickly brings it back.
    rig.clock.step = 100;
    for (unsigned n = 16; n < 32; n++) {
        ASSERT_TRUE(eventually(asleep));
        rig.send(make_frame(60, n));
        ASSERT_TRUE(eventually([&] { return rig.tx.done() == n + 1 && asleep(); }));
    }
    uint64_t before = rig.core_stat(CorePolls);
    rig.send(make_frame(60, 32));
    ASSERT_TRUE(eventually([&] { return rig.tx.done() == 33 && asleep(); }));
    EXPECT_GT(rig.core_stat(CorePolls) - before, 500u) << "200 us at 100 ns a poll";
}
