// SPDX-License-Identifier: GPL-2.0-or-later
/// Saving and loading a board (SPEC.md chapter 12): nothing in flight is lost or doubled, and whatever bytes
/// come in, a board is either what they say or what it was.
#include "driver.hpp"
#include "state.hpp"

#include <random>

using namespace svio;
using namespace svio::test;

namespace {

using Bytes = std::vector<uint8_t>;

Bytes save(Rig &rig) {
    std::lock_guard guard(rig.lock);
    return rig.board->save();
}

/// Empty, or why not.
std::string load(Rig &rig, std::span<const uint8_t> state) {
    std::lock_guard guard(rig.lock);
    try {
        rig.board->load(state);
        return "";
    } catch (const StateError &error) {
        EXPECT_STRNE(error.what(), "");
        return error.what();
    }
}

/// The guest goes on in another rig: its memory, its driver, and the device's state.
void move(Rig &from, Rig &to) {
    Bytes state = save(from);
    std::memcpy(to.ram.at(FakeRam::base, to.ram.size()), from.ram.at(FakeRam::base, from.ram.size()),
                from.ram.size());
    to.tx = from.tx;
    to.rx = from.rx;
    to.tx.ram = to.rx.ram = &to.ram;
    ASSERT_EQ(load(to, state), "");
}

std::vector<Frame> numbered(size_t count, uint64_t first = 0) {
    std::vector<Frame> frames;
    for (size_t n = 0; n < count; n++)
        frames.push_back(make_frame(60 + n * 37, first + n, peer_mac, vif_mac));
    return frames;
}

/// What the guest has sent: a native port announces itself as well.
std::vector<Frame> guests(Rig &rig) {
    std::vector<Frame> frames = rig.sent();
    std::erase_if(frames, [](const Frame &f) { return f[12] == 0x80 && f[13] == 0x35; });
    return frames;
}

/// With a right checksum again.
Bytes sealed(Bytes state) {
    size_t at = state.size() - section_head_size - 4;
    uint32_t sum = state_checksum(std::span(state).first(at));
    std::memcpy(state.data() + state.size() - 4, &sum, 4);
    return state;
}

class State : public testing::TestWithParam<bool> {
  protected:
    std::unique_ptr<Rig> make(RigOptions options = {}) {
        return GetParam() ? polled_rig(options) : std::make_unique<Rig>(options);
    }
    FakePort &port(Rig &rig) { return rig.polled ? static_cast<FakePort &>(*rig.polled) : *rig.push; }
    void arrive(Rig &rig, const Frame &frame) {
        if (rig.polled)
            rig.polled->incoming.push_back(frame);
        else
            rig.offer(frame);
    }
};

} // namespace

INSTANTIATE_TEST_SUITE_P(Ports, State, testing::Bool(),
                         [](const auto &info) { return info.param ? "polled" : "pushing"; });

TEST_P(State, FramesOnTheirWayOutAreSentOnceByOneSide) {
    for (size_t taken : {0u, 1u, 7u, 20u}) {
        auto a = make({.cores = 2}), b = make({.cores = 1});
        a->bring_up();
        b->bring_up();
        port(*a).room = taken;
        auto frames = numbered(20);
        for (const Frame &frame : frames)
            a->tx.post(frame);
        a->work();
        EXPECT_EQ(a->tx.done(), 20u); // completed: the driver will not post them again
        move(*a, *b);
        b->work();
        b->work();
        auto all = a->sent();
        EXPECT_EQ(all.size(), taken);
        for (const Frame &frame : guests(*b))
            all.push_back(frame);
        EXPECT_EQ(all, frames);
        EXPECT_EQ(b->stat(SVIO_STAT_TX_FRAMES), 20u);
        b->tx.post(make_frame(99, 99, peer_mac, vif_mac));
        b->work();
        EXPECT_EQ(b->sent().back(), make_frame(99, 99, peer_mac, vif_mac));
    }
}

