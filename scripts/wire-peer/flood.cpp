// SPDX-License-Identifier: GPL-2.0-or-later
#include "flood.hpp"

#include <algorithm>

namespace svio::wire_peer {

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kTickMin = 100'000; // ns
constexpr std::uint64_t kTickMax = 10'000'000;
constexpr std::uint64_t kBurstMax = 64; // what a late program makes up for

constexpr std::size_t kIp = 14;
constexpr std::size_t kUdp = kIp + 20;
constexpr std::size_t kPayload = kUdp + 8;

void store(std::vector<std::uint8_t> &bytes, std::size_t at, std::uint64_t value, std::size_t size) noexcept {
    for (std::size_t i = size; i-- > 0; value >>= 8) {
        bytes[at + i] = static_cast<std::uint8_t>(value);
    }
}

std::uint16_t ip_checksum(const std::vector<std::uint8_t> &frame) noexcept {
    std::uint32_t sum = 0;
    for (std::size_t i = kIp; i < kUdp; i += 2) {
        sum += static_cast<std::uint32_t>(frame[i] << 8 | frame[i + 1]);
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
}

} // namespace

Flood::Flood(const FloodOptions &options, const Mac &from, const Ipv4 &from_ip, std::uint64_t now_ns)
    : frame_(kPayload + options.payload), mac_(options.mac), ip_(options.ip), rate_(options.rate),
      begin_ns_(now_ns) {
    std::ranges::copy(options.mac, frame_.begin());
    std::ranges::copy(from, frame_.begin() + 6);
    store(frame_, 12, 0x0800, 2);
    store(frame_, kIp, 0x4500, 2);
    store(frame_, kIp + 2, frame_.size() - kIp, 2);
    store(frame_, kIp + 6, 0x4000, 2); // not to be fragmented
    store(frame_, kIp + 8, 64, 1);
    store(frame_, kIp + 9, 17, 1);
    std::ranges::copy(from_ip, frame_.begin() + kIp + 12);
    std::ranges::copy(options.ip, frame_.begin() + kIp + 16);
    store(frame_, kIp + 10, ip_checksum(frame_), 2);
    store(frame_, kUdp, kDiscardPort, 2);
    store(frame_, kUdp + 2, kDiscardPort, 2);
    store(frame_, kUdp + 4, frame_.size() - kUdp, 2);
    // No UDP checksum: the number changes with each frame.
}

std::uint64_t Flood::tick_ns() const noexcept {
    return rate_ ? std::clamp(kSecond / rate_, kTickMin, kTickMax) : 0;
}

Flood::Due Flood::due(std::uint64_t now_ns) noexcept {
    const auto spent = now_ns - begin_ns_;
    const auto total = spent / kSecond * rate_ + spent % kSecond * rate_ / kSecond;
    Due found{.frames = total - told_};
    told_ = total;
    if (found.frames > kBurstMax) {
        found.late = found.frames - kBurstMax;
        found.frames = kBurstMax;
    }
    return found;
}

void Flood::next() noexcept {
    store(frame_, kPayload, ++sequence_, 8);
}

} // namespace svio::wire_peer
