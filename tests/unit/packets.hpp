// SPDX-License-Identifier: GPL-2.0-or-later
/// Packets for tests of offloads, and what offloads must make of them: computed here byte by byte, in another
/// way than the board does.
#pragma once

#include "driver.hpp"

#include <random>

namespace svio::test {

inline void put16(Frame &frame, size_t at, unsigned value) {
    frame.at(at) = static_cast<uint8_t>(value >> 8);
    frame.at(at + 1) = static_cast<uint8_t>(value);
}
inline void put32(Frame &frame, size_t at, uint32_t value) {
    put16(frame, at, value >> 16);
    put16(frame, at + 2, value & 0xffff);
}
inline unsigned get16(const Frame &frame, size_t at) {
    return frame.at(at) * 256u + frame.at(at + 1);
}
inline uint32_t get32(const Frame &frame, size_t at) {
    return static_cast<uint32_t>(get16(frame, at)) << 16 | get16(frame, at + 2);
}

/// RFC 1071: words in the order of the network, each carry added at once. Not complemented.
inline unsigned reference_sum(const uint8_t *data, size_t length, unsigned sum = 0) {
    for (size_t i = 0; i < length; i++) {
        sum += i % 2 ? data[i] : data[i] * 256u;
        sum = sum > 0xffff ? sum - 0xffff : sum;
    }
    return sum;
}

inline Frame random_bytes(size_t length, uint32_t seed) {
    std::minstd_rand random(seed + 1);
    Frame bytes(length);
    for (uint8_t &byte : bytes)
        byte = static_cast<uint8_t>(random() >> 8);
    return bytes;
}

/// What a packet is made of.
struct Packet {
    bool ip6 = false;
    bool udp = false;
    std::vector<unsigned> vlan{}; ///< tags in the frame
    unsigned options4 = 0;        ///< bytes of IPv4 options
    unsigned extension6 = 0;      ///< bytes of an extension header (destination options), a multiple of 8
    unsigned options_tcp = 0;
    unsigned tcp_flags = 0x10;
    uint32_t sequence = 0xfffffff0; ///< wraps soon
    unsigned id = 0xfffe;
    size_t payload = 100;

    size_t l3() const { return 14 + 4 * vlan.size(); }
    size_t l4() const { return l3() + (ip6 ? 40 + extension6 : 20 + options4); }
    size_t header() const { return l4() + (udp ? 8 : 20 + options_tcp); }
    size_t field() const { return l4() + (udp ? 6 : 16); }

    unsigned pseudo_sum(const Frame &frame, size_t transport) const {
        unsigned sum = reference_sum(frame.data() + l3() + (ip6 ? 8 : 12), ip6 ? 32 : 8);
        uint8_t rest[8] = {0,
                           0,
                           0,
                           static_cast<uint8_t>(transport >> 16),
                           static_cast<uint8_t>(transport >> 8),
                           static_cast<uint8_t>(transport),
                           0,
                           static_cast<uint8_t>(udp ? 17 : 6)};
        return reference_sum(rest, 8, sum);
    }

    void fill_lengths(Frame &frame) const {
        size_t from_l3 = frame.size() - l3();
        if (ip6)
            put16(frame, l3() + 4, static_cast<unsigned>(from_l3 - 40) & 0xffff);
        else
            put16(frame, l3() + 2, static_cast<unsigned>(from_l3) & 0xffff);
        if (udp)
            put16(frame, l4() + 4, static_cast<unsigned>(frame.size() - l4()) & 0xffff);
        if (!ip6) {
            put16(frame, l3() + 10, 0);
            put16(frame, l3() + 10, ~reference_sum(frame.data() + l3(), 20 + options4) & 0xffff);
        }
    }
    /// The checksum as it must be on the wire.
    void finish(Frame &frame) const {
        put16(frame, field(), 0);
        unsigned sum =
            reference_sum(frame.data() + l4(), frame.size() - l4(), pseudo_sum(frame, frame.size() - l4()));
        put16(frame, field(), sum == 0xffff ? 0xffff : ~sum & 0xffff);
    }
    /// As a driver hands it over: the pseudo header's sum in the checksum field.
    void leave(Frame &frame) const { put16(frame, field(), pseudo_sum(frame, frame.size() - l4())); }

