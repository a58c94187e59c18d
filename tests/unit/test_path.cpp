// SPDX-License-Identifier: GPL-2.0-or-later
/// The way between VIF and port: both directions, each drop reason, back-pressure. No threads.
#include "driver.hpp"

using namespace svio;
using namespace svio::test;

namespace {

class Path : public testing::TestWithParam<bool> {
  protected:
    void SetUp() override {
        rig = GetParam() ? polled_rig() : std::make_unique<Rig>();
        port = GetParam() ? static_cast<FakePort *>(rig->polled) : rig->push;
        rig->bring_up();
    }
    void arrive(const Frame &frame) {
        if (rig->polled)
            rig->polled->incoming.push_back(frame);
        else
            rig->offer(frame);
        rig->work();
    }
    size_t waiting() { return rig->polled ? rig->polled->incoming.size() : rig->push->held.size(); }
    void set_link(bool up) {
        std::lock_guard guard(rig->lock);
        rig->vif->set_link(up);
    }
    uint64_t drops() {
        uint64_t sum = 0;
        for (size_t n = SVIO_STAT_DROP_TX_RUNT; n <= SVIO_STAT_DROP_RX_BACKLOG; n++)
            sum += rig->stat(static_cast<svio_stat>(n));
        return sum;
    }
    std::unique_ptr<Rig> rig;
    FakePort *port = nullptr;
};

} // namespace

INSTANTIATE_TEST_SUITE_P(Ports, Path, testing::Bool(),
                         [](const auto &info) { return info.param ? "polled" : "pushing"; });

TEST_P(Path, AllLengthsBothWays) {
    for (size_t length = SVIO_FRAME_MIN; length < 2100; length += 13) {
        rig->rx.post_all();
        Frame in = make_frame(length, length), out = make_frame(length, length + 1, peer_mac, vif_mac);
        arrive(in);
        ASSERT_EQ(rig->rx.take_all(), std::vector<Frame>{in});
        ASSERT_LE(length, 2048u * 2);
        rig->tx.post(out, length > 2048 ? std::vector<uint32_t>{2048} : std::vector<uint32_t>{});
        rig->work();
        ASSERT_EQ(rig->sent().back(), out);
    }
    EXPECT_EQ(drops(), 0u);
    EXPECT_EQ(rig->core_stat(CoreSwitched),
              rig->stat(SVIO_STAT_TX_FRAMES) + (GetParam() ? rig->stat(SVIO_STAT_RX_FRAMES) : 0));
}

TEST_P(Path, EachDropOfSendingHasItsName) {
    port->frame_limit = 1000;
    uint64_t expected = 0;
    auto dropped = [&](svio_stat reason, uint64_t n) {
        EXPECT_EQ(rig->stat(reason), n);
        EXPECT_EQ(drops(), ++expected);
        EXPECT_EQ(rig->tx.done(), rig->tx.next) << "dropped frames are completed";
    };
    rig->tx.post(make_frame(13, 1));
    rig->work();
    dropped(SVIO_STAT_DROP_TX_RUNT, 1);
    rig->tx.post(make_frame(1, 1));
    rig->work();
    dropped(SVIO_STAT_DROP_TX_RUNT, 2);
    rig->tx.post(make_frame(1001, 1));
    rig->work();
    dropped(SVIO_STAT_DROP_TX_OVERSIZE, 1);
    port->failing = 1;
    rig->tx.post(make_frame(100, 1));
    rig->work();
    dropped(SVIO_STAT_DROP_TX_PORT_ERROR, 1);
    set_link(false);
    rig->tx.post(make_frame(100, 1));
    rig->work();
    dropped(SVIO_STAT_DROP_TX_LINK_DOWN, 1);
    EXPECT_TRUE(rig->sent().empty());
    set_link(true);
    // Between good ones a bad one takes none of them with it, and order holds.
    rig->tx.post(make_frame(14, 1));
    rig->tx.post(make_frame(13, 2));
    rig->tx.post(make_frame(1000, 3));
    rig->tx.post(make_frame(1001, 4));
    rig->tx.post(make_frame(60, 5));
    rig->work();
    EXPECT_EQ(rig->sent(), (std::vector<Frame>{make_frame(14, 1), make_frame(1000, 3), make_frame(60, 5)}));
    EXPECT_EQ(drops(), expected + 2);
    EXPECT_EQ(rig->queue(SVIO_SEND, SVIO_QUEUE_STATE), uint32_t{SVIO_QUEUE_RUNNING});
    EXPECT_EQ(rig->stat(SVIO_STAT_TX_FRAMES), 3u);
    EXPECT_EQ(rig->send_stat(SVIO_QSTAT_MESSAGES), 10u);
}

