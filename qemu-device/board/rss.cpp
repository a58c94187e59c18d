// SPDX-License-Identifier: GPL-2.0-or-later
#include "rss.hpp"

#include "state.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace svio {

namespace {

// The key of the verification suite in Microsoft's RSS documentation.
constexpr RssKey default_key = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
                                0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
                                0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
                                0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};

constexpr size_t ethernet_header = 14, vlan_tag = 4, max_tags = 2;
constexpr size_t ip4_header = 20, ip6_header = 40, ports_length = 4;
constexpr uint8_t protocol_tcp = 6, protocol_udp = 17;

unsigned word_at(const uint8_t *at) {
    return unsigned{at[0]} << 8 | at[1];
}

bool is_tag(unsigned ethertype) {
    return ethertype == 0x8100 || ethertype == 0x88a8;
}

} // namespace

void Toeplitz::set_key(const RssKey &key) {
    auto bit = [&key](size_t n) { return uint32_t{key[n / 8]} >> (7 - n % 8) & 1; };
    for (size_t place = 0; place < table_.size(); place++) {
        // The four windows of 32 bits of the key that begin at these four bits of the input.
        std::array<uint32_t, 4> window{};
        for (size_t i = 0; i < window.size(); i++) {
            for (size_t n = 0; n < 32; n++)
                window[i] = window[i] << 1 | bit(4 * place + i + n);
        }
        for (unsigned value = 0; value < 16; value++) {
            table_[place][value] = 0;
            for (unsigned i = 0; i < 4; i++)
                table_[place][value] ^= value & 8u >> i ? window[i] : 0;
        }
    }
}

void Rss::reset() {
    // Worked out once, which is most of what a reset would cost.
    static const Toeplitz of_default_key(default_key);
    types_ = SVIO_RSS_TYPES;
    key_ = default_key;
    toeplitz_ = of_default_key;
    use_pairs(1);
}

void Rss::use_pairs(unsigned n) {
    pairs_ = n;
    mask_ = SVIO_RSS_TABLE_MAX - 1;
    for (size_t i = 0; i < table_.size(); i++)
        table_[i] = static_cast<uint8_t>(i % n);
}

void Rss::set_key(const RssKey &key) {
    if (key == key_) // as in most states that are loaded
        return;
    key_ = key;
    toeplitz_.set_key(key);
}

void Rss::set_table(std::span<const uint8_t> table) {
    mask_ = static_cast<uint32_t>(table.size() - 1);
    std::copy(table.begin(), table.end(), table_.begin());
}

RssState Rss::save() const {
    return {pairs_, types_, key_, {table().begin(), table().end()}};
}

void Rss::check(const RssState &state, unsigned pairs_max) {
    bool good = state.pairs >= 1 && state.pairs <= pairs_max && !(state.types & ~uint32_t{SVIO_RSS_TYPES}) &&
                std::has_single_bit(state.table.size()) && state.table.size() <= SVIO_RSS_TABLE_MAX;
    for (uint8_t pair : state.table)
        good = good && pair < state.pairs;
    if (!good)
        throw StateError("how the state spreads received frames is out of range");
}

void Rss::load(const RssState &state) {
    use_pairs(state.pairs);
    types_ = state.types;
    set_key(state.key);
    set_table(state.table);
}

FlowHash Rss::over(const uint8_t *addresses, size_t length, const uint8_t *ports, uint8_t type) const {
    std::array<uint8_t, Toeplitz::input_max> input;
    std::memcpy(input.data(), addresses, length);
    if (ports) {
        std::memcpy(input.data() + length, ports, ports_length);
        length += ports_length;
    }
    return {toeplitz_.hash(std::span(input).first(length)), type};
}

FlowHash Rss::hash_ip4(std::span<const uint8_t> packet) const {
    if (packet.size() < ip4_header || packet[0] >> 4 != 4)
        return {};
    size_t header = size_t{packet[0] & 0xfu} * 4;
    size_t total = std::min<size_t>(word_at(&packet[2]), packet.size());
    if (header < ip4_header || total < header)
        return {};
    // Fragments: only the first one has ports, and all of them must go the same way.
    bool fragment = word_at(&packet[6]) & 0x3fff;
    const uint8_t *addresses = &packet[12];
    if (!fragment && total >= header + ports_length) {
        if (packet[9] == protocol_tcp && wants(SVIO_HASH_TCP4))
            return over(addresses, 8, &packet[header], SVIO_HASH_TCP4);
        if (packet[9] == protocol_udp && wants(SVIO_HASH_UDP4))
            return over(addresses, 8, &packet[header], SVIO_HASH_UDP4);
    }
    return wants(SVIO_HASH_IP4) ? over(addresses, 8, nullptr, SVIO_HASH_IP4) : FlowHash{};
}

// A packet with extension headers, a fragment among them, is hashed by its addresses.
FlowHash Rss::hash_ip6(std::span<const uint8_t> packet) const {
    if (packet.size() < ip6_header || packet[0] >> 4 != 6)
        return {};
    size_t payload = std::min<size_t>(word_at(&packet[4]), packet.size() - ip6_header);
    const uint8_t *addresses = &packet[8];
    if (payload >= ports_length) {
        if (packet[6] == protocol_tcp && wants(SVIO_HASH_TCP6))
            return over(addresses, 32, &packet[ip6_header], SVIO_HASH_TCP6);
        if (packet[6] == protocol_udp && wants(SVIO_HASH_UDP6))
            return over(addresses, 32, &packet[ip6_header], SVIO_HASH_UDP6);
    }
    return wants(SVIO_HASH_IP6) ? over(addresses, 32, nullptr, SVIO_HASH_IP6) : FlowHash{};
}

FlowHash Rss::hash(std::span<const uint8_t> frame) const {
    size_t at = ethernet_header - 2;
    if (frame.size() < ethernet_header)
        return {};
    unsigned ethertype = word_at(&frame[at]);
    for (size_t tags = 0; tags < max_tags && is_tag(ethertype); tags++) {
        at += vlan_tag;
        if (frame.size() < at + 2)
            return {};
        ethertype = word_at(&frame[at]);
    }
    std::span<const uint8_t> packet = frame.subspan(at + 2);
    if (ethertype == 0x0800)
        return hash_ip4(packet);
    if (ethertype == 0x86dd)
        return hash_ip6(packet);
    return {};
}

} // namespace svio
