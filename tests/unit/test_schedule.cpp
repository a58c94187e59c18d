// SPDX-License-Identifier: GPL-2.0-or-later
/// Who may send how much: deficit round robin, token buckets and guarantees against their textbook shares, in
/// simulated time; and VIFs that move from core to core while they work.
#include "many.hpp"

#include <numeric>

using namespace svio;
using namespace svio::test;

namespace {

/// VIFs that always have something to send. Time passes in steps; each core works in each.
class Load {
  public:
    explicit Load(ManyRig &r) : rig(r), sizes(r.stations.size()) {}

    /// From now on frames of this size, to the port; 0: none.
    void offer(unsigned slot, uint32_t size) {
        SendRing &tx = rig.stations[slot].tx;
        Frame frame = make_frame(size, slot, peer_mac, mac_of(slot));
        for (uint32_t n = 0; n < tx.size; n++)
            rig.ram.put(tx.buffer_at(n), frame.data(), frame.size());
        sizes[slot] = size;
    }
    void run(uint64_t ns, uint64_t step = 100'000) {
        for (uint64_t passed = 0; passed < ns; passed += step) {
            for (unsigned slot = 0; slot < sizes.size(); slot++) {
                SendRing &tx = rig.stations[slot].tx;
                while (sizes[slot] != 0 && tx.room() > 0)
                    tx.post_raw(tx.buffer_at(tx.next), sizes[slot]);
            }
            rig.clock.forward(step);
            for (unsigned round = 0; round < 4; round++) {
                for (unsigned n = 0; n < rig.board->cores(); n++)
                    rig.board->core(n).round();
            }
            rig.sent();
        }
    }
    /// Rates in Mb/s while it runs.
    std::vector<double> rates(uint64_t ns, uint64_t step = 100'000) {
        std::vector<uint64_t> before = bytes();
        run(ns, step);
        std::vector<double> mbps;
        std::vector<uint64_t> after = bytes();
        for (size_t n = 0; n < after.size(); n++)
            mbps.push_back(static_cast<double>(after[n] - before[n]) * 8000 / static_cast<double>(ns));
        return mbps;
    }

  private:
    std::vector<uint64_t> bytes() {
        std::vector<uint64_t> sums;
        for (unsigned slot = 0; slot < sizes.size(); slot++)
            sums.push_back(rig.stat(slot, SVIO_STAT_TX_BYTES));
        return sums;
    }
    ManyRig &rig;
    std::vector<uint32_t> sizes;
};

void expect_near(double is, double should, const std::string &what) {
    EXPECT_NEAR(is, should, should * 0.02) << what;
}

constexpr uint64_t ms = 1'000'000;

ManyRig::Options limited(unsigned vifs, uint32_t mbps, unsigned cores = 1) {
    return {.vifs = vifs,
            .board = {.cores = cores, .poll_us = 0, .threads = false, .port_mbps = mbps},
            .ring = 256};
}

} // namespace

TEST(Shares, EqualWeightsGetEqualRates) {
    ManyRig rig(limited(4, 200));
    Load load(rig);
    // Whatever the size of their frames.
    for (auto [slot, size] : {std::pair{1u, 1500u}, {2u, 200u}, {3u, 60u}, {4u, 1024u}})
        load.offer(slot, size);
    load.run(100 * ms);
    auto rates = load.rates(1000 * ms);
    // Frames below 64 bytes cost as much as one of 64.
    for (unsigned slot : {1u, 2u, 4u})
        expect_near(rates[slot], 50, "slot " + std::to_string(slot));
    expect_near(rates[3] * 64 / 60, 50, "slot 3");
}

TEST(Shares, FollowWeights) {
    for (unsigned cores : {1u, 2u, 3u}) {
        ManyRig rig(limited(4, 200, cores));
        Load load(rig);
        const unsigned weights[] = {1, 2, 3, 4};
        for (unsigned slot = 1; slot <= 4; slot++) {
            rig.set(slot, [&](VifSettings &s) { s.weight = weights[slot - 1]; });
            load.offer(slot, 1400);
        }
        load.run(100 * ms);
        auto rates = load.rates(1000 * ms);
        for (unsigned slot = 1; slot <= 4; slot++)
            expect_near(rates[slot], 20.0 * weights[slot - 1],
                        std::to_string(cores) + " cores, slot " + std::to_string(slot));
    }
}

TEST(Shares, OfExtremeWeights) {
    ManyRig rig(limited(2, 200));
    Load load(rig);
    rig.set(1, [](VifSettings &s) { s.weight = 1000; });
    rig.set(2, [](VifSettings &s) { s.weight = 10; });
    load.offer(1, 1500);
    load.offer(2, 1500);
    load.run(100 * ms);
    auto rates = load.rates(3000 * ms);
    expect_near(rates[1], 200.0 * 1000 / 1010, "heavy");
    expect_near(rates[2], 200.0 * 10 / 1010, "light");
}

