// SPDX-License-Identifier: GPL-2.0-or-later
/// What chapter 6 of the SPEC makes of a message, byte by byte, and in no way that the board goes.
#pragma once

#include "../unit/packets.hpp"

namespace svio::fuzz {

struct Resolved {
    uint32_t error = SVIO_QERR_NONE;
    /// On a wire that carries no offloads. A message of which nothing can be made is one that never comes.
    std::vector<test::Frame> frames{};
};

/// `features` are in force, and the flags of the head are among them.
Resolved resolve(test::Frame bytes, const svio_entry &head, uint64_t features);

} // namespace svio::fuzz
