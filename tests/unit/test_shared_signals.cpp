// SPDX-License-Identifier: GPL-2.0-or-later
/// signals=shared: who is signalled for whom.
#include "driver.hpp"

using namespace svio;
using namespace svio::test;

namespace {

/// Ten slots, whose own signals are written down each; those of the rig's VIF, the PF, are the rig's.
struct Shared : testing::Test {
    void SetUp() override {
        RigOptions options;
        options.shared_signals = true;
        rig = std::make_unique<Rig>(options);
        for (uint32_t slot = 1; slot < 10; slot++) {
            FunctionConfig config{.mac = {2, 0, 0, 0, 0, static_cast<uint8_t>(slot)},
                                  .id = slot + 1,
                                  .slot = slot,
                                  .physical = false};
            logs.push_back(std::make_unique<SignalLog>(rig->lock));
            rig->board->add_vif(config, rig->ram, *logs.back());
        }
    }
    SignalLog &log(unsigned slot) { return *logs[slot - 1]; }
    /// Raises a vector of a slot, as its driver's self test does.
    void test_signal(unsigned slot, unsigned vector) {
        std::lock_guard guard(rig->lock);
        rig->board->vif(slot).signals().raise(vector);
    }
    uint64_t redundant(unsigned slot) {
        return rig->board->vif(slot).counters.get(SVIO_STAT_SIGNALS_REDUNDANT);
    }

    std::unique_ptr<Rig> rig;
    std::vector<std::unique_ptr<SignalLog>> logs;
};

} // namespace

TEST_F(Shared, EveryEighthSlotIsSignalledToo) {
    rig->bring_up();
    test_signal(8, 4);
    EXPECT_EQ(log(8).count(4), 1u);
    // The PF, which runs, gets what its queues have; it was not meant.
    EXPECT_EQ(rig->signals.count(Rig::send_vector), 1u);
    EXPECT_EQ(rig->signals.count(Rig::receive_vector), 1u);
    EXPECT_EQ(rig->signals.total(), 2u);
    EXPECT_EQ(redundant(0), 1u);
    for (unsigned slot : {1, 2, 3, 4, 5, 6, 7, 9})
        EXPECT_EQ(log(slot).total(), 0u) << slot;
    EXPECT_EQ(rig->read(SVIO_REG_SIGNALS), 1u);
}

TEST_F(Shared, WhoDoesNotRunIsLeftAlone) {
    test_signal(1, 2);
    EXPECT_EQ(log(1).count(2), 1u);
    EXPECT_EQ(log(9).total(), 0u);
    EXPECT_EQ(redundant(9), 0u);
    EXPECT_EQ(rig->signals.total(), 0u);
}

TEST_F(Shared, TheIdentifierIsClearedByWritingOnes) {
    test_signal(1, 2);
    test_signal(7, 2);
    test_signal(9, 2);
    EXPECT_EQ(rig->read(SVIO_REG_SIGNALS), 0x82u);
    rig->write(SVIO_REG_SIGNALS, 0x02);
    EXPECT_EQ(rig->read(SVIO_REG_SIGNALS), 0x80u);
    EXPECT_EQ(rig->stat(SVIO_STAT_BAD_REGISTER), 0u);
}

TEST(OwnSignals, TheIdentifierIsAHole) {
    Rig rig;
    EXPECT_EQ(rig.read(SVIO_REG_SIGNALS), 0u);
    rig.write(SVIO_REG_SIGNALS, 1);
    EXPECT_EQ(rig.stat(SVIO_STAT_BAD_REGISTER), 2u);
}
