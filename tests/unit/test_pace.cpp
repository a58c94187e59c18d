// SPDX-License-Identifier: GPL-2.0-or-later
#include "pace.hpp"

#include <gtest/gtest.h>

using svio::Pace;

namespace {

void send(Pace &pace, size_t n, uint64_t gap_ns, uint64_t &now) {
    for (size_t i = 0; i < n; i++) {
        pace.sent(1, now);
        now += gap_ns;
    }
}

TEST(Pace, AStreamIsToldAfterAWindow) {
    Pace pace;
    uint64_t now = 1000;
    send(pace, Pace::window - 1, 10'000, now);
    EXPECT_FALSE(pace.streaming());
    send(pace, 1, 10'000, now);
    EXPECT_TRUE(pace.streaming());
}

TEST(Pace, AConversationIsNoStreamHoweverFast) {
    Pace pace;
    uint64_t now = 0;
    for (size_t i = 0; i < 10 * Pace::window; i++) {
        pace.sent(1, now++);
        pace.received(1);
        ASSERT_FALSE(pace.streaming());
    }
}

TEST(Pace, SlowMessagesAreNoStream) {
    Pace pace;
    uint64_t now = 0;
    send(pace, 4 * Pace::window, Pace::slow_ns * 2, now);
    EXPECT_FALSE(pace.streaming());
}

TEST(Pace, OneRestWithoutAMessageEndsAStream) {
    Pace pace;
    uint64_t now = 0;
    pace.sent(Pace::window, now);
    ASSERT_TRUE(pace.streaming());
    pace.quiet();
    EXPECT_FALSE(pace.streaming());
    send(pace, Pace::window - 1, 1, now);
    EXPECT_FALSE(pace.streaming()) << "the window starts anew";
}

TEST(Pace, RepliesEndAStreamAtTheNextWindow) {
    Pace pace;
    pace.sent(Pace::window, 0);
    ASSERT_TRUE(pace.streaming());
    pace.received(Pace::window / Pace::replies_of_stream);
    pace.sent(Pace::window, 1);
    EXPECT_FALSE(pace.streaming());
}

} // namespace
