// SPDX-License-Identifier: GPL-2.0-or-later
/// The board without threads: an alarm of a clock steps its cores, at a price per look and per message.
#include "driver.hpp"
#include "echo_port.hpp"
#include "managed_board.hpp"
#include "virtual_executor.hpp"

using namespace svio;
using namespace svio::test;

namespace {

constexpr uint64_t poll_cost = 1'000, message_cost = 300, idle = 20'000;

struct FakeAlarm final : Alarm {
    void set(uint64_t time) override { at = time; }
    uint64_t at = never;
};

/// A rig whose time is the alarms'.
struct Timed {
    explicit Timed(const RigOptions &options = {}, std::unique_ptr<Port> port = nullptr)
        : rig(options, std::move(port)), executor(*rig.board, alarm, {poll_cost, message_cost, idle}) {
        executor.start();
        rig.bring_up();
    }
    ~Timed() { executor.stop(); }
    uint64_t now() { return rig.clock.now(); }
    void advance(uint64_t to) { rig.clock.forward(to - now()); }
    /// Up to and with this time.
    void run_until(uint64_t time) {
        ASSERT_NE(time, Alarm::never);
        while (alarm.at <= time) {
            advance(std::max(alarm.at, now()));
            executor.fire(); // the rig's lock is not recursive, and each round takes it
        }
        advance(time);
    }
    void run(uint64_t ns) { run_until(now() + ns); }
    /// Until all cores sleep with nothing due.
    void settle() {
        for (unsigned n = 0; alarm.at != Alarm::never; n++) {
            ASSERT_LT(n, 100'000u) << "it never sleeps";
            run_until(alarm.at);
        }
        run(1'000'000); // the last look is over
    }
    FakeAlarm alarm;
    Rig rig;
    VirtualExecutor executor;
};

Frame arp_for(const wire_peer::Ipv4 &ip) {
    Frame frame(60);
    std::fill_n(frame.begin(), 6, uint8_t{0xff});
    std::copy(vif_mac.begin(), vif_mac.end(), frame.begin() + 6);
    const uint8_t head[] = {8, 6, 0, 1, 8, 0, 6, 4, 0, 1};
    std::copy(std::begin(head), std::end(head), frame.begin() + 12);
    std::copy(vif_mac.begin(), vif_mac.end(), frame.begin() + 22);
    const uint8_t own[] = {10, 0, 2, 15};
    std::copy(std::begin(own), std::end(own), frame.begin() + 28);
    std::copy(ip.begin(), ip.end(), frame.begin() + 38);
    return frame;
}

Frame answer_to_arp(const wire_peer::Ipv4 &ip) {
    Frame frame = arp_for(ip);
    std::copy(vif_mac.begin(), vif_mac.end(), frame.begin());
    std::copy(EchoPort::mac.begin(), EchoPort::mac.end(), frame.begin() + 6);
    frame[21] = 2;
    std::copy(EchoPort::mac.begin(), EchoPort::mac.end(), frame.begin() + 22);
    std::copy(ip.begin(), ip.end(), frame.begin() + 28);
    std::copy(vif_mac.begin(), vif_mac.end(), frame.begin() + 32);
    const uint8_t own[] = {10, 0, 2, 15};
    std::copy(std::begin(own), std::end(own), frame.begin() + 38);
    return frame;
}

} // namespace

TEST(Virtual, ADoorbellIsAnsweredAfterItsPrice) {
    Timed timed;
    timed.settle();
    Frame frame = make_frame(100, 1, peer_mac);
    uint64_t rung = timed.now();
    ASSERT_TRUE(timed.rig.send(frame)) << "a sleeping core has armed its doorbell";
    EXPECT_TRUE(timed.rig.sent().empty()) << "nothing runs inside of the write";
    EXPECT_EQ(timed.alarm.at, rung + poll_cost + message_cost);
    timed.run_until(rung + poll_cost + message_cost - 1);
    EXPECT_TRUE(timed.rig.sent().empty());
    timed.run(1);
    EXPECT_EQ(timed.rig.sent(), std::vector<Frame>{frame});
    // One message: busy for a look and it.
    EXPECT_EQ(timed.alarm.at, timed.now() + poll_cost + message_cost);
}

TEST(Virtual, ALookCostsWhatItFound) {
    Timed timed;
    timed.settle();
    for (unsigned n = 0; n < 5; n++)
        timed.rig.tx.post(make_frame(100, n, peer_mac));
    timed.rig.write(SVIO_BELL(0, SVIO_SEND), 1);
    timed.run_until(timed.alarm.at);
    EXPECT_EQ(timed.rig.sent().size(), 5u);
    EXPECT_EQ(timed.alarm.at, timed.now() + poll_cost + 5 * message_cost);
    uint64_t spent = timed.rig.board->core(0).cpu_ns();
    timed.run_until(timed.alarm.at);
    EXPECT_EQ(timed.rig.board->core(0).cpu_ns(), spent + poll_cost) << "an empty look";
}

TEST(Virtual, PollsBeforeItSleepsAndLosesNoMessage) {
    Timed timed;
    timed.settle();
    uint64_t sleeps = timed.rig.core_stat(CoreSleeps);
    std::vector<Frame> all;
    // At every offset from a look, into the sleep and beyond it.
    for (unsigned n = 0; n < 200; n++) {
        Frame frame = make_frame(64 + n, n, peer_mac);
        all.push_back(frame);
        timed.rig.send(frame);
        timed.run(n * 157);
    }
    timed.settle();
    EXPECT_EQ(timed.rig.sent(), all);
    EXPECT_GT(timed.rig.core_stat(CoreSleeps), sleeps + 10);
    EXPECT_GT(timed.rig.core_stat(CoreEmptyPolls), 100u);
}

TEST(Virtual, AFrameOfTheNetdevIsDeliveredByTheCore) {
    Timed timed;
    timed.rig.rx.post_all();
    timed.settle();
    Frame frame = make_frame(200, 3);
    uint64_t came = timed.now();
    timed.rig.offer(frame);
    EXPECT_FALSE(timed.rig.rx.ready());
    timed.run_until(came + poll_cost + message_cost - 1);
    EXPECT_FALSE(timed.rig.rx.ready());
    timed.run(1);
    EXPECT_EQ(timed.rig.rx.take_all(), std::vector<Frame>{frame});
}

TEST(Virtual, NothingRunsWhilePausedAndAllGoesOnAfterwards) {
    Timed timed;
    timed.settle();
    Frame frame = make_frame(100, 1, peer_mac);
    timed.rig.send(frame);
    {
        std::unique_lock guard(timed.rig.lock);
        timed.rig.board->pause();
        guard.unlock();
        timed.run(1'000'000);
        EXPECT_TRUE(timed.rig.sent().empty());
        EXPECT_EQ(timed.alarm.at, Alarm::never) << "a parked core costs nothing";
        guard.lock();
        timed.rig.board->resume();
    }
    timed.settle();
    EXPECT_EQ(timed.rig.sent(), std::vector<Frame>{frame});
    timed.rig.set_dma(false);
    Frame later = make_frame(101, 2, peer_mac);
    timed.rig.send(later);
    timed.settle();
    EXPECT_EQ(timed.rig.sent().size(), 1u) << "bus mastering is off";
    timed.rig.set_dma(true);
    timed.settle();
    EXPECT_EQ(timed.rig.sent(), (std::vector<Frame>{frame, later}));
    timed.rig.send(make_frame(102, 3, peer_mac));
    timed.rig.reset();
    timed.settle();
    EXPECT_EQ(timed.rig.sent().size(), 2u) << "a reset forgets what was posted";
    timed.rig.bring_up();
    timed.rig.send(frame);
    timed.settle();
    EXPECT_EQ(timed.rig.sent().size(), 3u);
}

TEST(Virtual, TwoRunsAreTheSameStepByStep) {
    auto run = [] {
        Timed timed({.cores = 3});
        timed.rig.rx.post_all();
        std::vector<uint64_t> trace;
        for (unsigned n = 0; n < 50; n++) {
            timed.rig.send(make_frame(64 + n, n, peer_mac));
            timed.rig.offer(make_frame(70 + n, n));
            timed.run(n * 311 % 7'000);
            trace.push_back(timed.alarm.at);
            timed.rig.board->visit_counters(
                [&](const std::string &, uint64_t value) { trace.push_back(value); });
        }
        timed.settle();
        trace.push_back(timed.now());
        return trace;
    };
    EXPECT_EQ(run(), run());
}

TEST(Virtual, EchoAnswersAtItsTime) {
    ManualClock clock;
    std::string error;
    auto port = EchoPort::open("echo:10.9.8.7", clock, 500, error);
    ASSERT_TRUE(port) << error;
    Frame request = arp_for({10, 9, 8, 7}), other = arp_for({10, 9, 8, 6});
    std::array<iovec, 2> frames{{{request.data(), request.size()}, {other.data(), other.size()}}};
    std::array<Verdict, 2> verdicts{};
    port->send(frames, verdicts);
    EXPECT_EQ(verdicts, (std::array{Verdict::Sent, Verdict::Sent}));
    EXPECT_FALSE(port->fill());
    EXPECT_EQ(port->due(), clock.now() + 500);
    clock.forward(500);
    ASSERT_TRUE(port->fill());
    EXPECT_EQ(Frame(port->front().begin(), port->front().end()), answer_to_arp({10, 9, 8, 7}));
    port->pop();
    EXPECT_FALSE(port->fill()) << "the other address is nobody's";
    EXPECT_EQ(port->due(), 0u);
    for (const char *spec : {"echo:", "echo:x", "echo:10.0.0", "echo:10.0.0.1,"}) {
        EXPECT_EQ(EchoPort::open(spec, clock, 0, error), nullptr) << spec;
        EXPECT_NE(error.find("an IPv4 address"), std::string::npos);
    }
}

TEST(Virtual, EchoThroughTheBoard) {
    ManualClock clock;
    std::string error;
    // The port's own clock stands still, so that what is sent is there at once.
    Timed timed({}, EchoPort::open("echo", clock, 0, error));
    timed.rig.rx.post_all();
    timed.settle();
    for (unsigned n = 0; n < 40; n++) {
        timed.rig.send(arp_for({10, 0, 2, 2}));
        timed.run(n * 700);
    }
    timed.settle();
    std::vector<Frame> answers = timed.rig.rx.take_all();
    EXPECT_EQ(answers, std::vector<Frame>(40, answer_to_arp({10, 0, 2, 2})));
}

TEST(Virtual, EchoWakesAThread) {
    MonotonicClock clock;
    std::string error;
    Rig rig({.threads = true, .manual_clock = false}, EchoPort::open("echo", clock, 0, error));
    rig.bring_up();
    rig.rx.post_all();
    for (unsigned n = 0; n < 30; n++) {
        rig.send(arp_for({10, 0, 2, 2}));
        auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        while (!rig.rx.ready() && std::chrono::steady_clock::now() < end)
            std::this_thread::yield();
        EXPECT_EQ(rig.rx.take(), answer_to_arp({10, 0, 2, 2}));
    }
}

TEST(Virtual, ARateIsKeptWithinTwoPercent) {
    Timed timed({.port_mbps = 100});
    timed.settle();
    constexpr uint64_t window = 50'000'000;
    Frame frame = make_frame(1000, 1, peer_mac);
    uint64_t end = timed.now() + window;
    size_t before = 0;
    for (bool begun = false; timed.now() < end;) {
        uint32_t from = timed.rig.tx.next;
        while (timed.rig.tx.room() > 0)
            timed.rig.tx.post(frame);
        timed.rig.kick(SVIO_SEND, timed.rig.tx, from);
        timed.run(100'000);
        if (!begun && timed.now() + window > end + 5'000'000) {
            begun = true; // the burst is over
            before = timed.rig.sent().size();
            end = timed.now() + window;
        }
    }
    double mbps =
        static_cast<double>((timed.rig.sent().size() - before) * frame.size() * 8) / (window / 1000.0);
    EXPECT_NEAR(mbps, 100, 2);
    EXPECT_LT(timed.rig.core_stat(CorePolls), 40'000u) << "it waits for tokens asleep";
}

// ---- management ----

namespace {

/// A managed board and the PF driver's half of its admin queue, in virtual time.
struct ManagedTime {
    ManagedTime() : executor(*board.board, alarm, {poll_cost, message_cost, idle}) {
        board.core->start(executor);
        executor.start();
    }
    ~ManagedTime() { executor.stop(); }
    /// Each alarm at its time, until nothing is left to do.
    void settle() {
        for (unsigned n = 0; alarm.at != Alarm::never; n++) {
            ASSERT_LT(n, 100'000u) << "it never sleeps";
            fire_at(alarm.at);
        }
    }
    void fire_at(uint64_t at) {
        if (at > board.clock.now())
            board.clock.forward(at - board.clock.now());
        executor.fire();
    }
    uint32_t post_list() {
        svio_command command = ring.make(SVIO_OP_VIF_LIST);
        command.data_addr = AdminRing::data;
        command.data_len = 4096;
        return ring.post(command);
    }
    FakeAlarm alarm;
    ManagedBoard board;
    VirtualExecutor executor;
    AdminRing ring{board};
};

} // namespace

TEST(VirtualManagement, ACommandIsAnsweredAfterItsPrice) {
    ManagedTime timed;
    timed.settle();
    uint32_t first = timed.post_list(), second = timed.post_list();
    uint64_t rung = timed.board.clock.now();
    timed.ring.ring_bell();
    EXPECT_FALSE(timed.ring.done(first)) << "nothing runs inside of the write";
    EXPECT_EQ(timed.alarm.at, rung + poll_cost + message_cost);
    timed.fire_at(timed.alarm.at);
    EXPECT_TRUE(timed.ring.done(first));
    EXPECT_FALSE(timed.ring.done(second)) << "one at a time";
    EXPECT_EQ(timed.alarm.at, rung + 2 * (poll_cost + message_cost));
    timed.fire_at(timed.alarm.at);
    EXPECT_TRUE(timed.ring.done(second));
    timed.settle();
}

TEST(VirtualManagement, WaitsWhileTheMachineStandsStill) {
    ManagedTime timed;
    timed.settle();
    {
        std::lock_guard guard(timed.board.lock);
        timed.board.board->pause();
    }
    uint32_t position = timed.post_list();
    timed.ring.ring_bell();
    timed.settle();
    EXPECT_FALSE(timed.ring.done(position));
    {
        std::lock_guard guard(timed.board.lock);
        timed.board.board->resume();
    }
    timed.settle();
    EXPECT_TRUE(timed.ring.done(position));
}

TEST(VirtualManagement, ADestroyedVifIsAnsweredLikeAnyOther) {
    ManagedTime timed;
    timed.board.enable_all(2);
    timed.settle();
    timed.ring.ring_bell();
    svio_option accept{.id = SVIO_OPTION_MANAGEMENT, .length = 0, .required = 0};
    timed.ring.ram().put(AdminRing::data, &accept, sizeof(accept));
    svio_command command = timed.ring.make(SVIO_OP_ACCEPT_OPTIONS);
    command.data_addr = AdminRing::data;
    command.data_len = sizeof(accept);
    timed.ring.post(command);
    uint32_t position = timed.ring.post(timed.ring.make(SVIO_OP_VIF_DESTROY, 2));
    timed.ring.ring_bell();
    timed.settle();
    ASSERT_TRUE(timed.ring.done(position));
    EXPECT_EQ(timed.ring.answer(position).status, SVIO_ST_OK);
    EXPECT_TRUE(timed.board.vif(1).present());
    EXPECT_FALSE(timed.board.vif(2).present());
}
