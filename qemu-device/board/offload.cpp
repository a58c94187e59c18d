// SPDX-License-Identifier: GPL-2.0-or-later
#include "offload.hpp"

#include <cstring>

namespace svio {

uint64_t offload_needs(const Offload &offload) {
    uint64_t needs = 0;
    if (offload.has(SVIO_ENTRY_CSUM))
        needs |= SVIO_F_CSUM_TX;
    if (offload.has(SVIO_ENTRY_VLAN))
        needs |= SVIO_F_VLAN_TX;
    if (offload.has(SVIO_ENTRY_SEG)) {
        switch (offload.seg_type) {
        case SVIO_SEG_TCP4:
            needs |= SVIO_F_SEG_TCP4;
            break;
        case SVIO_SEG_TCP6:
            needs |= SVIO_F_SEG_TCP6;
            break;
        case SVIO_SEG_UDP:
            needs |= SVIO_F_SEG_UDP;
            break;
        default:
            break; // which offload_fits() finds
        }
    }
    return needs;
}

bool offload_fits(const Offload &offload, size_t length) {
    if (offload.has(SVIO_ENTRY_CSUM) && size_t{offload.csum_start} + offload.csum_offset + 2 > length)
        return false;
    return true;
}

uint16_t ones_sum(std::span<const uint8_t> bytes, uint64_t sum) {
    const uint8_t *at = bytes.data();
    size_t left = bytes.size();
    // Words of 32 bits in a sum of 64: no carry is lost below 16 GiB, and compilers make vectors of it. As
    // 2^16 is 1 modulo 2^16 - 1, their halves may be added in the end.
    uint64_t even = 0;
    for (; left >= 16; left -= 16, at += 16) {
        uint32_t words[4];
        std::memcpy(words, at, sizeof(words));
        even += uint64_t{words[0]} + words[1];
        sum += uint64_t{words[2]} + words[3];
    }
    for (; left >= 2; left -= 2, at += 2) {
        uint16_t word;
        std::memcpy(&word, at, sizeof(word));
        sum += word;
    }
    if (left != 0)
        sum += *at; // as if a zero followed
    for (sum = (sum & 0xffffffff) + (sum >> 32) + (even & 0xffffffff) + (even >> 32); sum >> 16;)
        sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<uint16_t>(sum);
}

void insert_checksum(std::span<uint8_t> message, Offload &offload) {
    auto checksum = static_cast<uint16_t>(~ones_sum(message.subspan(offload.csum_start)));
    // The same in one's complement, and in UDP a zero says that there is none.
    if (checksum == 0)
        checksum = 0xffff;
    std::memcpy(message.data() + offload.csum_start + offload.csum_offset, &checksum, sizeof(checksum));
    offload.flags = (offload.flags & ~uint32_t{SVIO_ENTRY_CSUM}) | SVIO_ENTRY_CSUM_OK;
}

} // namespace svio
