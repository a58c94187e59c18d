// SPDX-License-Identifier: GPL-2.0-or-later
/// What a driver tests itself with: frames that go back to its own VIF (SVIO_ENTRY_LOOP), and vectors raised
/// on request (SVIO_OP_TEST_SIGNAL).
#include "driver.hpp"

using namespace svio;
using namespace svio::test;

namespace {

/// On a netdev and on a port that a core polls.
class Loop : public testing::TestWithParam<bool> {
  protected:
    Loop() : rig(GetParam() ? polled_rig() : std::make_unique<Rig>()) { rig->bring_up(); }
    /// Posts a frame that is to come back, in one entry or two.
    void post(const Frame &frame, uint32_t first = 0) {
        SendRing &tx = rig->tx;
        uint32_t head = tx.next;
        tx.post(frame, first ? std::vector<uint32_t>{first} : std::vector<uint32_t>{});
        tx.set_flags(head, tx.flags(head) | SVIO_ENTRY_LOOP);
    }
    uint16_t test_signal(uint32_t vector) {
        svio_command command{};
        command.opcode = SVIO_OP_TEST_SIGNAL;
        command.slot = SVIO_SLOT_SELF;
        command.u.test_signal.vector = vector;
        return rig->command(command);
    }
    void set_link(bool up) {
        std::lock_guard guard(rig->lock);
        rig->vif->set_link(up);
    }
    std::unique_ptr<Rig> rig;
};

} // namespace

INSTANTIATE_TEST_SUITE_P(Every, Loop, testing::Bool(),
                         [](const auto &info) { return std::string(info.param ? "native" : "netdev"); });

TEST_P(Loop, FramesComeBackMarkedAndNeverReachTheWire) {
    rig->rx.post_all();
    rig->rx.set_signal_at(0);
    Frame one = make_frame(1514, 1), two = make_frame(300, 2), wire = make_frame(99, 3, peer_mac);
    post(one, 700);
    rig->tx.post(wire);
    post(two);
    rig->work();
    ASSERT_TRUE(rig->rx.ready());
    for (uint32_t position : {0u, 1u}) {
        EXPECT_EQ(rig->rx.flags(position) & SVIO_ENTRY_LOOP, uint32_t{SVIO_ENTRY_LOOP});
        rig->rx.set_flags(position, rig->rx.flags(position) & ~uint32_t{SVIO_ENTRY_LOOP});
    }
    EXPECT_EQ(rig->rx.take_all(), (std::vector<Frame>{one, two}));
    EXPECT_EQ(rig->sent(), std::vector<Frame>{wire});
    EXPECT_EQ(rig->tx.done(), 4u);
    EXPECT_EQ(rig->signals.count(Rig::receive_vector), 1u);
    EXPECT_EQ(rig->stat(SVIO_STAT_LOOPED), 2u);
    EXPECT_EQ(rig->stat(SVIO_STAT_TX_FRAMES), 1u);
    EXPECT_EQ(rig->stat(SVIO_STAT_RX_FRAMES), 2u);
    EXPECT_EQ(rig->send_stat(SVIO_QSTAT_MESSAGES), 3u);
}

TEST_P(Loop, GoesThroughTheFilterAndNeedsNoLink) {
    rig->rx.post_all();
    set_link(false);
    post(make_frame(100, 1, peer_mac));
    Frame mine = make_frame(100, 2);
    post(mine);
    rig->work();
    rig->rx.set_flags(0, rig->rx.flags(0) & ~uint32_t{SVIO_ENTRY_LOOP});
    EXPECT_EQ(rig->rx.take_all(), std::vector<Frame>{mine});
    EXPECT_EQ(rig->stat(SVIO_STAT_DROP_RX_FILTER), 1u);
    EXPECT_EQ(rig->stat(SVIO_STAT_LOOPED), 2u);
    EXPECT_TRUE(rig->sent().empty());
}

