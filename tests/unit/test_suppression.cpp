// SPDX-License-Identifier: GPL-2.0-or-later
/// Doorbells, signals and moderation (SPEC.md 5.5). No threads: the tests call the cores.
#include "driver.hpp"

using namespace svio;
using namespace svio::test;

namespace {

class Suppression : public testing::TestWithParam<bool> {
  protected:
    Rig rig{RigOptions{.direct = GetParam()}};
    uint64_t tx_signals() { return rig.signals.count(Rig::send_vector); }
    uint64_t rx_signals() { return rig.signals.count(Rig::receive_vector); }
    void moderate(unsigned direction, uint32_t frames, uint32_t microseconds) {
        rig.set_queue(direction, SVIO_QUEUE_MODERATION, frames << 16 | microseconds);
    }
    void send(unsigned n) {
        for (; n > 0; n--)
            rig.tx.post(make_frame(60, 1));
        rig.work();
    }
};

} // namespace

INSTANTIATE_TEST_SUITE_P(Windows, Suppression, testing::Bool(),
                         [](const auto &info) { return info.param ? "direct" : "slow"; });

TEST_P(Suppression, TheBellIsArmedOnlyToSleep) {
    rig.bring_up();
    EXPECT_TRUE(rig.send(make_frame(60, 1))) << "a started queue has bell_at 0: the first entry rings";
    rig.work();
    for (uint64_t n = 0; n < 20; n++) {
        EXPECT_FALSE(rig.send(make_frame(60, n))) << "a core that polls lets bell_at lie";
        rig.work();
    }
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_BELLS_ARMED), 0u);
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_BELLS), 1u);

    EXPECT_TRUE(rig.sleep());
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_BELLS_ARMED), 1u);
    EXPECT_EQ(rig.tx.bell_at(), 21u);
    EXPECT_TRUE(rig.send(make_frame(60, 99)));
    EXPECT_FALSE(rig.send(make_frame(60, 99))) << "one bell for one sleep";
    rig.work();
    EXPECT_EQ(rig.sent().size(), 23u);
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_BELLS), 2u);
}

TEST_P(Suppression, ABatchThatCrossesTheBellRings) {
    rig.bring_up();
    rig.work();
    EXPECT_TRUE(rig.sleep());
    uint32_t from = rig.tx.next;
    for (uint64_t n = 0; n < 7; n++)
        rig.tx.post(make_frame(60, n));
    EXPECT_TRUE(rig.kick(SVIO_SEND, rig.tx, from));
}

TEST_P(Suppression, ACoreThatFindsAnEntryWhileItArmsDoesNotSleep) {
    rig.bring_up();
    rig.work();
    rig.tx.post(make_frame(60, 1));
    EXPECT_FALSE(rig.sleep());
    rig.work();
    EXPECT_TRUE(rig.sleep());
}

TEST_P(Suppression, NothingIsArmedForAQueueThatDoesNotRun) {
    rig.bring_up();
    rig.write(SVIO_REG_CONTROL, 0);
    rig.sleep();
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_BELLS_ARMED), 0u);
    rig.write(SVIO_REG_CONTROL, SVIO_CONTROL_RUN);
    rig.set_dma(false);
    rig.sleep();
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_BELLS_ARMED), 0u);
    rig.set_dma(true);
    rig.sleep();
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_BELLS_ARMED), 1u);
}

TEST_P(Suppression, SignalsFireOnlyWhenTheArmedPositionIsCrossed) {
    rig.bring_up();
    send(3); // signal_at lies behind
    EXPECT_EQ(tx_signals(), 0u);
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_SIGNALS_SUPPRESSED), 1u) << "one decision for one batch";
    rig.tx.set_signal_at(4);
    send(1); // completes 3
    EXPECT_EQ(tx_signals(), 0u);
    send(1); // completes 4
    EXPECT_EQ(tx_signals(), 1u);
    send(1);
    EXPECT_EQ(tx_signals(), 1u) << "an event that has fired needs no disarming";
    rig.tx.set_signal_at(10);
    send(6); // 6..11
    EXPECT_EQ(tx_signals(), 2u);
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_SIGNALS), 2u);
    EXPECT_EQ(rig.core_stat(CoreSignalled), 2u);
    EXPECT_EQ(rx_signals(), 0u);
}

TEST_P(Suppression, ReceiveSignalsFollowTheSameRule) {
    rig.bring_up(64, 64);
    rig.rx.post_all();
    rig.rx.set_signal_at(1);
    rig.offer(make_frame(60, 1));
    EXPECT_EQ(rx_signals(), 0u);
    rig.offer(make_frame(150, 2)); // 1..3
    EXPECT_EQ(rx_signals(), 1u);
    rig.rx.set_signal_at(6);
    rig.offer(make_frame(150, 3)); // 4..6: crossed by the last entry
    EXPECT_EQ(rx_signals(), 2u);
    EXPECT_EQ(rig.receive_stat(SVIO_QSTAT_SIGNALS), 2u);
    EXPECT_EQ(rig.receive_stat(SVIO_QSTAT_SIGNALS_SUPPRESSED), 1u);
}