TEST_P(State, FramesThatWereAcceptedAreDeliveredOnce) {
    auto a = make(), b = make();
    a->bring_up();
    b->bring_up();
    std::vector<Frame> frames;
    for (unsigned n = 0; n < 20; n++)
        frames.push_back(make_frame(100 + n, n));
    {
        std::lock_guard guard(a->lock);
        Pause pause(*a->board); // a stopped machine: what a netdev offers is kept
        for (const Frame &frame : frames) {
            if (a->push) {
                EXPECT_TRUE(a->board->receive(frame));
            }
        }
    }
    if (a->polled) { // what is in the port stays there
        for (const Frame &frame : frames)
            a->polled->incoming.push_back(frame);
        frames.clear();
    }
    move(*a, *b);
    b->work();
    b->rx.post_all();
    b->work();
    EXPECT_EQ(b->rx.take_all(), frames);
    EXPECT_EQ(b->stat(SVIO_STAT_RX_FRAMES), frames.size());
    arrive(*b, make_frame(77, 77));
    b->work();
    EXPECT_EQ(b->rx.take(), make_frame(77, 77));
}

TEST_P(State, EveryRegisterAndCounterIsKept) {
    auto a = make(), b = make();
    a->bring_up(32);
    a->rx.post_all();
    for (unsigned n = 0; n < 50; n++) {
        a->send(make_frame(100, n, peer_mac, vif_mac));
        arrive(*a, make_frame(100, n));
        a->work();
        a->rx.take_all();
        a->rx.post_all();
    }
    a->set_queue(SVIO_RECEIVE, SVIO_QUEUE_MODERATION, 7 << 16 | 5000);
    a->write(SVIO_REG_MAILBOX + 8, 0x12345678);
    a->read(0x3000); // a bad access
    auto facts = [](Rig &rig) {
        std::vector<uint64_t> all;
        for (size_t n = 0; n < SVIO_STAT_COUNT; n++)
            all.push_back(rig.stat(static_cast<svio_stat>(n)));
        for (size_t n = 0; n < SVIO_QSTAT_COUNT; n++) {
            all.push_back(rig.send_stat(static_cast<svio_qstat>(n)));
            all.push_back(rig.receive_stat(static_cast<svio_qstat>(n)));
        }
        for (uint32_t reg = 0; reg <= SVIO_REG_LINK_SPEED; reg += 4) {
            if (reg != 0x1c)
                all.push_back(rig.vif->read_register(reg));
        }
        for (uint32_t reg = SVIO_REG_MAILBOX; reg < SVIO_REG_MAILBOX_BELL; reg += 4)
            all.push_back(rig.vif->read_register(reg));
        for (unsigned direction : {SVIO_SEND, SVIO_RECEIVE}) {
            for (uint32_t reg = 0; reg <= SVIO_QUEUE_MODERATION; reg += 4)
                all.push_back(rig.vif->read_register(SVIO_QUEUE_REG(0, direction, reg)));
        }
        return all;
    };
    auto before = facts(*a);
    a->vif->counters.set(SVIO_STAT_BAD_REGISTER, 1); // asking has counted
    before = facts(*a);
    a->vif->counters.set(SVIO_STAT_BAD_REGISTER, before[SVIO_STAT_BAD_REGISTER]);
    move(*a, *b);
    EXPECT_EQ(facts(*b), before);
}

TEST_P(State, QueuesInEveryState) {
    auto a = make(), b = make();
    move(*a, *b); // before any driver
    EXPECT_EQ(b->queue(SVIO_SEND, SVIO_QUEUE_STATE), uint32_t{SVIO_QUEUE_DISABLED});
    a->bring_up();
    a->tx.post_raw(a->tx.buffer_at(0), 0); // an empty entry
    a->work();
    move(*a, *b);
    EXPECT_EQ(b->queue(SVIO_SEND, SVIO_QUEUE_STATE), SVIO_QUEUE_ERROR | SVIO_QERR_EMPTY << 8);
    EXPECT_EQ(b->queue(SVIO_RECEIVE, SVIO_QUEUE_STATE), uint32_t{SVIO_QUEUE_RUNNING});
    EXPECT_EQ(b->read(SVIO_REG_EVENT), uint32_t{SVIO_EVENT_QUEUE_ERROR});
    b->set_queue(SVIO_SEND, SVIO_QUEUE_CONTROL, 0);
    EXPECT_EQ(b->queue(SVIO_SEND, SVIO_QUEUE_STATE), uint32_t{SVIO_QUEUE_DISABLED});
}

