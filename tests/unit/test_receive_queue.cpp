// SPDX-License-Identifier: GPL-2.0-or-later
#include "driver.hpp"

using namespace svio;
using namespace svio::test;

namespace {

class Receiving : public testing::TestWithParam<bool> {
  protected:
    Rig rig{RigOptions{.direct = GetParam()}};
    uint32_t state() { return rig.queue(SVIO_RECEIVE, SVIO_QUEUE_STATE); }
};

constexpr uint32_t running = SVIO_QUEUE_RUNNING;

} // namespace

INSTANTIATE_TEST_SUITE_P(Windows, Receiving, testing::Bool(),
                         [](const auto &info) { return info.param ? "direct" : "slow"; });

TEST_P(Receiving, OneFrameEachByteAndEachCounter) {
    rig.bring_up();
    rig.rx.post(3);
    Frame frame = make_frame(1514, 5);
    rig.offer(frame);
    ASSERT_TRUE(rig.rx.ready());
    svio_entry entry = rig.rx.entry(0);
    EXPECT_EQ(entry.len, 1514u);
    EXPECT_EQ(entry.flags, SVIO_ENTRY_POSTED | SVIO_ENTRY_DONE);
    EXPECT_EQ(rig.rx.take(), frame);
    EXPECT_FALSE(rig.rx.ready());
    EXPECT_EQ(rig.queue(SVIO_RECEIVE, SVIO_QUEUE_POSITION), 1u);
    EXPECT_EQ(rig.stat(SVIO_STAT_RX_FRAMES), 1u);
    EXPECT_EQ(rig.stat(SVIO_STAT_RX_BYTES), 1514u);
    EXPECT_EQ(rig.receive_stat(SVIO_QSTAT_MESSAGES), 1u);
    EXPECT_EQ(rig.receive_stat(SVIO_QSTAT_BYTES), 1514u);
    EXPECT_EQ(rig.receive_stat(SVIO_QSTAT_POSTED), 1u);
}

TEST_P(Receiving, NothingOutsideOfTheUsedBytesIsWritten) {
    rig.bring_up();
    rig.rx.post(1);
    std::memset(rig.ram.at(rig.rx.buffer_at(0), 2048), 0xa5, 2048);
    rig.offer(make_frame(61, 1));
    for (unsigned i = 61; i < 2048; i++)
        ASSERT_EQ(*rig.ram.at(rig.rx.buffer_at(0) + i), 0xa5);
}

class ReceiveSizes : public testing::TestWithParam<std::tuple<uint32_t, bool>> {};