TEST_P(Path, EachDropOfReceptionHasItsName) {
    uint64_t expected = 0;
    auto dropped = [&](svio_stat reason, uint64_t n) {
        EXPECT_EQ(rig->stat(reason), n);
        EXPECT_EQ(drops(), ++expected);
        EXPECT_EQ(waiting(), 0u);
    };
    rig->rx.post_all();
    arrive(make_frame(13, 1));
    dropped(SVIO_STAT_DROP_RX_RUNT, 1);
    arrive({});
    dropped(SVIO_STAT_DROP_RX_RUNT, 2);
    arrive(make_frame(60, 1, peer_mac));
    dropped(SVIO_STAT_DROP_RX_FILTER, 1);
    set_link(false);
    arrive(make_frame(60, 1));
    dropped(SVIO_STAT_DROP_RX_LINK_DOWN, 1);
    set_link(true);
    rig->write(SVIO_REG_CONTROL, 0);
    arrive(make_frame(60, 1));
    dropped(SVIO_STAT_DROP_RX_NOT_RUNNING, 1);
    rig->write(SVIO_REG_CONTROL, SVIO_CONTROL_RUN);
    rig->set_queue(SVIO_RECEIVE, SVIO_QUEUE_CONTROL, 0);
    arrive(make_frame(60, 1));
    dropped(SVIO_STAT_DROP_RX_NOT_RUNNING, 2);
    rig->lay_out(rig->rx, 16, 64);
    rig->program(SVIO_RECEIVE, rig->rx, Rig::receive_vector);
    rig->rx.post_all();
    arrive(make_frame(16 * 64 + 1, 1));
    dropped(SVIO_STAT_DROP_RX_TOO_LONG, 1);
    EXPECT_EQ(rig->stat(SVIO_STAT_RX_FRAMES), 0u);
    EXPECT_FALSE(rig->rx.ready());
    arrive(make_frame(60, 1));
    EXPECT_EQ(rig->rx.take_all(), std::vector<Frame>{make_frame(60, 1)});
    rig->rx.fill(rig->rx.next - 15, FakeRam::base, 0);
    arrive(make_frame(60, 1));
    dropped(SVIO_STAT_DROP_RX_QUEUE_ERROR, 1);
}

TEST_P(Path, LinkDownAndUpIsAnEventAndReadable) {
    set_link(false);
    EXPECT_EQ(rig->read(SVIO_REG_STATUS) & SVIO_STATUS_LINK_UP, 0u);
    EXPECT_EQ(rig->read(SVIO_REG_EVENT), uint32_t{SVIO_EVENT_LINK});
    EXPECT_EQ(rig->signals.count(Rig::event_vector), 1u);
    set_link(true);
    EXPECT_NE(rig->read(SVIO_REG_STATUS) & SVIO_STATUS_LINK_UP, 0u);
    EXPECT_EQ(rig->signals.count(Rig::event_vector), 2u);
    set_link(false);
    rig->reset();
    EXPECT_EQ(rig->read(SVIO_REG_STATUS), uint32_t{SVIO_STATUS_READY}) << "a reset does not mend the cable";
}

TEST_P(Path, AFullReceiveQueueHoldsTheWireAndLosesNothing) {
    rig->rx.post(3);
    for (uint64_t n = 0; n < 40; n++)
        arrive(make_frame(60 + n, n));
    EXPECT_EQ(rig->rx.take_all().size(), 3u);
    EXPECT_EQ(waiting(), 37u);
    EXPECT_EQ(drops(), 0u);
    EXPECT_GE(rig->receive_stat(SVIO_QSTAT_FULL), 1u);
    EXPECT_TRUE(rig->sleep());
    EXPECT_EQ(rig->rx.bell_at(), 3u) << "the bell waits for a refill";
    uint64_t next = 3;
    for (uint32_t refill : {1u, 2u, 5u, 29u}) {
        uint32_t from = rig->rx.next;
        rig->rx.post(refill);
        EXPECT_TRUE(rig->kick(SVIO_RECEIVE, rig->rx, from));
        rig->work();
        for (const Frame &frame : rig->rx.take_all()) {
            EXPECT_EQ(frame, make_frame(60 + next, next));
            next++;
        }
        rig->sleep();
    }
    EXPECT_EQ(next, 40u);
    EXPECT_EQ(waiting(), 0u);
    EXPECT_EQ(rig->receive_stat(SVIO_QSTAT_BELLS), 4u);
}

TEST_P(Path, ARefillWithoutNeedRingsNoBell) {
    rig->rx.post(16);
    arrive(make_frame(60, 1));
    rig->sleep();
    uint32_t from = rig->rx.next;
    rig->rx.post(16);
    EXPECT_FALSE(rig->rx.must_ring(from)) << "nobody waits for buffers";
}

