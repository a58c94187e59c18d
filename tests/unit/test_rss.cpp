// SPDX-License-Identifier: GPL-2.0-or-later
/// The receive hash (SPEC.md chapter 5.7): Microsoft's published vectors, and which fields of which frames.
#include "rss.hpp"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <string>
#include <vector>

using namespace svio;

namespace {

using Bytes = std::vector<uint8_t>;

Bytes address(const std::string &text) {
    bool six = text.find(':') != std::string::npos;
    Bytes bytes(six ? 16 : 4);
    EXPECT_EQ(inet_pton(six ? AF_INET6 : AF_INET, text.c_str(), bytes.data()), 1) << text;
    return bytes;
}

void append(Bytes &to, const Bytes &what) {
    to.insert(to.end(), what.begin(), what.end());
}

struct Flow {
    std::string destination;
    uint16_t destination_port;
    std::string source;
    uint16_t source_port;
    uint32_t by_address;
    uint32_t by_ports;
};

// "Verifying the RSS Hash Calculation" in Microsoft's documentation of NDIS.
const std::vector<Flow> ip4 = {
    {"161.142.100.80", 1766, "66.9.149.187", 2794, 0x323e8fc2, 0x51ccc178},
    {"65.69.140.83", 4739, "199.92.111.2", 14230, 0xd718262a, 0xc626b0ea},
    {"12.22.207.184", 38024, "24.19.198.95", 12898, 0xd2d0a5de, 0x5c2b394a},
    {"209.142.163.6", 2217, "38.27.205.30", 48228, 0x82989176, 0xafc7327f},
    {"202.188.127.2", 1303, "153.39.163.191", 44251, 0x5d1809c5, 0x10e828a2},
};
const std::vector<Flow> ip6 = {
    {"3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2cc18cd5, 0x40207d3d},
    {"ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0f0c461c, 0xdde51bbf},
    {"fe80::200:f8ff:fe21:67cf", 38024, "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, 0x4b61e985, 0x02d1feef},
};

struct Shape {
    uint8_t protocol = 6;
    std::vector<uint16_t> tags = {}; ///< ethertypes of VLAN tags before the packet
    uint16_t fragment = 0;           ///< the word of flags and offset
    uint8_t options = 0;             ///< words of IPv4 options
    size_t payload = 26;             ///< bytes after the addresses' header
};

Bytes frame_of(const Flow &flow, const Shape &shape = {}) {
    Bytes frame(12, 0x02);
    for (uint16_t tag : shape.tags)
        append(frame, {static_cast<uint8_t>(tag >> 8), static_cast<uint8_t>(tag), 0, 5});
    bool six = flow.source.find(':') != std::string::npos;
    auto length = static_cast<uint16_t>(shape.payload + (six ? 0 : 20 + 4 * shape.options));
    auto high = static_cast<uint8_t>(length >> 8), low = static_cast<uint8_t>(length);
    if (six) {
        append(frame, {0x86, 0xdd, 0x60, 0, 0, 0, high, low, shape.protocol, 64});
    } else {
        append(frame, {0x08, 0, static_cast<uint8_t>(0x45 + shape.options), 0, high, low, 0, 1,
                       static_cast<uint8_t>(shape.fragment >> 8), static_cast<uint8_t>(shape.fragment), 64,
                       shape.protocol, 0, 0});
    }
    append(frame, address(flow.source));
    append(frame, address(flow.destination));
    frame.insert(frame.end(), size_t{4} * shape.options, 1);
    Bytes payload = {static_cast<uint8_t>(flow.source_port >> 8), static_cast<uint8_t>(flow.source_port),
                     static_cast<uint8_t>(flow.destination_port >> 8),
                     static_cast<uint8_t>(flow.destination_port)};
    payload.resize(shape.payload, 0x5a);
    append(frame, payload);
    return frame;
}

void expect(const Rss &rss, const Bytes &frame, uint32_t value, unsigned type) {
    FlowHash hash = rss.hash(frame);
    EXPECT_EQ(hash.value, value);
    EXPECT_EQ(unsigned{hash.type}, type);
}

constexpr uint32_t bit(unsigned type) {
    return 1u << type;
}

} // namespace

TEST(Rss, MicrosoftsVectors) {
    Rss rss;
    for (const Flow &flow : ip4) {
        expect(rss, frame_of(flow), flow.by_ports, SVIO_HASH_TCP4);
        expect(rss, frame_of(flow, {.protocol = 17}), flow.by_ports, SVIO_HASH_UDP4);
        expect(rss, frame_of(flow, {.protocol = 1}), flow.by_address, SVIO_HASH_IP4);
    }
    for (const Flow &flow : ip6) {
        expect(rss, frame_of(flow), flow.by_ports, SVIO_HASH_TCP6);
        expect(rss, frame_of(flow, {.protocol = 17}), flow.by_ports, SVIO_HASH_UDP6);
        expect(rss, frame_of(flow, {.protocol = 58}), flow.by_address, SVIO_HASH_IP6);
    }
}

TEST(Rss, TagsAndOptionsAreSkipped) {
    Rss rss;
    for (const auto &tags : {std::vector<uint16_t>{0x8100}, {0x88a8}, {0x88a8, 0x8100}}) {
        expect(rss, frame_of(ip4[0], {.tags = tags}), ip4[0].by_ports, SVIO_HASH_TCP4);
        expect(rss, frame_of(ip6[0], {.tags = tags}), ip6[0].by_ports, SVIO_HASH_TCP6);
    }
    expect(rss, frame_of(ip4[0], {.tags = {0x8100, 0x8100, 0x8100}}), 0, SVIO_HASH_NONE);
    for (uint8_t options : {1, 5, 10})
        expect(rss, frame_of(ip4[1], {.options = options}), ip4[1].by_ports, SVIO_HASH_TCP4);
}

TEST(Rss, FragmentsAndExtensionsGoByAddress) {
    Rss rss;
    for (uint16_t fragment : {0x2000, 0x2010, 0x0010})
        expect(rss, frame_of(ip4[0], {.fragment = fragment}), ip4[0].by_address, SVIO_HASH_IP4);
    // "Don't fragment" is none.
    expect(rss, frame_of(ip4[0], {.fragment = 0x4000}), ip4[0].by_ports, SVIO_HASH_TCP4);
    for (uint8_t next : {0, 43, 44, 60, 59})
        expect(rss, frame_of(ip6[0], {.protocol = next}), ip6[0].by_address, SVIO_HASH_IP6);
    // Ports that are not there.
    expect(rss, frame_of(ip4[0], {.payload = 3}), ip4[0].by_address, SVIO_HASH_IP4);
    expect(rss, frame_of(ip6[0], {.payload = 3}), ip6[0].by_address, SVIO_HASH_IP6);
    Bytes padded = frame_of(ip4[0], {.payload = 3});
    padded.resize(60); // the sender's padding is no part of the packet
    expect(rss, padded, ip4[0].by_address, SVIO_HASH_IP4);
}

TEST(Rss, TypesThatAreOff) {
    Rss rss;
    rss.set_types(SVIO_RSS_TYPES & ~bit(SVIO_HASH_TCP4) & ~bit(SVIO_HASH_UDP6));
    expect(rss, frame_of(ip4[0]), ip4[0].by_address, SVIO_HASH_IP4);
    expect(rss, frame_of(ip4[0], {.protocol = 17}), ip4[0].by_ports, SVIO_HASH_UDP4);
    expect(rss, frame_of(ip6[0], {.protocol = 17}), ip6[0].by_address, SVIO_HASH_IP6);
    rss.set_types(bit(SVIO_HASH_TCP4));
    expect(rss, frame_of(ip4[0]), ip4[0].by_ports, SVIO_HASH_TCP4);
    expect(rss, frame_of(ip4[0], {.protocol = 17}), 0, SVIO_HASH_NONE);
    expect(rss, frame_of(ip6[0]), 0, SVIO_HASH_NONE);
    rss.set_types(0);
    expect(rss, frame_of(ip4[0]), 0, SVIO_HASH_NONE);
}

TEST(Rss, WhatIsNoPacketHasNoHash) {
    Rss rss;
    for (const Flow &flow : {ip4[0], ip6[0]}) {
        Bytes frame = frame_of(flow);
        for (size_t length = 0; length < frame.size(); length++) {
            // The hash must not look beyond: its type says how much there was.
            Bytes cut(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(length));
            cut.shrink_to_fit();
            FlowHash hash = rss.hash(cut);
            size_t header = flow.by_ports == ip4[0].by_ports ? 34 : 54;
            if (length < header)
                EXPECT_EQ(hash.type, SVIO_HASH_NONE) << length;
            else
                EXPECT_EQ(hash.value, length < header + 4 ? flow.by_address : flow.by_ports) << length;
        }
    }
    Bytes frame = frame_of(ip4[0]);
    for (uint8_t version_and_length : {0x44, 0x40, 0x55, 0x65, 0x05}) {
        frame[14] = version_and_length;
        expect(rss, frame, 0, SVIO_HASH_NONE);
    }
    frame = frame_of(ip4[0]);
    frame[17] = 19; // shorter than its own header
    expect(rss, frame, 0, SVIO_HASH_NONE);
    frame = frame_of(ip6[0]);
    frame[14] = 0x45;
    expect(rss, frame, 0, SVIO_HASH_NONE);
    frame[12] = 0x08;
    frame[13] = 0x06; // ARP
    expect(rss, frame, 0, SVIO_HASH_NONE);
}

TEST(Rss, KeyAndTable) {
    Rss rss;
    EXPECT_EQ(rss.pairs(), 1u);
    EXPECT_EQ(rss.pair_of({0x12345678, SVIO_HASH_TCP4}), 0u);
    rss.use_pairs(3);
    ASSERT_EQ(rss.table().size(), size_t{SVIO_RSS_TABLE_MAX});
    for (uint32_t i = 0; i < SVIO_RSS_TABLE_MAX; i++)
        EXPECT_EQ(rss.pair_of({0xabcde000 + i, SVIO_HASH_TCP4}), i % 3);
    EXPECT_EQ(rss.pair_of({1, SVIO_HASH_NONE}), 0u);
    const std::array<uint8_t, 4> table = {2, 2, 0, 1};
    rss.set_table(table);
    for (uint32_t i = 0; i < 32; i++)
        EXPECT_EQ(rss.pair_of({i, SVIO_HASH_IP6}), table[i % 4]);
    rss.set_key(RssKey{});
    expect(rss, frame_of(ip4[0]), 0, SVIO_HASH_TCP4);
    rss.reset();
    EXPECT_EQ(rss.table().size(), size_t{SVIO_RSS_TABLE_MAX});
    expect(rss, frame_of(ip4[0]), ip4[0].by_ports, SVIO_HASH_TCP4);
}
