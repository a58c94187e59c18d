// SPDX-License-Identifier: GPL-2.0-or-later
/// `port=echo`: a peer inside of the process, with the answers of svio-wire-peer (ARP, ping, UDP echo).
#pragma once

#include "host.hpp"

#include "responder.hpp"

#include <deque>
#include <mutex>

namespace svio {

class EchoPort final : public Port {
  public:
    static constexpr wire_peer::Mac mac{0x52, 0x54, 0x00, 0x5e, 0xc0, 0x01};
    static constexpr size_t queue_max = 1024; ///< answers that nobody has taken yet

    /// Parses "echo" (10.0.2.2) or "echo:IPV4". On failure null, and one sentence in `error`. An answer is
    /// there `delay_ns` of the clock after its request.
    static std::unique_ptr<EchoPort> open(const std::string &spec, Clock &clock, uint64_t delay_ns,
                                          std::string &error);
    /// Is `spec` one for open()?
    static bool named(const std::string &spec) { return spec == "echo" || spec.starts_with("echo:"); }
    ~EchoPort() override;

    void send(std::span<const iovec> frames, std::span<Verdict> verdicts) override;
    bool blocked() const override { return false; }
    bool native() const override { return true; }
    bool fill() override;
    std::span<const uint8_t> front() override;
    void pop() override;
    std::vector<PortFrame> pending() const override;
    void purge(bool shared) override;
    uint64_t due() const override;
    int receive_fd() const override { return fd_; }
    size_t max_frame() const override;

  private:
    struct Answer {
        uint64_t at;
        std::vector<uint8_t> frame;
    };
    EchoPort(const wire_peer::Ipv4 &ip, Clock &clock, uint64_t delay_ns);
    void settle_fd();

    wire_peer::Responder responder_;
    Clock &clock_;
    const uint64_t delay_ns_;
    mutable std::mutex mutex_; // each core sends for its own queue pairs
    wire_peer::Counters counters_;
    std::deque<Answer> answers_;
    int fd_ = -1;           // readable while
    bool readable_ = false; // answers are there
};

} // namespace svio