TEST(Shares, WhatOneLeavesIsForTheOthers) {
    for (unsigned cores : {1u, 2u}) {
        ManyRig rig(limited(3, 180, cores));
        Load load(rig);
        load.offer(1, 1500);
        load.offer(2, 1500);
        load.offer(3, 1500);
        rig.set(3, [](VifSettings &s) { s.max_mbps = 20; });
        load.run(100 * ms);
        auto rates = load.rates(1000 * ms);
        std::string where = std::to_string(cores) + " cores";
        expect_near(rates[3], 20, where + ", limited");
        expect_near(rates[1] + rates[2], 160, where + ", the others");
        expect_near(rates[1], cores == 1 ? 80 : rates[1], where);
        load.offer(1, 0);
        load.offer(3, 0);
        load.run(100 * ms);
        expect_near(load.rates(1000 * ms)[2], 180, where + ", alone");
    }
}

TEST(Shares, GuaranteesComeFirst) {
    ManyRig rig(limited(3, 200));
    Load load(rig);
    rig.set(1, [](VifSettings &s) { s.min_mbps = 80; });
    rig.set(2, [](VifSettings &s) { s.weight = 9; });
    load.offer(1, 1500);
    load.offer(2, 1500);
    load.run(100 * ms);
    auto rates = load.rates(1000 * ms);
    // 80, and of the other 120 by weight.
    expect_near(rates[1], 92, "guaranteed");
    expect_near(rates[2], 108, "the other");
    load.offer(1, 0);
    load.run(100 * ms);
    expect_near(load.rates(1000 * ms)[2], 200, "a guarantee that is not used is for the others");
}

TEST(Shares, GuaranteesHoldOverCores) {
    ManyRig rig(limited(3, 200, 2));
    Load load(rig);
    rig.set(1, [](VifSettings &s) { s.core = 0; });
    rig.set(2, [](VifSettings &s) { s.core = 1; });
    rig.set(3, [](VifSettings &s) { s.core = 1; });
    rig.set(1, [](VifSettings &s) { s.min_mbps = 120; });
    for (unsigned slot = 1; slot <= 3; slot++)
        load.offer(slot, 1500);
    load.run(100 * ms);
    auto rates = load.rates(1000 * ms);
    expect_near(rates[1], 120 + 80.0 / 3, "guaranteed");
    expect_near(rates[2], 80.0 / 3, "slot 2");
    expect_near(rates[3], 80.0 / 3, "slot 3");
}

TEST(Rates, AMaximumHoldsAtAnyRate) {
    for (uint32_t mbps : {1u, 10u, 333u}) {
        ManyRig rig({.vifs = 1, .ring = 256});
        Load load(rig);
        rig.set(1, [&](VifSettings &s) { s.max_mbps = mbps; });
        load.offer(1, 1000);
        load.run(20 * ms);
        expect_near(load.rates(1000 * ms)[1], mbps, std::to_string(mbps) + " Mb/s");
    }
}

TEST(Rates, TheBurstAfterAPauseIsBounded) {
    ManyRig rig({.vifs = 1, .ring = 1024, .buffer = 1024});
    Load load(rig);
    rig.set(1, [&](VifSettings &s) { s.max_mbps = 80; });
    load.run(500 * ms);
    load.offer(1, 1000);
    double burst = load.rates(ms)[1] * 1000 / 8; // bytes
    EXPECT_LE(burst, 80.0e6 / 8 * 0.011 + 2000) << "ten milliseconds' worth, and this one";
    EXPECT_GE(burst, 80.0e6 / 8 * 0.010);
}

