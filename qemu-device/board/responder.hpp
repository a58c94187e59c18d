// SPDX-License-Identifier: GPL-2.0-or-later
// What a peer (svio-wire-peer, and port=echo) makes of one Ethernet frame. No sockets here, only bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace svio::wire_peer {

using Mac = std::array<std::uint8_t, 6>;
using Ipv4 = std::array<std::uint8_t, 4>;

// UDP ports that the peer serves.
constexpr std::uint16_t kEchoPort = 7;         // RFC 862: everything comes back as it was
constexpr std::uint16_t kDiscardPort = 9;      // RFC 863: counted, not answered
constexpr std::uint16_t kSockperfPort = 11111; // what "sockperf server" would answer

// Datagrams that were counted and not answered. Warm-up datagrams of sockperf are kept apart, because a pause
// follows them: the time between the first and the last arrival is that of a steady stream.
struct Sink {
    std::uint64_t datagrams = 0;
    std::uint64_t bytes = 0; // UDP payload
    std::uint64_t first_ns = 0;
    std::uint64_t last_ns = 0;
    std::uint64_t longest_gap_ns = 0; // between two arrivals: a stall shows here
    std::uint64_t warmup = 0;
};

struct Counters {
    std::uint64_t received = 0;
    std::uint64_t received_bytes = 0;
    std::uint64_t sent = 0;
    std::uint64_t send_full = 0;    // the other side's queue was full
    std::uint64_t send_no_peer = 0; // nobody is bound to the other end (yet, or any more)
    std::uint64_t send_errors = 0;
    std::uint64_t receive_errors = 0;
    std::uint64_t malformed = 0;
    std::uint64_t bad_checksum = 0;
    std::uint64_t ignored = 0; // well formed, but nothing that this peer serves
    std::uint64_t arp = 0;
    std::uint64_t icmp_echo = 0;
    std::uint64_t udp_echo = 0;
    std::uint64_t udp_warmup = 0;
    std::uint64_t tap_in = 0;      // ignored, and given to the kernel behind a TAP interface
    std::uint64_t tap_out = 0;     // frames of that kernel's
    std::uint64_t tap_refused = 0; // that kernel did not take them
    std::uint64_t flood_sent = 0;
    std::uint64_t flood_missed = 0; // of a flood with a rate: the wire was full, or this program late
    Sink sink;
};

// An IPv4 address, or all addresses that begin with the same bits.
struct Ipv4Range {
    Ipv4 address{};
    unsigned bits = 32;

    bool holds(std::span<const std::uint8_t> ip) const noexcept;
};

// A host with one MAC and one IPv4 address, or a range of them: its sink then tells many flows of a guest
// apart for the guest's routing.
class Responder {
  public:
    Responder(const Mac &mac, const Ipv4Range &ip) noexcept : mac_(mac), ip_(ip) {}

    // Turns the frame into its own answer where there is one: true means "send it back".
    bool answer(std::span<std::uint8_t> frame, std::uint64_t now_ns, Counters &counters) const noexcept;

  private:
    bool answer_arp(std::span<std::uint8_t> frame, Counters &counters) const noexcept;
    bool answer_ipv4(std::span<std::uint8_t> frame, std::uint64_t now_ns, Counters &counters) const noexcept;
    void turn_around(std::span<std::uint8_t> frame) const noexcept;

    Mac mac_;
    Ipv4Range ip_;
};

} // namespace svio::wire_peer
