// SPDX-License-Identifier: GPL-2.0-or-later
/// Offloads (SPEC.md chapter 6): what a message says is still to be done to it, and doing it in software for
/// those that cannot.
#pragma once

#include "svio_abi.h"

#include <cstdint>
#include <span>

namespace svio {

/// The offload fields of a message. They travel with it, from its send queue to whoever resolves them.
struct Offload {
    uint32_t flags = 0; ///< SVIO_ENTRY_CSUM, _CSUM_OK, _SEG, _VLAN: which of the others hold
    uint16_t csum_start = 0;
    uint16_t csum_offset = 0;
    uint16_t seg_size = 0;
    uint16_t seg_header = 0;
    uint16_t vlan_tci = 0;
    uint8_t seg_type = SVIO_SEG_NONE;

    bool has(uint32_t flag) const { return flags & flag; }
    bool operator==(const Offload &) const = default;
    template <typename Archive> void fields(Archive &archive) {
        archive(flags);
        archive(csum_start);
        archive(csum_offset);
        archive(seg_size);
        archive(seg_header);
        archive(vlan_tci);
        archive(seg_type);
    }
};

/// The features that a guest must have accepted to send with these fields.
uint64_t offload_needs(const Offload &offload);
/// Do the fields lie inside of a message of this length? What the message holds is not looked at.
bool offload_fits(const Offload &offload, size_t length);

/// One's complement sum of 16-bit words as they lie in memory, folded.
uint16_t ones_sum(std::span<const uint8_t> bytes, uint64_t sum = 0);

/// Stores the checksum that `offload` asks for, which must fit, and notes that it is right now.
void insert_checksum(std::span<uint8_t> message, Offload &offload);

} // namespace svio