TEST_P(Path, ABlockedPortHoldsTheSendQueue) {
    port->room = 5;
    for (uint64_t n = 0; n < 60; n++)
        rig->tx.post(make_frame(60, n));
    rig->work();
    EXPECT_EQ(rig->sent().size(), 5u);
    EXPECT_EQ(rig->tx.done(), 32u) << "one batch, and no more while the port is blocked";
    EXPECT_GE(rig->core_stat(CorePortBlocked), 1u);
    uint64_t armed = rig->send_stat(SVIO_QSTAT_BELLS_ARMED);
    EXPECT_TRUE(rig->sleep());
    EXPECT_EQ(rig->send_stat(SVIO_QSTAT_BELLS_ARMED), armed) << "no bell helps a blocked port";
    for (size_t room : {1u, 10u, 20u, 100u}) {
        port->unblock(room);
        rig->board->port_ready();
        rig->work();
    }
    ASSERT_EQ(rig->sent().size(), 60u);
    for (uint64_t n = 0; n < 60; n++)
        EXPECT_EQ(rig->sent()[n], make_frame(60, n));
    EXPECT_EQ(rig->tx.done(), 60u);
    EXPECT_EQ(drops(), 0u);
}

TEST_P(Path, FramesOfABlockedPortAreDroppedAndCountedAtReset) {
    port->room = 2;
    for (uint64_t n = 0; n < 10; n++)
        rig->tx.post(make_frame(60, n));
    rig->work();
    rig->reset();
    EXPECT_EQ(rig->stat(SVIO_STAT_DROP_TX_RESET), 8u);
    EXPECT_EQ(port->purges, 1);
    EXPECT_EQ(rig->ram.windows(), 0);
    port->unblock(100);
    rig->board->port_ready();
    rig->work();
    EXPECT_EQ(rig->sent().size(), 2u);
    rig->bring_up();
    rig->tx.post(make_frame(60, 77));
    rig->work();
    EXPECT_EQ(rig->sent().back(), make_frame(60, 77));
}

TEST_P(Path, TwoRigsOfOneKindShareNothing) {
    auto other = GetParam() ? polled_rig() : std::make_unique<Rig>();
    other->bring_up();
    rig->tx.post(make_frame(60, 1));
    rig->work();
    other->work();
    EXPECT_EQ(rig->sent().size(), 1u);
    EXPECT_TRUE(other->sent().empty());
    EXPECT_EQ(other->stat(SVIO_STAT_TX_FRAMES), 0u);
}

// ---- the port that pushes ----

namespace {

class Pushing : public testing::Test {
  protected:
    void SetUp() override { rig.bring_up(); }
    /// A frame while the receive queue is in other hands.
    void offer_busy(const Frame &frame) {
        std::lock_guard busy(rig.vif->receive_queue().mutex);
        std::thread([&] { rig.offer(frame); }).join();
    }
    Rig rig;
};

} // namespace

TEST_F(Pushing, TheNetdevMayAnswerInsideOfSend) {
    rig.rx.post_all();
    rig.push->echo = 3;
    rig.tx.post(make_frame(60, 1));
    rig.work();
    EXPECT_EQ(rig.sent().size(), 1u);
    EXPECT_EQ(rig.rx.take_all(),
              (std::vector<Frame>{make_frame(60, 4003), make_frame(60, 4002), make_frame(60, 4001)}));
}

TEST_F(Pushing, ABusyQueueGoesTheWayOfTheBacklogInOrder) {
    rig.rx.post_all();
    offer_busy(make_frame(60, 0));
    EXPECT_TRUE(rig.board->core(0).has_backlog());
    EXPECT_TRUE(rig.push->held.empty());
    // Behind it frames wait in the port, although the queue is free now.
    rig.offer(make_frame(60, 1));
    rig.offer(make_frame(60, 2));
    EXPECT_EQ(rig.push->held.size(), 2u);
    EXPECT_FALSE(rig.rx.ready());
    rig.work();
    EXPECT_TRUE(rig.push->held.empty()) << "the port is asked again";
    EXPECT_EQ(rig.rx.take_all(),
              (std::vector<Frame>{make_frame(60, 0), make_frame(60, 1), make_frame(60, 2)}));
    EXPECT_EQ(rig.core_stat(CoreBacklogged), 1u);
    EXPECT_EQ(rig.stat(SVIO_STAT_RX_FRAMES), 3u);
}

TEST_F(Pushing, ABacklogWithoutBuffersArmsTheBell) {
    offer_busy(make_frame(60, 0));
    rig.work();
    rig.offer(make_frame(60, 1));
    EXPECT_TRUE(rig.sleep());
    EXPECT_EQ(rig.rx.bell_at(), 0u);
    EXPECT_GE(rig.receive_stat(SVIO_QSTAT_BELLS_ARMED), 1u);
    rig.rx.post_all();
    EXPECT_TRUE(rig.kick(SVIO_RECEIVE, rig.rx, 0));
    rig.work();
    EXPECT_EQ(rig.rx.take_all(), (std::vector<Frame>{make_frame(60, 0), make_frame(60, 1)}));
}

