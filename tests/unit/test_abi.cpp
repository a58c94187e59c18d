// SPDX-License-Identifier: GPL-2.0-or-later
#include "svio_abi.h"

#include <gtest/gtest.h>

TEST(Abi, LapBitIsOneOnTheFirstLapAndAlternates) {
    EXPECT_EQ(svio_lap(0, 16), 1u);
    EXPECT_EQ(svio_lap(15, 16), 1u);
    EXPECT_EQ(svio_lap(16, 16), 0u);
    EXPECT_EQ(svio_lap(31, 16), 0u);
    EXPECT_EQ(svio_lap(32, 16), 1u);
    EXPECT_EQ(svio_lap(0xffffffff, 16), 0u);
}

TEST(Abi, CrossedIsHalfOpenAndWraps) {
    EXPECT_FALSE(svio_crossed(5, 5, 5));
    EXPECT_TRUE(svio_crossed(5, 5, 6));
    EXPECT_FALSE(svio_crossed(6, 5, 6));
    EXPECT_FALSE(svio_crossed(4, 5, 6));
    EXPECT_TRUE(svio_crossed(0xffffffff, 0xfffffffe, 2));
    EXPECT_TRUE(svio_crossed(1, 0xfffffffe, 2));
    EXPECT_FALSE(svio_crossed(2, 0xfffffffe, 2));
    EXPECT_FALSE(svio_crossed(0xfffffffd, 0xfffffffe, 2));
}
