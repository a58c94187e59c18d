// SPDX-License-Identifier: GPL-2.0-or-later
#include "responder.hpp"

#include <algorithm>
#include <cstring>

namespace svio::wire_peer {

namespace {

constexpr std::size_t kEthernetHeader = 14;
constexpr std::size_t kArpLength = 28;
constexpr std::size_t kIpHeaderMin = 20;
constexpr std::size_t kIcmpHeader = 8;
constexpr std::size_t kUdpHeader = 8;

constexpr std::uint16_t kTypeIpv4 = 0x0800;
constexpr std::uint16_t kTypeArp = 0x0806;
constexpr std::uint8_t kProtocolIcmp = 1;
constexpr std::uint8_t kProtocolUdp = 17;

// The header of a sockperf message: sequence (8 bytes), flags (2), length (4), all in network order.
constexpr std::size_t kSockperfHeader = 14;
constexpr std::size_t kSockperfFlags = 8;
constexpr std::size_t kSockperfLength = 10;
constexpr std::uint16_t kSockperfClient = 1;
constexpr std::uint16_t kSockperfPong = 2;
constexpr std::uint16_t kSockperfWarmup = 4;

using Bytes = std::span<std::uint8_t>;

std::uint16_t load16(Bytes bytes, std::size_t at) noexcept {
    return static_cast<std::uint16_t>(bytes[at] << 8 | bytes[at + 1]);
}

std::uint32_t load32(Bytes bytes, std::size_t at) noexcept {
    return static_cast<std::uint32_t>(load16(bytes, at)) << 16 | load16(bytes, at + 2);
}

void store16(Bytes bytes, std::size_t at, std::uint16_t value) noexcept {
    bytes[at] = static_cast<std::uint8_t>(value >> 8);
    bytes[at + 1] = static_cast<std::uint8_t>(value);
}

std::uint16_t fold(std::uint64_t sum) noexcept {
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return static_cast<std::uint16_t>(sum);
}

// One's complement sum in the machine's own byte order: good for a check against 0xffff, which is the same in
// both.
std::uint64_t native_sum(Bytes bytes) noexcept {
    std::uint64_t sum = 0;
    std::size_t at = 0;
    for (; at + 4 <= bytes.size(); at += 4) {
        std::uint32_t word;
        std::memcpy(&word, bytes.data() + at, sizeof word);
        sum += word;
    }
    if (at < bytes.size()) {
        std::uint8_t rest[4] = {};
        std::memcpy(rest, bytes.data() + at, bytes.size() - at);
        std::uint32_t word;
        std::memcpy(&word, rest, sizeof word);
        sum += word;
    }
    return sum;
}

bool checks_out(std::uint64_t sum) noexcept {
    return fold(sum) == 0xffff;
}

// The sum over a UDP datagram and its pseudo header.
std::uint64_t udp_sum(Bytes ip, Bytes udp) noexcept {
    std::uint8_t words[4] = {0, kProtocolUdp, static_cast<std::uint8_t>(udp.size() >> 8),
                             static_cast<std::uint8_t>(udp.size())};
    return native_sum(ip.subspan(12, 8)) + native_sum(words) + native_sum(udp);
}

// RFC 1624: the checksum at `sum_at` follows the change of the word at `at`.
void replace16(Bytes bytes, std::size_t at, std::uint16_t value, std::size_t sum_at) noexcept {
    const auto old_sum = static_cast<std::uint16_t>(~load16(bytes, sum_at));
    const auto old_value = static_cast<std::uint16_t>(~load16(bytes, at));
    store16(bytes, at, value);
    store16(bytes, sum_at, static_cast<std::uint16_t>(~fold(std::uint64_t{old_sum} + old_value + value)));
}

void swap_bytes(Bytes bytes, std::size_t one, std::size_t other, std::size_t count) noexcept {
    std::swap_ranges(bytes.begin() + static_cast<std::ptrdiff_t>(one),
                     bytes.begin() + static_cast<std::ptrdiff_t>(one + count),
                     bytes.begin() + static_cast<std::ptrdiff_t>(other));
}

bool is_sockperf_warmup(Bytes payload) noexcept {
    return payload.size() >= kSockperfHeader &&
           load16(payload, kSockperfFlags) == (kSockperfClient | kSockperfWarmup) &&
           load32(payload, kSockperfLength) == payload.size();
}

bool swallow(Bytes payload, std::uint64_t now_ns, Sink &sink) noexcept {
    if (is_sockperf_warmup(payload)) {
        ++sink.warmup;
        return false;
    }
    if (sink.datagrams == 0) {
        sink.first_ns = now_ns;
        sink.last_ns = now_ns;
    }
    sink.longest_gap_ns = std::max(sink.longest_gap_ns, now_ns - sink.last_ns);
    sink.last_ns = now_ns;
    ++sink.datagrams;
    sink.bytes += payload.size();
    return false;
}

bool answer_icmp(Bytes icmp, Counters &counters) noexcept {
    if (icmp.size() < kIcmpHeader) {
        ++counters.malformed;
        return false;
    }
    if (!checks_out(native_sum(icmp))) {
        ++counters.bad_checksum;
        return false;
    }
    if (load16(icmp, 0) != 0x0800) { // echo request
        ++counters.ignored;
        return false;
    }
    replace16(icmp, 0, 0x0000, 2);
    ++counters.icmp_echo;
    return true;
}

// Does what sockperf's server does: one-way messages are counted, warm-up messages forgotten, pings answered.
bool answer_sockperf(Bytes udp, std::uint64_t now_ns, Counters &counters) noexcept {
    const auto payload = udp.subspan(kUdpHeader);
    if (payload.size() < kSockperfHeader) {
        ++counters.malformed;
        return false;
    }
    const auto flags = load16(payload, kSockperfFlags);
    if (!(flags & kSockperfClient)) {
        ++counters.ignored;
        return false;
    }
    if (flags & kSockperfWarmup) {
        ++counters.udp_warmup;
        return false;
    }
    if (!(flags & kSockperfPong)) {
        return swallow(payload, now_ns, counters.sink);
    }
    const auto answered = static_cast<std::uint16_t>(flags & ~kSockperfClient);
    if (load16(udp, 6) != 0) {
        replace16(udp, kUdpHeader + kSockperfFlags, answered, 6);
        if (load16(udp, 6) == 0) { // 0 would mean "no checksum"
            store16(udp, 6, 0xffff);
        }
    } else {
        store16(udp, kUdpHeader + kSockperfFlags, answered);
    }
    ++counters.udp_echo;
    return true;
}

bool answer_udp(Bytes ip, Bytes room, std::uint64_t now_ns, Counters &counters) noexcept {
    if (room.size() < kUdpHeader || load16(room, 4) < kUdpHeader || load16(room, 4) > room.size()) {
        ++counters.malformed;
        return false;
    }
    const auto udp = room.first(load16(room, 4));
    if (load16(udp, 6) != 0 && !checks_out(udp_sum(ip, udp))) {
        ++counters.bad_checksum;
        return false;
    }
    const auto source = load16(udp, 0);
    const auto target = load16(udp, 2);
    bool reply = false;
    if (target == kDiscardPort) {
        return swallow(udp.subspan(kUdpHeader), now_ns, counters.sink);
    }
    if (target == kSockperfPort) {
        reply = answer_sockperf(udp, now_ns, counters);
    } else if (target == kEchoPort && source != kEchoPort) { // two echo services would never stop
        ++counters.udp_echo;
        reply = true;
    } else {
        ++counters.ignored;
    }
    if (reply) {
        swap_bytes(udp, 0, 2, 2); // the sum does not change
    }
    return reply;
}

} // namespace

bool Ipv4Range::holds(std::span<const std::uint8_t> ip) const noexcept {
    const auto differ = [&](std::size_t i) { return static_cast<unsigned>(ip[i] ^ address[i]); };
    const auto bytes = differ(0) << 24 | differ(1) << 16 | differ(2) << 8 | differ(3);
    return bits == 0 || bytes >> (32 - bits) == 0;
}

bool Responder::answer(std::span<std::uint8_t> frame, std::uint64_t now_ns,
                       Counters &counters) const noexcept {
    ++counters.received;
    counters.received_bytes += frame.size();
    if (frame.size() < kEthernetHeader) {
        ++counters.malformed;
        return false;
    }
    const auto to = frame.first(6);
    const bool broadcast = std::ranges::all_of(to, [](std::uint8_t byte) { return byte == 0xff; });
    if (!broadcast && !std::ranges::equal(to, mac_)) {
        ++counters.ignored;
        return false;
    }
    switch (load16(frame, 12)) {
    case kTypeArp:
        return answer_arp(frame, counters);
    case kTypeIpv4:
        return answer_ipv4(frame, now_ns, counters);
    default:
        ++counters.ignored;
        return false;
    }
}

void Responder::turn_around(std::span<std::uint8_t> frame) const noexcept {
    std::copy_n(frame.begin() + 6, 6, frame.begin());
    std::copy_n(mac_.begin(), 6, frame.begin() + 6);
}

bool Responder::answer_arp(std::span<std::uint8_t> frame, Counters &counters) const noexcept {
    const auto arp = frame.subspan(kEthernetHeader);
    // Ethernet, IPv4, addresses of 6 and 4 bytes.
    if (arp.size() < kArpLength || load16(arp, 0) != 1 || load16(arp, 2) != kTypeIpv4 ||
        load16(arp, 4) != 0x0604) {
        ++counters.malformed;
        return false;
    }
    if (load16(arp, 6) != 1 || !ip_.holds(arp.subspan(24, 4))) {
        ++counters.ignored;
        return false;
    }
    store16(arp, 6, 2);
    swap_bytes(arp, 8, 18, 10);
    std::copy_n(mac_.begin(), 6, arp.begin() + 8);
    turn_around(frame);
    ++counters.arp;
    return true;
}

bool Responder::answer_ipv4(std::span<std::uint8_t> frame, std::uint64_t now_ns,
                            Counters &counters) const noexcept {
    auto ip = frame.subspan(kEthernetHeader);
    if (ip.size() < kIpHeaderMin || ip[0] >> 4 != 4) {
        ++counters.malformed;
        return false;
    }
    const std::size_t header = (ip[0] & 15u) * 4u;
    const std::size_t total = load16(ip, 2);
    if (header < kIpHeaderMin || total < header || total > ip.size()) {
        ++counters.malformed;
        return false;
    }
    ip = ip.first(total); // the rest is padding
    if (!checks_out(native_sum(ip.first(header)))) {
        ++counters.bad_checksum;
        return false;
    }
    const bool fragment = (load16(ip, 6) & 0x3fff) != 0;
    if (fragment || !ip_.holds(ip.subspan(16, 4))) {
        ++counters.ignored;
        return false;
    }
    bool reply = false;
    if (ip[9] == kProtocolUdp) {
        reply = answer_udp(ip, ip.subspan(header), now_ns, counters);
    } else if (ip[9] == kProtocolIcmp) {
        reply = answer_icmp(ip.subspan(header), counters);
    } else {
        ++counters.ignored;
    }
    if (reply) {
        swap_bytes(ip, 12, 16, 4); // neither sum changes
        turn_around(frame);
    }
    return reply;
}

} // namespace svio::wire_peer