TEST_P(State, ASignalThatWasDecidedIsRaised) {
    auto a = make(), b = make();
    a->bring_up();
    a->tx.set_signal_at(0);
    a->tx.post(make_frame(100, 1, peer_mac, vif_mac));
    a->set_queue(SVIO_SEND, SVIO_QUEUE_MODERATION, 0xffff); // held back for 65 ms
    a->work();
    EXPECT_EQ(a->signals.count(Rig::send_vector), 0u);
    move(*a, *b);
    b->clock.forward(100'000'000);
    b->work();
    EXPECT_EQ(b->signals.count(Rig::send_vector), 1u);
}

TEST_P(State, AResetForgetsWhatWasLoaded) {
    auto a = make(), b = make();
    a->bring_up();
    port(*a).room = 0;
    for (const Frame &frame : numbered(10))
        a->tx.post(frame);
    a->work();
    move(*a, *b);
    b->reset();
    b->work();
    EXPECT_TRUE(guests(*b).empty());
    EXPECT_EQ(b->stat(SVIO_STAT_DROP_TX_RESET), 10u);
}

TEST_P(State, AnotherConfigurationIsRefused) {
    auto a = make();
    a->bring_up();
    Bytes state = save(*a);
    RigOptions mac, hint, mtu, id;
    mac.mac[5]++;
    hint.vif.queue_size_hint = 512;
    mtu.vif.mtu_max = 1500;
    id.vif.id = 2;
    for (const RigOptions &options : {mac, hint, mtu, id}) {
        auto b = make(options);
        EXPECT_NE(load(*b, state), "");
        EXPECT_EQ(b->queue(SVIO_SEND, SVIO_QUEUE_STATE), uint32_t{SVIO_QUEUE_DISABLED});
    }
    auto b = make();
    EXPECT_EQ(load(*b, state), "");
}

TEST_P(State, NewerVersionsAreRefusedAndNotesSkipped) {
    auto a = make(), b = make();
    a->bring_up();
    Bytes state = save(*a);
    auto with = [&](uint32_t tag, uint16_t version, uint16_t flags) {
        StateBuilder out;
        for (const StateSection &section : parse_state(state))
            out.add(section.tag, section.version, section.payload, section.flags);
        Bytes note = {1, 2, 3};
        out.add(tag, version, note, flags);
        return load(*b, out.finish());
    };
    EXPECT_EQ(with(state_tag("note"), 7, 0), "");
    EXPECT_NE(with(state_tag("note"), 1, section_mandatory).find("newer"), std::string::npos);
    EXPECT_NE(with(state_tag("VIF "), 2, section_mandatory).find("version"), std::string::npos);
    Bytes later = state;
    later[state_magic.size()] = 2;
    EXPECT_NE(load(*b, sealed(later)).find("format 2"), std::string::npos);
}

TEST_P(State, TruncatedAtEveryLength) {
    auto a = make(), b = make();
    a->bring_up();
    port(*a).room = 0;
    a->tx.post(make_frame(100, 1, peer_mac, vif_mac));
    a->work();
    Bytes state = save(*a);
    for (size_t length = 0; length < state.size(); length++)
        ASSERT_NE(load(*b, std::span(state).first(length)), "") << length;
    EXPECT_EQ(load(*b, state), "");
}

TEST_P(State, FlippedBits) {
    auto a = make(), b = make();
    a->bring_up();
    b->bring_up();
    port(*a).room = 0;
    a->tx.post(make_frame(100, 1, peer_mac, vif_mac));
    a->work();
    Bytes state = save(*a);
    std::mt19937 random(4711);
    size_t refused = 0, taken = 0;
    for (unsigned n = 0; n < 4000; n++) {
        Bytes bad = state;
        for (unsigned flips = 1 + n % 3; flips > 0; flips--)
            bad[random() % bad.size()] ^= static_cast<uint8_t>(1u << random() % 8);
        if (bad == state)
            continue;
        EXPECT_NE(load(*b, bad), ""); // the checksum
        // Who can compute a checksum can write anything: the board must then be something that works.
        if (load(*b, sealed(bad)) != "") {
            refused++;
            continue;
        }
        taken++;
        b->work();
        b->sleep();
        save(*b);
    }
    EXPECT_GT(refused, 100u);
    EXPECT_GT(taken, 100u);
    b->reset();
    b->bring_up();
    b->tx.post(make_frame(100, 9, peer_mac, vif_mac));
    b->work();
    EXPECT_EQ(b->sent().back(), make_frame(100, 9, peer_mac, vif_mac));
}
