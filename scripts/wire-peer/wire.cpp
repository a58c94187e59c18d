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

void Wire::start_flood(const FloodOptions &options) {
    flood_.emplace(options, options_.mac, options_.ip.address, monotonic_ns());
}

void Wire::tick() noexcept {
    if (!flood_) {
        return;
    }
    const auto due = flood_->due(monotonic_ns());
    counters_.flood_missed += due.late;
    for (std::uint64_t left = due.frames; left; --left) {
        const auto done = waiting_.empty() ? put(flood_->frame()) : Put::Full;
        if (done == Put::Absent || done == Put::Failed) {
            return stop_flood();
        }
        if (done == Put::Full) {
            counters_.flood_missed += left;
            return;
        }
        ++(done == Put::Lost ? counters_.flood_missed : counters_.flood_sent);
        flood_->next();
    }
}

void Wire::writable() noexcept {
    for (; !waiting_.empty(); waiting_.pop_front()) {
        if (put(waiting_.front()) == Put::Full) {
            return;
        }
    }
    for (unsigned i = 0; flood_ && flood_->unlimited() && i < kFloodBatch; ++i) {
        const auto done = put(flood_->frame());
        if (done == Put::Full) {
            return;
        }
        if (done == Put::Absent || done == Put::Failed) {
            return stop_flood();
        }
        ++(done == Put::Lost ? counters_.flood_missed : counters_.flood_sent);
        flood_->next();
    }
}

} // namespace svio::wire_peer