TEST_P(Suppression, NoVectorNoSignal) {
    rig.bring_up();
    rig.set_queue(SVIO_SEND, SVIO_QUEUE_VECTOR, SVIO_NO_VECTOR);
    rig.set_queue(SVIO_RECEIVE, SVIO_QUEUE_VECTOR, SVIO_NO_VECTOR);
    rig.tx.set_signal_at(0);
    rig.rx.set_signal_at(0);
    rig.rx.post(1);
    rig.offer(make_frame(60, 1));
    send(1);
    EXPECT_EQ(rig.signals.total(), 0u);
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_SIGNALS_SUPPRESSED), 1u);
    EXPECT_EQ(rig.receive_stat(SVIO_QSTAT_SIGNALS_SUPPRESSED), 1u);
}

TEST_P(Suppression, TheVectorMayChangeWhileTheQueueRuns) {
    rig.bring_up();
    rig.set_queue(SVIO_SEND, SVIO_QUEUE_VECTOR, 7);
    rig.tx.set_signal_at(0);
    send(1);
    EXPECT_EQ(tx_signals(), 0u);
    EXPECT_EQ(rig.signals.count(7), 1u);
}

TEST_P(Suppression, ModerationByTime) {
    rig.bring_up();
    moderate(SVIO_SEND, 0, 50);
    rig.tx.set_signal_at(0);
    send(1);
    EXPECT_EQ(tx_signals(), 0u);
    rig.clock.forward(49'000);
    send(1);
    EXPECT_EQ(tx_signals(), 0u);
    rig.clock.forward(1'000); // 50 us since the first that was held
    rig.work();
    EXPECT_EQ(tx_signals(), 1u);
    rig.clock.forward(1'000'000);
    rig.work();
    EXPECT_EQ(tx_signals(), 1u) << "nothing held, nothing sent";
}

TEST_P(Suppression, ASenderThatMovesTheSignalOnHasTheTimeCountFromItsLatestMessage) {
    rig.bring_up();
    moderate(SVIO_SEND, 0, 50);
    for (unsigned n = 0; n < 20; n++) {
        rig.tx.set_signal_at(rig.tx.next);
        send(1);
        EXPECT_EQ(tx_signals(), 0u);
        rig.clock.forward(40'000);
        rig.work();
    }
    EXPECT_EQ(tx_signals(), 0u) << "held anew with each message";
    rig.clock.forward(9'999);
    rig.work();
    EXPECT_EQ(tx_signals(), 0u);
    rig.clock.forward(1);
    rig.work();
    EXPECT_EQ(tx_signals(), 1u) << "the last of them is not forgotten";
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_SIGNALS_SUPPRESSED), 19u);
}

TEST_P(Suppression, ModerationByFrames) {
    rig.bring_up();
    moderate(SVIO_SEND, 4, 0xffff);
    rig.tx.set_signal_at(0);
    send(3);
    EXPECT_EQ(tx_signals(), 0u);
    send(1);
    EXPECT_EQ(tx_signals(), 1u);
    rig.tx.set_signal_at(4);
    send(3);
    EXPECT_EQ(tx_signals(), 1u) << "the count starts anew";
    send(1);
    EXPECT_EQ(tx_signals(), 2u);
}

TEST_P(Suppression, ADriverThatPolledMeanwhileIsNotDisturbed) {
    rig.bring_up();
    moderate(SVIO_SEND, 0, 50);
    rig.tx.set_signal_at(0);
    send(2);
    rig.tx.set_signal_at(rig.tx.done() - 1 - rig.tx.size); // polled, wants nothing
    rig.clock.forward(60'000);
    rig.work();
    EXPECT_EQ(tx_signals(), 0u);
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_SIGNALS_SUPPRESSED), 1u);
}

TEST_P(Suppression, TimeStartsAnewAfterThePoll) {
    rig.bring_up();
    moderate(SVIO_SEND, 0, 50);
    rig.tx.set_signal_at(0);
    send(1);
    rig.clock.forward(40'000);
    rig.tx.set_signal_at(1); // polled, and waits for the next
    send(1);                 // held since now
    rig.clock.forward(20'000);
    rig.work();
    EXPECT_EQ(tx_signals(), 0u);
    rig.clock.forward(30'000);
    rig.work();
    EXPECT_EQ(tx_signals(), 1u);
}

// A driver goes to sleep while the device is in the middle of a batch: it has seen nothing of the batch, for
// the device publishes at its end, and so it must get a signal for it.
TEST_P(Suppression, ADriverThatArmsInTheMiddleOfABatchIsSignalled) {
    rig.bring_up();
    moderate(SVIO_SEND, 64, 50);
    rig.tx.set_signal_at(rig.tx.next - 1); // NAPI runs, and wants nothing
    for (unsigned i = 0; i < 3; i++)
        rig.tx.post(make_frame(60, i));
    unsigned reads = 0;
    rig.ram.on_read = [&](uint64_t) {
        if (++reads != 3)
            return;
        ASSERT_EQ(rig.tx.done(), 0u);
        rig.tx.set_signal_at(0);
    };
    rig.work();
    rig.ram.on_read = nullptr;
    EXPECT_EQ(rig.tx.done(), 3u);
    rig.clock.forward(60'000);
    rig.work();
    EXPECT_EQ(tx_signals(), 1u);
}

TEST_P(Suppression, ACoreAboutToSleepSendsWhatItHolds) {
    rig.bring_up();
    moderate(SVIO_SEND, 0, 0xffff);
    rig.tx.set_signal_at(0);
    send(1);
    EXPECT_EQ(tx_signals(), 0u);
    EXPECT_TRUE(rig.sleep());
    EXPECT_EQ(tx_signals(), 1u);
}

TEST_P(Suppression, ModerationOfReceptionOnAPolledPort) {
    auto polled = polled_rig(RigOptions{.direct = GetParam()});
    Rig &r = *polled;
    r.bring_up();
    r.set_queue(SVIO_RECEIVE, SVIO_QUEUE_MODERATION, 8 << 16 | 100);
    r.rx.post_all();
    r.rx.set_signal_at(0);
    auto arrive = [&](unsigned n) {
        for (; n > 0; n--)
            r.polled->incoming.push_back(make_frame(60, 1));
        r.work();
    };
    arrive(7);
    EXPECT_EQ(r.signals.count(Rig::receive_vector), 0u);
    arrive(1);
    EXPECT_EQ(r.signals.count(Rig::receive_vector), 1u);
    r.rx.set_signal_at(8);
    arrive(1);
    EXPECT_EQ(r.signals.count(Rig::receive_vector), 1u);
    r.clock.forward(100'000);
    r.work();
    EXPECT_EQ(r.signals.count(Rig::receive_vector), 2u);
    r.rx.set_signal_at(9);
    arrive(1);
    EXPECT_EQ(r.signals.count(Rig::receive_vector), 2u);
    EXPECT_TRUE(r.sleep());
    EXPECT_EQ(r.signals.count(Rig::receive_vector), 3u);
}

TEST_P(Suppression, WhatTheBacklogDeliveredUnderModerationIsSignalledInTheEnd) {
    rig.bring_up();
    moderate(SVIO_RECEIVE, 0, 100);
    rig.rx.post_all();
    rig.rx.set_signal_at(0);
    Frame frame = make_frame(60, 1);
    {
        std::lock_guard busy(rig.vif->receive_queue().mutex);
        std::thread([&] { rig.offer(frame); }).join();
    }
    rig.work();
    EXPECT_EQ(rig.core_stat(CoreBacklogged), 1u);
    EXPECT_EQ(rig.rx.take(), frame);
    EXPECT_EQ(rx_signals(), 0u);
    rig.clock.forward(100'000);
    rig.work();
    EXPECT_EQ(rx_signals(), 1u) << "the time of moderation has passed";
    rig.rx.set_signal_at(1);
    {
        std::lock_guard busy(rig.vif->receive_queue().mutex);
        std::thread([&] { rig.offer(frame); }).join();
    }
    rig.work();
    EXPECT_EQ(rx_signals(), 1u);
    rig.sleep();
    EXPECT_EQ(rx_signals(), 2u) << "a core about to sleep sends what it holds";
}

TEST_P(Suppression, DoorbellsOfNoUseAreCountedAndHarmless) {
    rig.bring_up();
    for (unsigned n = 0; n < 1000; n++) {
        rig.write(SVIO_BELL(0, SVIO_SEND), n);
        rig.write(SVIO_BELL(0, SVIO_RECEIVE), n);
    }
    rig.work();
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_BELLS), 1000u);
    EXPECT_EQ(rig.receive_stat(SVIO_QSTAT_BELLS), 1000u);
    EXPECT_EQ(rig.stat(SVIO_STAT_BAD_REGISTER), 0u);
    EXPECT_TRUE(rig.sent().empty());
    send(1);
    EXPECT_EQ(rig.sent().size(), 1u);
}
