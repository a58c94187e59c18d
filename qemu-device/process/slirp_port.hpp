// SPDX-License-Identifier: GPL-2.0-or-later
/// `--port slirp`: a user network by libslirp, as QEMU's `-netdev user`, and without a privilege.
#pragma once

#include "descriptor.hpp"
#include "host.hpp"

#include <atomic>
#include <deque>
#include <libslirp.h>
#include <list>
#include <mutex>
#include <poll.h>
#include <unordered_map>

namespace svio {

/// libslirp knows one thread at a time: the core that polls the port runs it, in fill(). What other cores
/// send lies in a bounded box until then.
class SlirpPort final : public Port {
  public:
    static constexpr size_t inbox_max = 512;    ///< frames of guests; with more the port is blocked
    static constexpr size_t answers_max = 4096; ///< frames for guests; those beyond are lost

    /// Parses "slirp" or "slirp:OPTION,...": restrict=on|off, and hostfwd=PROTO:[ADDR]:PORT-[GUEST]:PORT
    /// (also several). On failure null, and one sentence in `error`.
    static std::unique_ptr<SlirpPort> open(const std::string &spec, std::string &error);
    static bool named(const std::string &spec) { return spec == "slirp" || spec.starts_with("slirp:"); }
    ~SlirpPort() override;

    void send(std::span<const iovec> frames, std::span<Verdict> verdicts) override;
    bool blocked() const override { return blocked_; }
    bool native() const override { return true; }
    bool fill() override;
    std::span<const uint8_t> front() override { return answers_.front(); }
    void pop() override { answers_.pop_front(); }
    void visit_counters(const Visitor &visit) const override;
    int receive_fd() const override { return events_.get(); }
    int send_fd() const override { return room_.get(); }
    size_t max_frame() const override;

  private:
    struct Timer {
        SlirpTimerCb call;
        void *opaque;
        int64_t at_ms; // -1: not set
    };

    SlirpPort();
    static const SlirpCb &callbacks();
    bool start(bool restricted, std::string &error);
    bool forward(const std::string &rule, std::string &error);
    void take_inbox();
    void serve_sockets();
    void serve_timers();
    void await();
    void await_socket(const pollfd &wanted);
    void await_time(uint32_t timeout_ms);
    void forget(int fd);

    Slirp *slirp_ = nullptr;
    MonotonicClock clock_;
    Descriptor events_; // epoll: all that a sleeping core has to wake for
    Descriptor alarm_;  // timerfd
    Descriptor kick_;   // eventfd, readable while the box has frames
    Descriptor room_;   // eventfd, writable while it is not full

    std::mutex inbox_mutex_;
    std::vector<std::vector<uint8_t>> inbox_;
    std::atomic<bool> kicked_{false};
    std::atomic<bool> blocked_{false};
    std::atomic<uint64_t> answers_lost_{0};
    std::atomic<uint64_t> fragments_refused_{0};

    // Of the core that polls.
    std::deque<std::vector<uint8_t>> answers_;
    std::vector<std::vector<uint8_t>> taken_;
    std::vector<pollfd> sockets_; // as libslirp numbers them
    std::unordered_map<int, short> awaited_;
    std::vector<int> gone_;
    std::list<Timer> timers_;
    uint64_t alarm_at_ = 0; // 0: not set
};

} // namespace svio
