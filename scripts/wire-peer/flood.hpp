// SPDX-License-Identifier: GPL-2.0-or-later
// A stream of datagrams that the peer sends unasked.
#pragma once

#include "responder.hpp"

#include <vector>

namespace svio::wire_peer {

struct FloodOptions {
    Mac mac{}; // whom it goes to
    Ipv4 ip{};
    std::size_t payload = 0; // bytes of each datagram
    std::uint64_t rate = 0;  // datagrams per second, 0: as many as the wire takes
};

constexpr std::size_t kFloodPayloadMin = 8; // the sequence number
constexpr std::size_t kFloodPayloadMax = 9000 - 28;
constexpr std::uint64_t kFloodRateMax = 10'000'000;

class Flood {
  public:
    struct Due {
        std::uint64_t frames = 0;
        std::uint64_t late = 0; // can no longer be sent without a burst
    };

    Flood(const FloodOptions &options, const Mac &from, const Ipv4 &from_ip, std::uint64_t now_ns);

    bool goes_to(const FloodOptions &options) const noexcept {
        return mac_ == options.mac && ip_ == options.ip;
    }
    bool unlimited() const noexcept { return rate_ == 0; }
    std::uint64_t tick_ns() const noexcept;
    // With a rate: what is to be sent now. Each frame is told once.
    Due due(std::uint64_t now_ns) noexcept;

    // From and to port 9; the payload begins with a number that counts from 0, in network order.
    std::span<const std::uint8_t> frame() const noexcept { return frame_; }
    void next() noexcept;

  private:
    std::vector<std::uint8_t> frame_;
    Mac mac_;
    Ipv4 ip_;
    std::uint64_t rate_;
    std::uint64_t begin_ns_;
    std::uint64_t told_ = 0;
    std::uint64_t sequence_ = 0;
};

} // namespace svio::wire_peer
