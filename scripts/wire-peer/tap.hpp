// SPDX-License-Identifier: GPL-2.0-or-later
// A TAP interface: the kernel of this host (or of a network namespace) behind a wire, for what the peer does
// not answer itself.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace svio::wire_peer {

class Tap {
  public:
    // Takes over an interface that exists, or makes it where this process may; throws std::runtime_error.
    explicit Tap(const std::string &name);
    ~Tap();
    Tap(const Tap &) = delete;
    Tap &operator=(const Tap &) = delete;

    int fd() const noexcept { return fd_; }
    // A frame for the kernel; false when it does not take it (the interface is down, or it has no memory).
    bool put(std::span<const std::uint8_t> frame) const noexcept;
    // The next frame of the kernel's, into this room: the part of it that is used, empty when there is none.
    std::span<std::uint8_t> next(std::span<std::uint8_t> room) const noexcept;

  private:
    int fd_ = -1;
};

} // namespace svio::wire_peer