TEST_P(Loop, WithoutABufferItIsDroppedAndNotHeldBack) {
    post(make_frame(100, 1));
    Frame wire = make_frame(60, 2, peer_mac);
    rig->tx.post(wire);
    rig->work();
    EXPECT_EQ(rig->stat(SVIO_STAT_DROP_RX_NO_BUFFER), 1u);
    EXPECT_EQ(rig->tx.done(), 2u);
    EXPECT_EQ(rig->sent(), std::vector<Frame>{wire});
}

TEST_P(Loop, TheFlagNeedsTheFeature) {
    rig->reset();
    rig->bring_up(64, 2048, Vif::features & ~SVIO_F_LOOPBACK);
    post(make_frame(100, 1));
    rig->work();
    EXPECT_EQ(rig->queue(SVIO_SEND, SVIO_QUEUE_STATE), uint32_t{SVIO_QUEUE_ERROR | SVIO_QERR_FLAGS << 8});
    EXPECT_EQ(rig->stat(SVIO_STAT_LOOPED), 0u);
    // And a reset forgets it.
    rig->reset();
    rig->bring_up();
    rig->rx.post_all();
    post(make_frame(100, 1));
    rig->work();
    EXPECT_EQ(rig->stat(SVIO_STAT_LOOPED), 1u);
}

TEST_P(Loop, TestSignalRaisesEachVector) {
    for (uint32_t vector = 0; vector < SVIO_VECTORS; vector++) {
        EXPECT_EQ(test_signal(vector), SVIO_ST_OK);
        EXPECT_EQ(rig->signals.count(vector), 1u);
    }
    EXPECT_EQ(test_signal(SVIO_VECTORS), SVIO_ST_INVALID);
    EXPECT_EQ(test_signal(UINT32_MAX), SVIO_ST_INVALID);
    EXPECT_EQ(rig->signals.total(), uint64_t{SVIO_VECTORS});
    rig->set_dma(false);
    EXPECT_EQ(test_signal(0), SVIO_ST_STATE);
    EXPECT_EQ(rig->signals.total(), uint64_t{SVIO_VECTORS});
}

namespace {

/// An MSI-X entry that points at a register: raising the vector writes there.
class Reflector final : public Signals {
  public:
    void raise(unsigned) override {
        raised++;
        if (vif)
            vif->write_register(offset, value);
    }
    Vif *vif = nullptr;
    uint32_t offset = 0, value = 0;
    unsigned raised = 0;
};

} // namespace

TEST(TestSignal, ASignalIntoTheMailboxItselfIsABadAccess) {
    Rig rig;
    Reflector reflector;
    std::lock_guard guard(rig.lock);
    Vif &vif = rig.board->add_function({.slot = 1, .physical = false}, rig.ram, reflector);
    vif.create({.id = 2, .mac = vif_mac});
    vif.set_dma(true);
    reflector.vif = &vif;
    auto command = [&] {
        vif.write_register(SVIO_REG_MAILBOX, SVIO_OP_TEST_SIGNAL);
        vif.write_register(SVIO_REG_MAILBOX + 8, SVIO_SLOT_SELF);
        vif.write_register(SVIO_REG_MAILBOX_BELL, 1);
    };
    for (uint32_t offset : {uint32_t{SVIO_REG_MAILBOX_BELL}, uint32_t{SVIO_REG_MAILBOX + 12}}) {
        uint64_t bad = vif.counters.get(SVIO_STAT_BAD_REGISTER);
        reflector.offset = offset;
        command();
        EXPECT_EQ(vif.read_register(SVIO_REG_MAILBOX_STATE), uint32_t{SVIO_MAILBOX_DONE});
        EXPECT_EQ(vif.counters.get(SVIO_STAT_BAD_REGISTER), bad + 1);
    }
    EXPECT_EQ(reflector.raised, 2u);
    // A reset from inside leaves the mailbox as a reset does.
    reflector.offset = SVIO_REG_CONTROL;
    reflector.value = SVIO_CONTROL_RESET;
    command();
    EXPECT_EQ(vif.read_register(SVIO_REG_MAILBOX_STATE), uint32_t{SVIO_MAILBOX_IDLE});
    EXPECT_EQ(vif.read_register(SVIO_REG_MAILBOX), 0u);
    reflector.vif = nullptr;
}
