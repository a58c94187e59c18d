// SPDX-License-Identifier: GPL-2.0-or-later
#include "offload_model.hpp"

namespace svio::fuzz {

using namespace test;

namespace {

void store_sum(Frame &frame, size_t start, size_t field, unsigned sum) {
    sum = reference_sum(frame.data() + start, frame.size() - start, sum);
    put16(frame, field, sum == 0xffff ? 0xffff : ~sum & 0xffff);
}

/// Where the packet begins, 0: nowhere.
size_t packet_at(const Frame &frame, size_t header, unsigned &type) {
    for (size_t at = 12, tags = 0; at + 2 <= header; at += 4, tags++) {
        type = get16(frame, at);
        if (tags == 2 || (type != 0x8100 && type != 0x88a8))
            return at + 2;
    }
    return 0;
}

/// Are the headers those of `type`, with nothing after them?
bool sound(const Frame &frame, size_t ip, bool six, size_t start, size_t offset, size_t header, unsigned type,
           size_t size) {
    bool tcp = type != SVIO_SEG_UDP;
    unsigned protocol = tcp ? 6 : 17;
    if (start < ip + (six ? 40 : 20) || header < start + (tcp ? 20 : 8) || offset != (tcp ? 16u : 6u))
        return false;
    if (tcp && six != (type == SVIO_SEG_TCP6))
        return false;
    if (header - ip + std::min(size, frame.size()) > 65535)
        return false;
    if (six) {
        if (frame[ip] >> 4 != 6 || (start == ip + 40 && frame[ip + 6] != protocol))
            return false;
    } else if (frame[ip] >> 4 != 4 || start != ip + (frame[ip] & 15) * 4u || frame[ip + 9] != protocol ||
               (get16(frame, ip + 6) & 0x3fff)) {
        return false;
    }
    size_t own = tcp ? (frame[start + 12] >> 4) * 4u : 8;
    return own >= (tcp ? 20u : 8u) && start + own == header;
}

Frame segment(const Frame &whole, size_t ip, bool six, size_t start, size_t offset, size_t header, bool tcp,
              size_t from, size_t size, unsigned number) {
    Frame frame(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(header));
    frame.insert(frame.end(), whole.begin() + static_cast<ptrdiff_t>(from),
                 whole.begin() + static_cast<ptrdiff_t>(from + size));
    unsigned length = static_cast<unsigned>(frame.size() - ip);
    if (six) {
        put16(frame, ip + 4, length - 40);
    } else {
        put16(frame, ip + 2, length);
        put16(frame, ip + 4, (get16(frame, ip + 4) + number) & 0xffff);
        put16(frame, ip + 10, 0);
        put16(frame, ip + 10, ~reference_sum(frame.data() + ip, start - ip) & 0xffff);
    }
    if (tcp) {
        put32(frame, start + 4, get32(frame, start + 4) + static_cast<uint32_t>(from - header));
        if (from != header)
            frame[start + 13] &= 0x7f;
        if (from + size != whole.size())
            frame[start + 13] &= 0xf6;
    } else {
        put16(frame, start + 4, static_cast<unsigned>(frame.size() - start));
    }
    // The length of the whole goes, this one comes: modulo 0xffff.
    unsigned there = (static_cast<unsigned>(whole.size() - start) / 65536 +
                      static_cast<unsigned>(whole.size() - start) % 65536) %
                     65535;
    unsigned change = (static_cast<unsigned>(frame.size() - start) + 65535 - there) % 65535;
    store_sum(frame, start, start + offset, change);
    return frame;
}

} // namespace

Resolved resolve(Frame bytes, const svio_entry &head, uint64_t features) {
    const uint32_t flags = head.flags;
    const uint64_t needed[] = {0, SVIO_F_SEG_TCP4, SVIO_F_SEG_TCP6, SVIO_F_SEG_UDP};
    bool known = head.seg_type >= 1 && head.seg_type <= 3;
    if ((flags & SVIO_ENTRY_SEG) && known && !(features & needed[head.seg_type]))
        return {SVIO_QERR_FLAGS};
    size_t start = head.csum_start, offset = head.csum_offset, header = head.seg_header, size = head.seg_size;
    if ((flags & SVIO_ENTRY_CSUM) && start + offset + 2 > bytes.size())
        return {SVIO_QERR_OFFLOAD};
    if ((flags & SVIO_ENTRY_VLAN) && (bytes.size() < 12 || start > 65531 || header > 65531))
        return {SVIO_QERR_OFFLOAD};
    if (flags & SVIO_ENTRY_SEG) {
        if (!(flags & SVIO_ENTRY_CSUM) || !known || size == 0 || header >= bytes.size() ||
            start + offset + 2 > header)
            return {SVIO_QERR_OFFLOAD};
        if ((bytes.size() - header + size - 1) / size > SVIO_SEGMENTS_MAX)
            return {SVIO_QERR_OFFLOAD};
    }
    if (flags & SVIO_ENTRY_VLAN) {
        const uint8_t tag[] = {0x81, 0, static_cast<uint8_t>(head.vlan_tci >> 8),
                               static_cast<uint8_t>(head.vlan_tci)};
        bytes.insert(bytes.begin() + 12, tag, tag + 4);
        start += 4;
        header += 4;
    }
    if (!(flags & SVIO_ENTRY_SEG)) {
        if (flags & SVIO_ENTRY_CSUM)
            store_sum(bytes, start, start + offset, 0);
        return {SVIO_QERR_NONE, {bytes}};
    }
    unsigned type = 0;
    size_t ip = packet_at(bytes, header, type);
    bool six = type == 0x86dd;
    if (ip == 0 || (!six && type != 0x800) ||
        !sound(bytes, ip, six, start, offset, header, head.seg_type, size))
        return {SVIO_QERR_NONE, {bytes}};
    Resolved resolved;
    for (size_t from = header; from < bytes.size(); from += size)
        resolved.frames.push_back(
            segment(bytes, ip, six, start, offset, header, head.seg_type != SVIO_SEG_UDP, from,
                    std::min(size, bytes.size() - from), static_cast<unsigned>(resolved.frames.size())));
    return resolved;
}

} // namespace svio::fuzz