TEST_F(Pushing, TheBacklogIsForgottenAndCountedAtReset) {
    offer_busy(make_frame(60, 0));
    rig.offer(make_frame(60, 1));
    rig.reset();
    EXPECT_EQ(rig.stat(SVIO_STAT_DROP_RX_RESET), 1u);
    EXPECT_EQ(rig.stat(SVIO_STAT_DROP_RX_NOT_RUNNING), 1u) << "the one in the port";
    EXPECT_TRUE(rig.push->held.empty());
    rig.bring_up();
    rig.rx.post_all();
    rig.offer(make_frame(60, 2));
    EXPECT_EQ(rig.rx.take_all(), std::vector<Frame>{make_frame(60, 2)});
}

TEST_F(Pushing, TheBacklogIsBounded) {
    for (size_t n = 0; n < Core::backlog_max; n++)
        ASSERT_TRUE(rig.board->core(0).push_backlog(*rig.vif, make_frame(60, n)));
    EXPECT_FALSE(rig.board->core(0).push_backlog(*rig.vif, make_frame(60, 0)));
    std::vector<Frame> got;
    for (unsigned n = 0; n < 100 && got.size() < Core::backlog_max; n++) {
        rig.rx.post_all();
        rig.write(SVIO_BELL(0, SVIO_RECEIVE), 1);
        rig.work();
        for (Frame &frame : rig.rx.take_all())
            got.push_back(std::move(frame));
    }
    ASSERT_EQ(got.size(), Core::backlog_max);
    for (size_t n = 0; n < got.size(); n++)
        EXPECT_EQ(sequence_of(got[n]), n);
}

TEST_F(Pushing, ABufferPostedWhileTheBellIsArmedIsFoundAtOnce) {
    // The driver posts between our look and our store of bell_at, and so does not ring.
    struct Racing final : public GuestMemory {
        explicit Racing(Rig &r) : rig(r) {}
        bool read(uint64_t a, void *to, size_t n) override { return rig.ram.read(a, to, n); }
        bool write(uint64_t a, const void *from, size_t n) override { return rig.ram.write(a, from, n); }
        struct Spy final : public Window {
            Spy(Racing &o, std::unique_ptr<Window> w) : owner(o), inner(std::move(w)) {}
            bool load(size_t o, void *to, size_t n) override { return inner->load(o, to, n); }
            bool store(size_t o, const void *from, size_t n) override {
                if (o == offsetof(svio_queue_event, bell_at) && owner.armed++ == 0 && owner.enabled)
                    owner.rig.rx.post(1);
                return inner->store(o, from, n);
            }
            void written(size_t, size_t) override {}
            uint8_t *direct() const override { return nullptr; }
            Racing &owner;
            std::unique_ptr<Window> inner;
        };
        std::unique_ptr<Window> open(uint64_t a, size_t n) override {
            return std::make_unique<Spy>(*this, rig.ram.open(a, n));
        }
        Rig &rig;
        bool enabled = false;
        int armed = 0;
    };
    Racing racing(rig);
    std::lock_guard guard(rig.lock);
    Vif &vif = rig.board->add_function({.slot = 1, .physical = false}, racing, rig.signals);
    vif.create({.id = 2, .mac = vif_mac});
    vif.set_dma(true);
    vif.write_register(SVIO_REG_CONTROL, SVIO_CONTROL_FEATURES_OK);
    auto set = [&](uint32_t reg, uint64_t value) {
        vif.write_register(SVIO_QUEUE_REG(0, SVIO_RECEIVE, reg), static_cast<uint32_t>(value));
    };
    set(SVIO_QUEUE_BASE_LO, rig.rx.base);
    set(SVIO_QUEUE_BASE_HI, rig.rx.base >> 32);
    set(SVIO_QUEUE_EVENT_LO, rig.rx.event);
    set(SVIO_QUEUE_EVENT_HI, rig.rx.event >> 32);
    set(SVIO_QUEUE_SIZE, 64);
    set(SVIO_QUEUE_CONTROL, 1);
    vif.write_register(SVIO_REG_CONTROL, SVIO_CONTROL_RUN);
    racing.enabled = true;
    racing.armed = 0;
    Vif::Arrival arrival;
    EXPECT_EQ(vif.receive_locked(make_frame(60, 5), {}, arrival), Vif::Delivery::Delivered);
    EXPECT_EQ(rig.rx.take(), make_frame(60, 5));
    EXPECT_EQ(vif.receive_locked(make_frame(60, 6), {}, arrival), Vif::Delivery::Full);
    vif.destroy();
}
