// SPDX-License-Identifier: GPL-2.0-or-later
/// `--port udp:`: a wire to a board on another host; each datagram is a frame.
#pragma once

#include "descriptor.hpp"
#include "native_port.hpp"

#include <netinet/in.h>

namespace svio {

class UdpPort final : public NativePort {
  public:
    /// Parses "udp:LOCAL_ADDR:PORT,REMOTE_ADDR:PORT" (IPv4). On failure null, and one sentence in `error`.
    static std::unique_ptr<Port> open(const std::string &spec, std::string &error);
    static bool named(const std::string &spec) { return spec == "udp" || spec.starts_with("udp:"); }
    ~UdpPort() override;
    int receive_fd() const override { return socket_.get(); }
    int send_fd() const override { return socket_.get(); }
    void visit_counters(const Visitor &visit) const override {
        visit("foreign", foreign_);
        visit("send_failed", failed_);
    }

  protected:
    void read_batch() override;
    void send_frames(std::span<const iovec> frames, std::span<Verdict> verdicts) override;

  private:
    UdpPort() = default;

    Descriptor socket_;
    sockaddr_in remote_{};
    std::atomic<uint64_t> foreign_{0}; // datagrams of others
    std::atomic<uint64_t> failed_{0};  // frames that the host's network refused
};

} // namespace svio
