// SPDX-License-Identifier: GPL-2.0-or-later
// What carries the frames of a wire: a pair of unix datagram sockets, or a network interface of the host's.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace svio::wire_peer {

enum class Put {
    Sent,
    Full,   // there is no room: again when send_fd() is writable
    Lost,   // it was dropped on the way, as on a real wire
    Absent, // nobody is at the other end
    Failed,
};

class Link {
  public:
    Link() = default;
    virtual ~Link();
    Link(const Link &) = delete;
    Link &operator=(const Link &) = delete;

    // Frames that have come are read from here, one with each recv().
    int fd() const noexcept { return fd_; }
    // Writable when there is room for frames. Another descriptor than fd(), so that both can be waited for.
    int send_fd() const noexcept { return send_fd_; }
    // The frame in what recv() gave; nothing when there is none. A check sum that was left to others is in
    // it.
    virtual std::span<std::uint8_t> frame_of(std::span<std::uint8_t> received) noexcept { return received; }
    // Never blocks.
    virtual Put put(std::span<const std::uint8_t> frame) noexcept = 0;

  protected:
    int fd_ = -1;
    int send_fd_ = -1;
};

// Binds the unix datagram socket `local` and sends to `remote`, where each datagram is one Ethernet frame.
// Throws std::runtime_error with a sentence.
std::unique_ptr<Link> socket_link(const std::string &local, const std::string &remote);

// All frames that come from the interface `name`, and frames into it (packet(7)): so a TAP interface has this
// program at its kernel's end. Needs CAP_NET_RAW. Tags of VLANs are not seen. A large segment comes whole, as
// the kernel behind a TAP would get it. Throws as above.
std::unique_ptr<Link> interface_link(const std::string &name);

} // namespace svio::wire_peer