    Frame headers(uint32_t seed = 0) const {
        Frame frame = random_bytes(header(), seed + 77);
        std::copy(peer_mac.begin(), peer_mac.end(), frame.begin());
        std::copy(vif_mac.begin(), vif_mac.end(), frame.begin() + 6);
        size_t at = 12;
        for (unsigned tag : vlan) {
            put16(frame, at, 0x8100);
            put16(frame, at + 2, tag);
            at += 4;
        }
        put16(frame, at, ip6 ? 0x86dd : 0x0800);
        if (ip6) {
            put32(frame, l3(), 0x60012345);
            frame[l3() + 6] = static_cast<uint8_t>(extension6 ? 60 : udp ? 17 : 6);
            frame[l3() + 7] = 64;
            if (extension6) {
                frame[l3() + 40] = static_cast<uint8_t>(udp ? 17 : 6);
                frame[l3() + 41] = static_cast<uint8_t>(extension6 / 8 - 1);
            }
        } else {
            frame[l3()] = static_cast<uint8_t>(0x40 | (20 + options4) / 4);
            put16(frame, l3() + 4, id);
            put16(frame, l3() + 6, 0x4000);
            frame[l3() + 9] = static_cast<uint8_t>(udp ? 17 : 6);
        }
        if (!udp) {
            put32(frame, l4() + 4, sequence);
            put16(frame, l4() + 12, (20 + options_tcp) / 4 << 12 | tcp_flags);
        }
        return frame;
    }
    /// The whole packet, its checksum as a driver leaves it.
    Frame make(uint32_t seed = 0) const {
        Frame frame = headers(seed), data = random_bytes(payload, seed);
        frame.insert(frame.end(), data.begin(), data.end());
        fill_lengths(frame);
        leave(frame);
        return frame;
    }
    Frame finished(uint32_t seed = 0) const {
        Frame frame = make(seed);
        finish(frame);
        return frame;
    }
    /// The frames that it stands for when it is cut into pieces of `size` bytes.
    std::vector<Frame> segments(size_t size, uint32_t seed = 0) const {
        Frame data = random_bytes(payload, seed);
        std::vector<Frame> frames;
        for (size_t at = 0; at < payload; at += size) {
            Packet piece = *this;
            piece.payload = std::min(size, payload - at);
            piece.sequence = static_cast<uint32_t>(sequence + at);
            piece.id = (id + static_cast<unsigned>(frames.size())) & 0xffff;
            if (at != 0)
                piece.tcp_flags &= ~0x80u;
            if (at + size < payload)
                piece.tcp_flags &= ~0x09u;
            Frame frame = piece.headers(seed);
            frame.insert(frame.end(), data.begin() + static_cast<ptrdiff_t>(at),
                         data.begin() + static_cast<ptrdiff_t>(at + piece.payload));
            piece.fill_lengths(frame);
            piece.finish(frame);
            frames.push_back(frame);
        }
        return frames;
    }
    Offload seg(size_t size) const {
        Offload offload = csum();
        offload.flags |= SVIO_ENTRY_SEG;
        offload.seg_type = static_cast<uint8_t>(udp ? SVIO_SEG_UDP : ip6 ? SVIO_SEG_TCP6 : SVIO_SEG_TCP4);
        offload.seg_size = static_cast<uint16_t>(size);
        offload.seg_header = static_cast<uint16_t>(header());
        return offload;
    }
    Offload csum() const {
        return {.flags = SVIO_ENTRY_CSUM,
                .csum_start = static_cast<uint16_t>(l4()),
                .csum_offset = static_cast<uint16_t>(udp ? 6 : 16)};
    }
};

} // namespace svio::test
