// SPDX-License-Identifier: GPL-2.0-or-later
// One wire: a unix datagram socket on which each datagram is one Ethernet frame.
#pragma once

#include "frame.hpp"

#include <memory>
#include <string>
#include <sys/un.h>

namespace svio::wire_peer {

struct WireOptions {
    std::string name;
    std::string local;  // this side's socket
    std::string remote; // the NIC's socket
    Mac mac{};
    Ipv4 ip{};
};

class Wire {
  public:
    // Binds the local socket; throws std::runtime_error with a sentence.
    explicit Wire(const WireOptions &options);
    ~Wire();
    Wire(const Wire &) = delete;
    Wire &operator=(const Wire &) = delete;

    int fd() const noexcept { return fd_; }
    const std::string &name() const noexcept { return options_.name; }
    const Counters &counters() const noexcept { return counters_; }
    void reset_counters() noexcept { counters_ = Counters{}; }

    // Takes what has arrived (a bounded batch) and answers it. Never blocks.
    void serve() noexcept;

  private:
    struct Batch;

    void send(std::span<const std::uint8_t> frame) noexcept;
    bool connect_remote() noexcept;

    WireOptions options_;
    Responder responder_;
    int fd_ = -1;
    int send_fd_ = -1;
    bool connected_ = false;
    sockaddr_un remote_{};
    Counters counters_;
    std::unique_ptr<Batch> batch_;
};

} // namespace svio::wire_peer