INSTANTIATE_TEST_SUITE_P(All, ReceiveSizes,
                         testing::Combine(testing::Values(16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
                                          testing::Bool()));

TEST_P(ReceiveSizes, FullRingsOverManyLaps) {
    auto [size, direct] = GetParam();
    Rig rig({.direct = direct, .ram = size_t{4} << 20});
    rig.bring_up(size, 64);
    uint64_t sequence = 0;
    for (unsigned lap = 0; lap < 5; lap++) {
        rig.rx.post_all();
        for (uint32_t i = 0; i < size; i++)
            rig.offer(make_frame(30 + (sequence + i) % 34, sequence + i));
        ASSERT_TRUE(rig.push->held.empty());
        std::vector<Frame> frames = rig.rx.take_all();
        ASSERT_EQ(frames.size(), size);
        for (const Frame &frame : frames) {
            ASSERT_EQ(frame, make_frame(30 + sequence % 34, sequence));
            sequence++;
        }
    }
    EXPECT_EQ(rig.queue(SVIO_RECEIVE, SVIO_QUEUE_POSITION), 5 * size);
    EXPECT_EQ(rig.receive_stat(SVIO_QSTAT_FULL), 0u);
}

TEST_P(Receiving, ChainExactFitAndOneByteOver) {
    rig.bring_up(64, 256);
    rig.rx.post_all();
    Frame exact = make_frame(512, 1), over = make_frame(513, 2), one = make_frame(256, 3);
    rig.offer(exact);
    EXPECT_EQ(rig.queue(SVIO_RECEIVE, SVIO_QUEUE_POSITION), 2u);
    rig.offer(over);
    EXPECT_EQ(rig.queue(SVIO_RECEIVE, SVIO_QUEUE_POSITION), 5u);
    EXPECT_EQ(rig.rx.entry(4).len, 1u);
    rig.offer(one);
    EXPECT_EQ(rig.queue(SVIO_RECEIVE, SVIO_QUEUE_POSITION), 6u);
    EXPECT_EQ(rig.rx.take_all(), (std::vector<Frame>{exact, over, one}));
    EXPECT_EQ(rig.receive_stat(SVIO_QSTAT_CHAINED), 2u);
}

TEST_P(Receiving, EveryBufferButTheLastIsUsedWhole) {
    rig.bring_up(64, 2048);
    for (uint32_t length : {100u, 14u, 1u, 1000u, 600u})
        rig.rx.post(1, length);
    Frame frame = make_frame(1200, 8);
    rig.offer(frame);
    uint32_t used[] = {100, 14, 1, 1000, 85};
    for (uint32_t i = 0; i < 5; i++) {
        EXPECT_EQ(rig.rx.entry(i).len, used[i]);
        EXPECT_EQ(rig.rx.entry(i).flags & SVIO_ENTRY_MORE, i < 4 ? 1u : 0u);
    }
    EXPECT_EQ(rig.rx.take(), frame);
}

TEST_P(Receiving, ChainOf32EntriesAndOneThatWouldNeed33) {
    rig.bring_up(64, 32);
    rig.rx.post_all();
    Frame longest = make_frame(32 * SVIO_CHAIN_MAX, 1), too_long = make_frame(32 * SVIO_CHAIN_MAX + 1, 2);
    rig.offer(too_long);
    EXPECT_EQ(rig.queue(SVIO_RECEIVE, SVIO_QUEUE_POSITION), 0u) << "a dropped message takes no entry";
    EXPECT_EQ(rig.stat(SVIO_STAT_DROP_RX_TOO_LONG), 1u);
    rig.offer(longest);
    EXPECT_EQ(rig.rx.take_all(), std::vector<Frame>{longest});
    EXPECT_EQ(state(), running);
}

TEST_P(Receiving, WithoutTheFeatureAMessageHasOneBuffer) {
    rig.bring_up(64, 256, SVIO_F_MODERATION);
    rig.rx.post_all();
    Frame fits = make_frame(256, 1);
    rig.offer(make_frame(257, 2));
    EXPECT_EQ(rig.stat(SVIO_STAT_DROP_RX_TOO_LONG), 1u);
    EXPECT_EQ(rig.queue(SVIO_RECEIVE, SVIO_QUEUE_POSITION), 0u);
    rig.offer(fits);
    EXPECT_EQ(rig.rx.take_all(), std::vector<Frame>{fits});
}

TEST_P(Receiving, TheWholeMessageOrNothing) {
    rig.bring_up(64, 256);
    rig.rx.post(3);
    std::memset(rig.ram.at(rig.rx.buffers, 4 * 256), 0x5a, 4 * 256);
    Frame frame = make_frame(800, 1);
    rig.offer(frame); // needs four
    EXPECT_EQ(rig.push->held.size(), 1u);
    EXPECT_EQ(rig.queue(SVIO_RECEIVE, SVIO_QUEUE_POSITION), 0u);
    EXPECT_FALSE(rig.rx.ready());
    for (uint32_t i = 0; i < 3; i++)
        EXPECT_EQ(rig.rx.flags(i), uint32_t{SVIO_ENTRY_POSTED});
    for (unsigned i = 0; i < 3 * 256; i++)
        ASSERT_EQ(*rig.ram.at(rig.rx.buffers + i), 0x5a);
    EXPECT_EQ(rig.rx.bell_at(), 3u) << "the bell waits for the buffer that lacked";
    EXPECT_GE(rig.receive_stat(SVIO_QSTAT_FULL), 1u);
    uint32_t from = rig.rx.next;
    rig.rx.post(1);
    EXPECT_TRUE(rig.kick(SVIO_RECEIVE, rig.rx, from));
    EXPECT_EQ(rig.rx.take_all(), std::vector<Frame>{frame});
    EXPECT_TRUE(rig.push->held.empty());
}

TEST_P(Receiving, AChainThatCouldNeverFitASmallRingIsDropped) {
    rig.bring_up(16, 64);
    rig.rx.post_all();
    rig.offer(make_frame(16 * 64 + 1, 1));
    EXPECT_EQ(rig.stat(SVIO_STAT_DROP_RX_TOO_LONG), 1u);
    EXPECT_TRUE(rig.push->held.empty());
    Frame fits = make_frame(16 * 64, 2);
    rig.offer(fits);
    EXPECT_EQ(rig.rx.take_all(), std::vector<Frame>{fits});
}

TEST_P(Receiving, ChainsThatWrapTheRing) {
    rig.bring_up(16, 64);
    for (uint64_t n = 0; n < 200; n++) {
        rig.rx.post_all();
        Frame frame = make_frame(64 * 4 + 30, n);
        rig.offer(frame);
        ASSERT_EQ(rig.rx.take_all(), std::vector<Frame>{frame});
    }
    EXPECT_EQ(rig.queue(SVIO_RECEIVE, SVIO_QUEUE_POSITION), 1000u);
}

TEST_P(Receiving, ACompletedRingIsNotPostedAgainByItself) {
    rig.bring_up(16);
    rig.rx.post_all();
    for (uint64_t n = 0; n < 18; n++)
        rig.offer(make_frame(60, n));
    EXPECT_EQ(rig.push->held.size(), 2u);
    EXPECT_EQ(rig.rx.take_all().size(), 16u);
    rig.write(SVIO_BELL(0, SVIO_RECEIVE), 1); // a bell without a buffer is harmless
    EXPECT_EQ(rig.push->held.size(), 2u);
    EXPECT_EQ(rig.rx.bell_at(), 16u);
    EXPECT_FALSE(rig.rx.ready());
}

TEST_P(Receiving, FlagsThatADriverShouldNotSetAreIgnored) {
    rig.bring_up(64, 256);
    rig.rx.fill(0, rig.rx.buffer_at(0), 256);
    // DONE already set, MORE set, and the rest as well: POSTED alone decides.
    rig.rx.set_flags(0, 0xffffffff);
    rig.rx.next = 1;
    Frame frame = make_frame(100, 1);
    rig.offer(frame);
    EXPECT_EQ(rig.rx.entry(0).flags, SVIO_ENTRY_POSTED | SVIO_ENTRY_DONE);
    EXPECT_EQ(rig.queue(SVIO_RECEIVE, SVIO_QUEUE_POSITION), 1u);
    EXPECT_EQ(rig.rx.take(), frame);
}

TEST_P(Receiving, EmptyBufferAndBadAddressAreErrorsOfThisQueueAlone) {
    struct {
        uint64_t address;
        uint32_t length;
        uint32_t code;
    } cases[] = {
        {FakeRam::base, 0, SVIO_QERR_EMPTY},
        {0, 256, SVIO_QERR_DMA},
        {FakeRam::base + rig.ram.size() - 10, 256, SVIO_QERR_DMA},
        {UINT64_MAX - 5, 256, SVIO_QERR_DMA},
    };
    uint64_t errors = 0;
    for (auto [address, length, code] : cases) {
        for (bool second : {false, true}) {
            rig.bring_up(64, 64);
            if (second)
                rig.rx.post(1);
            rig.rx.fill(rig.rx.next, address, length);
            rig.rx.set_flags(rig.rx.next, SVIO_ENTRY_POSTED);
            rig.rx.next++;
            rig.rx.post(3);
            uint64_t events = rig.signals.count(Rig::event_vector);
            rig.offer(make_frame(100, 1));
            errors++;
            EXPECT_EQ(state(), SVIO_QUEUE_ERROR | code << 8);
            EXPECT_EQ(rig.queue(SVIO_RECEIVE, SVIO_QUEUE_POSITION), 0u);
            EXPECT_FALSE(rig.rx.ready());
            EXPECT_EQ(rig.stat(SVIO_STAT_DROP_RX_QUEUE_ERROR), 2 * errors - 1);
            EXPECT_EQ(rig.stat(SVIO_STAT_QUEUE_ERRORS), errors);
            EXPECT_EQ(rig.read(SVIO_REG_EVENT), uint32_t{SVIO_EVENT_QUEUE_ERROR});
            EXPECT_EQ(rig.signals.count(Rig::event_vector), events + 1);
            // A queue in error drops, rather than hold the wire for ever.
            rig.offer(make_frame(60, 2));
            EXPECT_TRUE(rig.push->held.empty());
            EXPECT_EQ(rig.stat(SVIO_STAT_DROP_RX_QUEUE_ERROR), 2 * errors);
            rig.tx.post(make_frame(60, 3));
            rig.push->sent.clear();
            rig.work();
            EXPECT_EQ(rig.push->sent.size(), 1u) << "the send queue goes on";
            rig.reset();
        }
    }
}

TEST_P(Receiving, HeadIsPublishedLast) {
    rig.bring_up(64, 64);
    rig.rx.post_all();
    Frame frame = make_frame(64 * 6, 1);
    std::atomic<bool> stop{false};
    std::atomic<uint64_t> early{0}, seen{0};
    std::thread guest([&] {
        // A guest that looks at all times: whenever the head is done, the chain must be.
        for (uint32_t head = 0; !stop;) {
            if (!rig.rx.completed(head))
                continue;
            for (uint32_t i = 1; i < 6; i++)
                early += !rig.rx.completed(head + i);
            seen++;
            head = (head + 6) % 60;
            if (head == 0)
                break;
        }
    });
    for (unsigned n = 0; n < 10; n++)
        rig.offer(frame);
    EXPECT_TRUE(eventually([&] { return seen == 10; }));
    stop = true;
    guest.join();
    EXPECT_EQ(early, 0u);
    EXPECT_EQ(rig.rx.take_all(), std::vector<Frame>(10, frame));
}

// ---- the order of stores, exactly ----

namespace {

/// A slow window that writes down the offsets of stores.
class TracedRam final : public GuestMemory {
  public:
    explicit TracedRam(FakeRam &ram) : ram_(ram) {}
    bool read(uint64_t address, void *to, size_t length) override { return ram_.read(address, to, length); }
    bool write(uint64_t address, const void *from, size_t length) override {
        order.push_back("data");
        return ram_.write(address, from, length);
    }
    std::unique_ptr<Window> open(uint64_t address, size_t length) override {
        auto window = ram_.open(address, length);
        return window ? std::make_unique<Traced>(*this, std::move(window)) : nullptr;
    }
    std::vector<std::string> order;

  private:
    class Traced final : public Window {
      public:
        Traced(TracedRam &owner, std::unique_ptr<Window> inner) : owner_(owner), inner_(std::move(inner)) {}
        bool load(size_t offset, void *to, size_t length) override {
            return inner_->load(offset, to, length);
        }
        bool store(size_t offset, const void *from, size_t length) override {
            owner_.order.push_back(std::to_string(offset / 32) + (offset % 32 == 28 ? " flags" : " entry"));
            return inner_->store(offset, from, length);
        }
        void written(size_t offset, size_t length) override { inner_->written(offset, length); }
        uint8_t *direct() const override { return nullptr; }

      private:
        TracedRam &owner_;
        std::unique_ptr<Window> inner_;
    };
    FakeRam &ram_;
};

struct FarReceive : ReceiveQueue {
    void go_to(uint32_t position, Clock &clock) {
        advance(position, 0, clock);
        signal_due(clock, true);
    }
};

} // namespace

TEST(ReceiveQueue, StoresDataThenEntriesThenTheHead) {
    Rig rig({.direct = false});
    rig.bring_up(64, 64);
    TracedRam traced(rig.ram);
    ReceiveQueue queue;
    queue.regs = {.base = rig.rx.base, .event = rig.rx.event, .size = 64, .vector = 3, .moderation = 0};
    queue.start(traced, 64);
    rig.rx.post_all();
    traced.order.clear();
    uint32_t missing = 0;
    Frame frame = make_frame(150, 1);
    ASSERT_EQ(queue.deliver(traced, Message(frame), true, rig.clock, missing),
              ReceiveQueue::Result::Delivered);
    EXPECT_EQ(traced.order, (std::vector<std::string>{"data", "data", "data", "2 entry", "2 flags", "1 entry",
                                                      "1 flags", "0 entry", "0 flags"}));
    EXPECT_EQ(rig.rx.take(), frame);
}

TEST(ReceiveQueue, PositionsWrapAt32Bits) {
    for (bool direct : {true, false}) {
        for (uint32_t size : {16u, 4096u}) {
            Rig rig({.direct = direct});
            rig.bring_up(size, 64);
            FarReceive queue;
            queue.regs = {
                .base = rig.rx.base, .event = rig.rx.event, .size = size, .vector = 3, .moderation = 0};
            queue.start(rig.ram, 4096);
            uint32_t start = 0u - 7;
            queue.go_to(start, rig.clock);
            rig.rx.next = rig.rx.clean = start;
            for (uint32_t i = 0; i < size; i++)
                rig.rx.set_flags(start + i,
                                 rig.rx.lap_flag(start + i, SVIO_ENTRY_POSTED) ^ SVIO_ENTRY_POSTED);
            rig.rx.set_signal_at(0xffffffff);
            unsigned signals = 0;
            for (uint64_t n = 0; n < 30; n++) {
                uint32_t missing = 99;
                Frame frame = make_frame(100, n);
                EXPECT_EQ(queue.deliver(rig.ram, Message(frame), true, rig.clock, missing),
                          ReceiveQueue::Result::Full);
                EXPECT_EQ(missing, 0u);
                rig.rx.post(1);
                EXPECT_EQ(queue.deliver(rig.ram, Message(frame), true, rig.clock, missing),
                          ReceiveQueue::Result::Full);
                EXPECT_EQ(missing, 1u);
                EXPECT_FALSE(queue.arm_bell(missing));
                uint32_t from = rig.rx.next;
                rig.rx.post(1);
                EXPECT_TRUE(rig.rx.must_ring(from));
                ASSERT_EQ(queue.deliver(rig.ram, Message(frame), true, rig.clock, missing),
                          ReceiveQueue::Result::Delivered);
                ASSERT_EQ(rig.rx.take(), frame);
                bool due = queue.signal_due(rig.clock, false);
                EXPECT_EQ(due, n == 3) << "position 2^32 - 1 lies in the fourth message";
                signals += due;
            }
            EXPECT_EQ(signals, 1u);
        }
    }
}
