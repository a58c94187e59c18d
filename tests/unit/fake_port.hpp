// SPDX-License-Identifier: GPL-2.0-or-later
/// Two wires for tests: one that pushes and wants the guest lock, as a QEMU netdev, and one that a core
/// polls.
#pragma once

#include "fake_guest.hpp"

#include <deque>

namespace svio::test {

/// What both know about sending: frames taken are written down; it can be full, and fail.
class FakePort : public Port {
  public:
    void send(std::span<const iovec> frames, std::span<Verdict> verdicts) override {
        ASSERT_EQ(frames.size(), verdicts.size());
        for (size_t i = 0; i < frames.size(); i++) {
            if (room == 0) {
                blocked_ = true;
                return;
            }
            if (failing > 0) {
                failing--;
                verdicts[i] = Verdict::Failed;
                continue;
            }
            room--;
            auto *data = static_cast<const uint8_t *>(frames[i].iov_base);
            sent.emplace_back(data, data + frames[i].iov_len);
            verdicts[i] = Verdict::Sent;
            sent_count.store(sent.size());
        }
    }
    bool blocked() const override { return blocked_; }
    void purge(bool) override { purges++; }
    size_t max_frame() const override { return frame_limit; }
    uint32_t speed_mbps() const override { return 12345; }
    void unblock(size_t frames) {
        room = frames;
        blocked_ = false;
    }

    std::vector<Frame> sent;
    std::atomic<size_t> sent_count{0};
    size_t room = SIZE_MAX;
    size_t failing = 0;
    size_t frame_limit = SVIO_MESSAGE_MAX;
    int purges = 0;

  private:
    std::atomic<bool> blocked_{false};
};

/// As QEMU's netdev: keeps what was refused, in order, and offers it again at flush_receive().
class PushPort final : public FakePort {
  public:
    explicit PushPort(BigLock &lock) : lock_(lock) {}
    void send(std::span<const iovec> frames, std::span<Verdict> verdicts) override {
        EXPECT_TRUE(lock_.mine()) << "a frame for the netdev without the guest lock";
        FakePort::send(frames, verdicts);
        // libslirp answers on the same thread, inside of send().
        for (; echo > 0 && board; echo--)
            offer(make_frame(60, 4000 + echo));
    }
    bool wants_guest_lock() const override { return true; }
    void flush_receive() override {
        EXPECT_TRUE(lock_.mine()) << "flush_receive() without the guest lock";
        flushes++;
        while (!held.empty() && board->receive(held.front()))
            held.pop_front();
    }
    /// The netdev has a frame. Guest lock held.
    void offer(const Frame &frame) {
        EXPECT_TRUE(lock_.mine());
        if (!held.empty() || !board->receive(frame))
            held.push_back(frame);
    }

    Board *board = nullptr;
    std::deque<Frame> held;
    int flushes = 0;
    unsigned echo = 0;

  private:
    BigLock &lock_;
};

/// Polled by a core, without descriptors: for tests that call the core themselves.
class PolledPort final : public FakePort {
  public:
    bool native() const override { return true; }
    bool fill() override { return !incoming.empty(); }
    std::span<const uint8_t> front() override { return incoming.front(); }
    void pop() override { incoming.pop_front(); }

    std::deque<Frame> incoming;
};

} // namespace svio::test
