// SPDX-License-Identifier: GPL-2.0-or-later
#include "wire.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <sys/socket.h>
#include <vector>

namespace svio::wire_peer {

namespace {

constexpr unsigned kBatch = 64;
constexpr std::size_t kFrameMax = 65536 + 28; // with what may come before it, see link.cpp
constexpr std::size_t kWaitingMax = 64;
// Between two looks at what arrived: few, so that a flood does not delay answers.
constexpr unsigned kFloodBatch = 8;
constexpr std::size_t kFloodsMax = 64;

} // namespace

std::uint64_t monotonic_ns() noexcept {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(now.tv_nsec);
}

namespace {

// Ethernet has no shorter frames (60 bytes without their check sequence), and emulated NICs drop them. There
// is always room: frames are received into kFrameMax bytes.
std::span<std::uint8_t> padded(std::span<std::uint8_t> frame) noexcept {
    constexpr std::size_t kFrameMin = 60;
    if (frame.size() >= kFrameMin) {
        return frame;
    }
    std::memset(frame.data() + frame.size(), 0, kFrameMin - frame.size());
    return {frame.data(), kFrameMin};
}

} // namespace

struct Wire::Batch {
    Batch() : bytes(kBatch * kFrameMax) {
        for (std::size_t i = 0; i < kBatch; ++i) {
            vectors[i] = {bytes.data() + i * kFrameMax, kFrameMax};
            messages[i].msg_hdr.msg_iov = &vectors[i];
            messages[i].msg_hdr.msg_iovlen = 1;
        }
    }

    std::vector<std::uint8_t> bytes;
    std::array<iovec, kBatch> vectors{};
    std::array<mmsghdr, kBatch> messages{};
};

Wire::Wire(const WireOptions &options)
    : options_(options), responder_(options.mac, options.ip), batch_(std::make_unique<Batch>()),
      link_(options.interface.empty() ? socket_link(options.local, options.remote)
                                      : interface_link(options.interface)) {
    if (!options.tap.empty()) {
        tap_ = std::make_unique<Tap>(options.tap);
    }
}

Wire::~Wire() = default;

void Wire::serve() {
    auto &messages = batch_->messages;
    const int count = recvmmsg(fd(), messages.data(), kBatch, MSG_DONTWAIT, nullptr);
    if (count < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            ++counters_.receive_errors;
        }
        return;
    }
    const auto now = monotonic_ns();
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
        const auto ignored = counters_.ignored;
        const auto frame = link_->frame_of({batch_->bytes.data() + i * kFrameMax, messages[i].msg_len});
        if (messages[i].msg_hdr.msg_flags & MSG_TRUNC) {
            ++counters_.received;
            ++counters_.malformed;
        } else if (responder_.answer(frame, now, counters_)) {
            send(padded(frame));
        } else if (tap_ && counters_.ignored != ignored) {
            ++(tap_->put(frame) ? counters_.tap_in : counters_.tap_refused);
        }
    }
}

void Wire::serve_tap() {
    for (unsigned i = 0; i < kBatch && takes_from_tap(); ++i) {
        const auto frame = tap_->next({batch_->bytes.data(), kFrameMax});
        if (frame.empty()) {
            return;
        }
        ++counters_.tap_out;
        send(padded(frame));
    }
}

Put Wire::put(std::span<const std::uint8_t> frame) noexcept {
    const auto done = link_->put(frame);
    counters_.sent += done == Put::Sent;
    counters_.send_full += done == Put::Lost;
    counters_.send_no_peer += done == Put::Absent;
    counters_.send_errors += done == Put::Failed;
    return done;
}

void Wire::send(std::span<const std::uint8_t> frame) {
    if (waiting_.empty() && put(frame) != Put::Full) {
        return;
    }
    if (waiting_.size() < kWaitingMax) {
        waiting_.emplace_back(frame.begin(), frame.end());
    } else {
        ++counters_.send_full;
    }
}

bool Wire::start_flood(const FloodOptions &options) {
    std::erase_if(floods_, [&](const Flood &flood) { return flood.goes_to(options); });
    if (floods_.size() >= kFloodsMax) {
        return false;
    }
    floods_.emplace_back(options, options_.mac, options_.ip.address, monotonic_ns());
    return true;
}

std::uint64_t Wire::tick_ns() const noexcept {
    std::uint64_t shortest = 0;
    for (const auto &flood : floods_) {
        shortest = shorter(shortest, flood.tick_ns());
    }
    return shortest;
}

bool Wire::put_flood(Flood &flood) noexcept {
    const auto done = put(flood.frame());
    if (done == Put::Full) {
        return false;
    }
    if (done == Put::Absent || done == Put::Failed) {
        stop_floods();
        return false;
    }
    ++(done == Put::Lost ? counters_.flood_missed : counters_.flood_sent);
    flood.next();
    return true;
}

void Wire::tick(Flood &flood, std::uint64_t now_ns) noexcept {
    const auto due = flood.due(now_ns);
    counters_.flood_missed += due.late;
    for (auto left = due.frames; left; --left) {
        if (!waiting_.empty() || !put_flood(flood)) {
            counters_.flood_missed += left;
            return;
        }
    }
}

void Wire::tick() noexcept {
    const auto now = monotonic_ns();
    for (std::size_t i = 0; i < floods_.size(); ++i) { // they may end meanwhile
        tick(floods_[i], now);
    }
}

bool Wire::waits() const noexcept {
    return !waiting_.empty() || std::ranges::any_of(floods_, &Flood::unlimited);
}

void Wire::writable() noexcept {
    for (; !waiting_.empty(); waiting_.pop_front()) {
        if (put(waiting_.front()) == Put::Full) {
            return;
        }
    }
    for (unsigned i = 0; i < kFloodBatch && waits(); ++turn_) {
        auto &flood = floods_[turn_ % floods_.size()];
        if (!flood.unlimited()) {
            continue;
        }
        if (!put_flood(flood)) {
            return;
        }
        ++i;
    }
}

} // namespace svio::wire_peer
