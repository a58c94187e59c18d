// SPDX-License-Identifier: GPL-2.0-or-later
// One wire: its link, who answers on it, and what else is sent there.
#pragma once

#include "flood.hpp"
#include "link.hpp"
#include "responder.hpp"
#include "tap.hpp"

#include <algorithm>
#include <deque>
#include <memory>
#include <string>
#include <vector>

namespace svio::wire_peer {

std::uint64_t monotonic_ns() noexcept;

// Of two times to wait; 0: no need to.
constexpr std::uint64_t shorter(std::uint64_t one, std::uint64_t other) noexcept {
    return one && other ? std::min(one, other) : one + other;
}

struct WireOptions {
    std::string name;
    std::string local;     // this side's socket
    std::string remote;    // the NIC's socket
    std::string interface; // in place of the two: an interface of the host's whose other end the NIC has
    std::string tap;       // an interface for what this host does not answer itself; empty: none
    Mac mac{};
    Ipv4Range ip{};
};

class Wire {
  public:
    // Opens the link; throws std::runtime_error with a sentence.
    explicit Wire(const WireOptions &options);
    ~Wire();
    Wire(const Wire &) = delete;
    Wire &operator=(const Wire &) = delete;

    int fd() const noexcept { return link_->fd(); }
    int send_fd() const noexcept { return link_->send_fd(); }
    const std::string &name() const noexcept { return options_.name; }
    const Counters &counters() const noexcept { return counters_; }
    void reset_counters() noexcept { counters_ = Counters{}; }

    // Takes what has arrived (a bounded batch) and answers it. Never blocks.
    void serve();

    // Frames of the TAP interface for the wire; they stay there while something waits for room on the wire.
    int tap_fd() const noexcept { return tap_ ? tap_->fd() : -1; }
    bool takes_from_tap() const noexcept { return tap_ && waiting_.empty(); }
    void serve_tap();

    // Sends to this NIC until it is told to stop, or nobody is bound to the other end. NICs that share the
    // wire can be flooded at once, and take turns at it; one that is already has its flood anew. False: too
    // many.
    bool start_flood(const FloodOptions &options);
    void stop_floods() noexcept { floods_.clear(); }
    // How often tick() wants to be called; 0: not at all.
    std::uint64_t tick_ns() const noexcept;
    void tick() noexcept;

    // Is there something that waits for room on the wire? Then writable() is to be called when there is.
    bool waits() const noexcept;
    void writable() noexcept;

  private:
    struct Batch;
    void send(std::span<const std::uint8_t> frame);
    Put put(std::span<const std::uint8_t> frame) noexcept;
    // The next frame of a flood. False: there is no room for it, or all floods have ended.
    bool put_flood(Flood &flood) noexcept;
    void tick(Flood &flood, std::uint64_t now_ns) noexcept;

    WireOptions options_;
    Responder responder_;
    Counters counters_;
    std::unique_ptr<Batch> batch_;
    std::unique_ptr<Link> link_;
    std::vector<Flood> floods_;
    std::size_t turn_ = 0; // whose it is of the floods that have no rate
    std::unique_ptr<Tap> tap_;
    // Answers that found the wire full, as any host has a queue before its NIC. They go before the floods.
    std::deque<std::vector<std::uint8_t>> waiting_;
};

} // namespace svio::wire_peer
