// SPDX-License-Identifier: GPL-2.0-or-later
/// Ports whose descriptor an on-board core polls itself, and the parser of `port=`.
#pragma once

#include "host.hpp"
#include "svio_abi.h"

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <netinet/in.h>
#include <string>
#include <sys/socket.h>
#include <sys/types.h>
#include <vector>

namespace svio {

/// Parses "dgram:LOCAL,REMOTE", "tap:IFNAME" or "echo[:IPV4]" and opens it. On failure null, and one sentence
/// in `error`. An answer of echo is there `echo_ns` of `clock` (null: the host's) after its request.
/// `incoming`: the machine still runs in another process, whose wire is left alone until Port::activate().
std::unique_ptr<Port> open_native_port(const std::string &spec, std::string &error, bool incoming = false,
                                       Clock *clock = nullptr, uint64_t echo_ns = 0);

/// Frames read from a descriptor in batches.
class NativePort : public Port {
  public:
    bool native() const override { return true; }
    /// By any core: each sends for its own queue pairs.
    void send(std::span<const iovec> frames, std::span<Verdict> verdicts) final {
        std::lock_guard guard(send_mutex_);
        send_frames(frames, verdicts);
    }
    bool fill() override;
    std::span<const uint8_t> front() override;
    Offload front_offload() const override { return offloads_[next_]; }
    void pop() override { next_++; }
    std::vector<PortFrame> pending() const override;
    bool blocked() const override { return blocked_; }

  protected:
    static constexpr size_t batch = 32;
    NativePort();
    /// Reads up to `batch` frames without waiting, by way of slot() and received().
    virtual void read_batch() = 0;
    virtual void send_frames(std::span<const iovec> frames, std::span<Verdict> verdicts) = 0;
    /// Each frame a datagram, as many as the socket takes at once, to `to` or to whom it is connected: how
    /// many those are, or -1 and errno.
    static int send_datagrams(int fd, std::span<const iovec> frames, const sockaddr_in *to = nullptr);
    iovec slot(size_t n) { return {buffer_.data() + n * slot_size, slot_size}; }
    void forget_received() { next_ = lengths_.size(); }
    /// Of what begins `header_` bytes into the next slot.
    void received(size_t length, const Offload &offload = {}) {
        offloads_[lengths_.size()] = offload;
        lengths_.push_back(length);
    }
    size_t header_ = 0;
    std::atomic<bool> blocked_{false};

  private:
    /// More than any frame, so that one which is too long shows, rather than be cut to a whole one.
    static constexpr size_t slot_size = SVIO_MESSAGE_MAX + 64;
    std::mutex send_mutex_;
    std::vector<uint8_t> buffer_;
    std::vector<size_t> lengths_;
    std::array<Offload, batch> offloads_{};
    size_t next_ = 0;

  public:
    size_t max_frame() const final;
};

/// A unix datagram socket; each datagram is a frame, as with QEMU's own `-netdev dgram`.
class DgramPort final : public NativePort {
  public:
    ~DgramPort() override;
    static std::unique_ptr<Port> open(const std::string &local, const std::string &remote, std::string &error,
                                      bool incoming = false);
    bool activate(std::string &error) override;
    void release() override;
    void remove_files() const override;
    int receive_fd() const override { return receive_fd_; }
    int send_fd() const override { return send_fd_; }

  protected:
    void read_batch() override;
    void send_frames(std::span<const iovec> frames, std::span<Verdict> verdicts) override;

  private:
    DgramPort();
    bool connect_remote();
    bool bind_at(const std::string &path, std::string &error);
    bool owns(const std::string &path) const;

    // Prepared once: an empty look, of which there are many, costs little more than its system call.
    std::array<mmsghdr, batch> messages_{};
    std::array<iovec, batch> slots_{};
    std::string local_;
    std::string remote_;
    std::string bound_; // where our socket is, which is not `local_` before activate()
    dev_t device_ = 0;  // and what it is there: another process may put its own in its place
    ino_t inode_ = 0;
    // Atomic: a core about to sleep reads them while the holder of a paused board exchanges them.
    std::atomic<int> receive_fd_{-1};
    std::atomic<int> send_fd_{-1};
    bool connected_ = false;
};

/// A tap interface of the host.
class TapPort final : public NativePort {
  public:
    ~TapPort() override;
    static std::unique_ptr<Port> open(const std::string &name, std::string &error, bool incoming = false);
    bool activate(std::string &error) override;
    void release() override;
    int receive_fd() const override { return fd_; }
    int send_fd() const override { return fd_; }
    bool carries_offloads() const override { return header_ != 0; }

  protected:
    void read_batch() override;
    void send_frames(std::span<const iovec> frames, std::span<Verdict> verdicts) override;

  private:
    TapPort() = default;
    bool attach(std::string &error);
    void take_offloads();

    std::string name_;
    bool stale_ = false;      // what the interface has for us is from before the machine came here
    std::atomic<int> fd_{-1}; // as in DgramPort
};

} // namespace svio
