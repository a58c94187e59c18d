// SPDX-License-Identifier: GPL-2.0-or-later
#include "wire.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <stdexcept>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace svio::wire_peer {

namespace {

constexpr unsigned kBatch = 64;
constexpr std::size_t kFrameMax = 65536 + 18;
constexpr int kSocketBuffer = 8 << 20;
constexpr std::size_t kWaitingMax = 64;
// Between two looks at what arrived: few, so that a flood does not delay answers.
constexpr unsigned kFloodBatch = 8;

[[noreturn]] void fail(const std::string &what, int error) {
    throw std::runtime_error(what + ": " + std::strerror(error));
}

sockaddr_un address_of(const std::string &path) {
    sockaddr_un address{};
    if (path.empty() || path.size() >= sizeof address.sun_path) {
        throw std::runtime_error("the socket path \"" + path + "\" is empty or longer than " +
                                 std::to_string(sizeof address.sun_path - 1) + " bytes");
    }
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

// A socket file that nobody listens to any more is in the way of bind(). Anything else is left alone.
void remove_stale(int fd, const sockaddr_un &address) {
    struct stat facts {};
    if (lstat(address.sun_path, &facts) != 0 || !S_ISSOCK(facts.st_mode)) {
        return;
    }
    // An empty datagram to a bound socket would reach its owner; connecting does not.
    if (connect(fd, reinterpret_cast<const sockaddr *>(&address), sizeof address) != 0 &&
        errno == ECONNREFUSED) {
        unlink(address.sun_path);
    }
    sockaddr nobody{};
    nobody.sa_family = AF_UNSPEC;
    connect(fd, &nobody, sizeof nobody);
}

// Root may exceed the system's limit; others get as much as the limit allows.
void enlarge(int fd, int forced, int plain) noexcept {
    const int size = kSocketBuffer;
    if (setsockopt(fd, SOL_SOCKET, forced, &size, sizeof size) != 0) {
        setsockopt(fd, SOL_SOCKET, plain, &size, sizeof size);
    }
}

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
    : options_(options), responder_(options.mac, options.ip), remote_(address_of(options.remote)),
      batch_(std::make_unique<Batch>()) {
    const auto local = address_of(options.local);
    fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    send_fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd_ < 0 || send_fd_ < 0) {
        fail("no unix datagram socket", errno);
    }
    if (!options.tap.empty()) {
        tap_ = std::make_unique<Tap>(options.tap);
    }
    enlarge(send_fd_, SO_SNDBUFFORCE, SO_SNDBUF);
    enlarge(fd_, SO_RCVBUFFORCE, SO_RCVBUF);
    remove_stale(fd_, local);
    if (bind(fd_, reinterpret_cast<const sockaddr *>(&local), sizeof local) != 0) {
        const int error = errno;
        close(fd_);
        fail("cannot bind " + options.local, error);
    }
}

Wire::~Wire() {
    close(fd_);
    close(send_fd_);
    unlink(options_.local.c_str());
}

void Wire::serve() {
    auto &messages = batch_->messages;
    const int count = recvmmsg(fd_, messages.data(), kBatch, MSG_DONTWAIT, nullptr);
    if (count < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            ++counters_.receive_errors;
        }
        return;
    }
    const auto now = monotonic_ns();
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
        const auto ignored = counters_.ignored;
        std::span frame{batch_->bytes.data() + i * kFrameMax, messages[i].msg_len};
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

// Looking the other side's path up costs as much as a message, hence a connected socket of its own: the bound
// one hears every sender. A VM that came later, or came again, is found by connecting anew.
bool Wire::connect_remote() noexcept {
    connected_ = connect(send_fd_, reinterpret_cast<const sockaddr *>(&remote_), sizeof remote_) == 0;
    return connected_;
}

Wire::Put Wire::put(std::span<const std::uint8_t> frame) noexcept {
    ssize_t length = -1;
    for (bool fresh = false; !fresh && length < 0;) {
        fresh = !connected_;
        if (!connected_ && !connect_remote()) {
            break;
        }
        length = ::send(send_fd_, frame.data(), frame.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (length < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
            return Put::Full;
        }
        connected_ = length >= 0;
    }
    if (length >= 0) {
        ++counters_.sent;
        return Put::Sent;
    }
    if (errno == ECONNREFUSED || errno == ENOENT) {
        ++counters_.send_no_peer;
    } else {
        ++counters_.send_errors;
    }
    return Put::Failed;
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
        if (done == Put::Failed) {
            return stop_flood();
        }
        if (done == Put::Full) {
            counters_.flood_missed += left;
            return;
        }
        ++counters_.flood_sent;
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
        if (done == Put::Failed) {
            return stop_flood();
        }
        ++counters_.flood_sent;
        flood_->next();
    }
}

} // namespace svio::wire_peer