TEST(Rates, MessagesBetweenVifsCountToo) {
    ManyRig rig({.vifs = 2, .ring = 256});
    rig.set(1, [&](VifSettings &s) { s.max_mbps = 100; });
    uint64_t sequence = 0, got = 0;
    for (uint64_t t = 0; t < 1000 * ms; t += 50'000) {
        while (rig.stations[1].tx.room() > 0)
            rig.stations[1].tx.post(make_frame(1000, sequence++, mac_of(2), mac_of(1)));
        rig.clock.forward(50'000);
        rig.board->core(0).round();
        for (const Frame &frame : rig.take(2))
            EXPECT_EQ(sequence_of(frame), got++);
        rig.stations[2].rx.post_all();
    }
    expect_near(static_cast<double>(got) * 8000 / 1e6, 101, "with the first burst");
}

// Between VIFs the port's limit is no matter.
TEST(Rates, ThePortsLimitHoldsUpNoMessageBetweenVifs) {
    ManyRig rig(limited(2, 1));
    Load load(rig);
    load.offer(0, 1500);
    load.run(10 * ms);
    for (unsigned n = 0; n < 50; n++)
        rig.send(1, make_frame(1500, n, mac_of(2), mac_of(1)));
    rig.work();
    EXPECT_EQ(rig.take(2).size(), 50u);
}

// A core without anything but what waits for tokens sleeps until they are due, and no bell is armed for it.
TEST(Rates, WhoWaitsForTokensIsNotPolled) {
    ManyRig rig({.vifs = 2, .ring = 64});
    rig.set(1, [&](VifSettings &s) { s.max_mbps = 1; });
    for (unsigned n = 0; n < 20; n++)
        rig.send(1, make_frame(1000, n, peer_mac, mac_of(1)));
    rig.work();
    uint64_t sent = rig.stat(1, SVIO_STAT_TX_FRAMES);
    EXPECT_LT(sent, 20u);
    uint64_t armed = rig.vif(1).pair(0).send.counters.get(SVIO_QSTAT_BELLS_ARMED);
    EXPECT_TRUE(rig.board->core(0).prepare_sleep());
    EXPECT_EQ(rig.vif(1).pair(0).send.counters.get(SVIO_QSTAT_BELLS_ARMED), armed);
    EXPECT_GT(rig.vif(2).pair(0).send.counters.get(SVIO_QSTAT_BELLS_ARMED), 0u);
    rig.clock.forward(8 * ms);
    rig.work();
    EXPECT_GT(rig.stat(1, SVIO_STAT_TX_FRAMES), sent);
}

TEST(Rates, AFloodStarvesNobody) {
    ManyRig rig({.vifs = 2, .ring = 256});
    Load load(rig);
    load.offer(1, 1500);
    load.offer(2, 100);
    load.run(50 * ms);
    auto rates = load.rates(100 * ms);
    EXPECT_GT(rates[2], 0.2 * rates[1]);
}

// Who floods with broadcasts pays for each copy, and a round stays short: others wait for its end.
TEST(Rates, AFloodOfBroadcastsKeepsRoundsShort) {
    ManyRig rig({.vifs = SVIO_MAX_VIFS, .ring = 64, .buffer = 128});
    for (unsigned slot = 1; slot < SVIO_MAX_VIFS; slot++) {
        for (unsigned n = 0; n < 60; n++)
            rig.send(slot, make_frame(60, n, broadcast_mac, mac_of(slot)));
    }
    rig.send(SVIO_MAX_VIFS, make_frame(60, 7, mac_of(0), mac_of(SVIO_MAX_VIFS)));
    unsigned rounds = 0;
    for (bool more = true; more; rounds++) {
        uint64_t before = rig.board->core(0).counters.get(CorePickedUp);
        more = rig.board->core(0).round();
        EXPECT_LE(rig.board->core(0).counters.get(CorePickedUp) - before, 128u);
    }
    EXPECT_GE(rounds, 30u);
    EXPECT_EQ(rig.stat(SVIO_MAX_VIFS, SVIO_STAT_TX_FRAMES), 1u);
    for (unsigned slot = 1; slot < SVIO_MAX_VIFS; slot++)
        EXPECT_EQ(rig.stat(slot, SVIO_STAT_TX_FRAMES), 60u) << slot;
}

// ---- cores ----

TEST(Mapping, IsEvenAndByHand) {
    ManyRig rig(
        {.vifs = 7, .board = {.cores = 4, .poll_us = 0, .threads = false}, .ring = 16, .buffer = 256});
    std::vector<unsigned> load(4);
    for (unsigned slot = 0; slot <= 7; slot++)
        load[rig.vif(slot).pair(0).core]++;
    EXPECT_EQ(load, std::vector<unsigned>(4, 2));
    rig.set(3, [](VifSettings &s) { s.core = 2; });
    EXPECT_EQ(rig.vif(3).pair(0).core, 2u);
    rig.set(3, [](VifSettings &s) { s.name = "same"; });
    EXPECT_EQ(rig.vif(3).pair(0).core, 2u);
}

TEST(Mapping, BalancesWhatIsNotMappedByHand) {
    ManyRig rig({.vifs = 4, .board = {.cores = 2, .poll_us = 0, .threads = false}, .ring = 256});
    for (unsigned slot = 0; slot <= 4; slot++)
        rig.set(slot, [](VifSettings &s) { s.core = 0; });
    rig.set(1, [](VifSettings &s) { s.core = SVIO_CORE_AUTO; });
    rig.set(2, [](VifSettings &s) { s.core = SVIO_CORE_AUTO; });
    Load load(rig);
    for (unsigned slot = 1; slot <= 4; slot++)
        load.offer(slot, 1000);
    load.run(2000 * ms, 20 * ms);
    EXPECT_EQ(rig.vif(1).pair(0).core, 1u);
    EXPECT_EQ(rig.vif(2).pair(0).core, 1u);
    EXPECT_EQ(rig.vif(3).pair(0).core, 0u);
    EXPECT_EQ(rig.vif(4).pair(0).core, 0u);
    // And stays, as it is even now.
    load.run(1000 * ms, 20 * ms);
    EXPECT_EQ(rig.vif(1).pair(0).core, 1u);
}

TEST(Mapping, AMoveTakesWhatIsOnItsWayAlong) {
    ManyRig rig({.vifs = 2, .board = {.cores = 2, .poll_us = 0, .threads = false}, .ring = 256});
    rig.set(1, [](VifSettings &s) { s.core = 0; });
    rig.set(2, [](VifSettings &s) { s.core = 0; });
    rig.wire->room = 3;
    for (unsigned n = 0; n < 100; n++) {
        rig.send(1, make_frame(100, n, peer_mac, mac_of(1)));
        rig.send(2, make_frame(100, n, peer_mac, mac_of(2)));
    }
    rig.work();
    EXPECT_TRUE(rig.wire->blocked());
    for (unsigned n = 0; n < 5; n++)
        rig.set(1, [&](VifSettings &s) { s.core = (n + 1) % 2; });
    rig.wire->unblock(SIZE_MAX);
    rig.work();
    std::array<uint64_t, 3> next{};
    for (const Frame &frame : rig.sent()) {
        unsigned slot = frame[11];
        EXPECT_EQ(sequence_of(frame), next[slot]++);
    }
    EXPECT_EQ(next[1], 100u);
    EXPECT_EQ(next[2], 100u);
}

// Threads, a netdev and messages both ways, numbered, while VIFs are moved, reconfigured and taken away.
TEST(Mapping, RemappingUnderLoadLosesAndReordersNothing) {
    constexpr uint64_t total = under_tsan ? 3000 : 20'000;
    ManyRig rig({.vifs = 3,
                 .board = {.cores = 2, .poll_us = 20, .threads = true},
                 .manual_clock = false,
                 .ring = 256,
                 .buffer = 256});
    std::atomic<bool> over{false};
    std::thread manager([&] {
        for (unsigned n = 0; !over; n++) {
            rig.set(1 + n % 2, [&](VifSettings &s) {
                s.core = n % 3 == 2 ? SVIO_CORE_AUTO : n / 2 % 2;
                s.weight = 1 + n % 7;
            });
            std::lock_guard guard(rig.lock);
            if (n % 4 == 0) {
                rig.vif(3).destroy();
            } else if (n % 4 == 2) {
                VifSettings settings;
                settings.id = 100 + n;
                settings.mac = mac_of(3);
                rig.vif(3).create(settings);
            }
        }
    });
    uint64_t posted = 0, to_port = 0, received = 0, incoming = 0, arrived = 0;
    auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(120);
    // No more than the receiver has room for: then nothing may be lost.
    while ((received < total || arrived < total) && std::chrono::steady_clock::now() < deadline) {
        for (; posted < total && posted - received < 200 && rig.stations[1].tx.room() > 0; posted++) {
            rig.send(1, make_frame(100, posted, mac_of(2), mac_of(1)));
            if (posted % 2 == 0 && rig.stations[2].tx.room() > 0)
                rig.send(2, make_frame(90, to_port++, peer_mac, mac_of(2)));
        }
        if (incoming < total && incoming - arrived < 100)
            rig.offer(make_frame(80, incoming++, mac_of(1)));
        for (const Frame &frame : rig.take(2))
            ASSERT_EQ(sequence_of(frame), received++);
        for (const Frame &frame : rig.take(1))
            ASSERT_EQ(sequence_of(frame), arrived++);
        for (unsigned slot : {1u, 2u}) {
            ReceiveRing &rx = rig.stations[slot].rx;
            uint32_t from = rx.next;
            rx.post_all();
            if (rx.must_ring(from))
                rig.write(slot, SVIO_BELL(0, SVIO_RECEIVE), 1);
        }
    }
    over = true;
    manager.join();
    EXPECT_EQ(received, total);
    EXPECT_EQ(arrived, total);
    EXPECT_TRUE(eventually([&] { return rig.wire->sent_count >= to_port; }));
    uint64_t next = 0;
    for (const Frame &frame : rig.sent())
        EXPECT_EQ(sequence_of(frame), next++);
    EXPECT_EQ(next, to_port);
    EXPECT_EQ(rig.stat(1, SVIO_STAT_DROP_RX_BACKLOG) + rig.stat(2, SVIO_STAT_DROP_RX_NO_BUFFER), 0u);
}
