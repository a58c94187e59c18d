// SPDX-License-Identifier: GPL-2.0-or-later
#include "echo_port.hpp"

#include "svio_abi.h"

#include <arpa/inet.h>
#include <cerrno>
#include <sys/eventfd.h>
#include <system_error>
#include <unistd.h>

namespace svio {

std::unique_ptr<EchoPort> EchoPort::open(const std::string &spec, Clock &clock, uint64_t delay_ns,
                                         std::string &error) {
    wire_peer::Ipv4 ip{10, 0, 2, 2};
    if (spec != "echo" && inet_pton(AF_INET, spec.c_str() + sizeof("echo:") - 1, ip.data()) != 1) {
        error = "port=" + spec + " is neither echo nor echo:ADDRESS, with an IPv4 address";
        return nullptr;
    }
    return std::unique_ptr<EchoPort>(new EchoPort(ip, clock, delay_ns));
}

EchoPort::EchoPort(const wire_peer::Ipv4 &ip, Clock &clock, uint64_t delay_ns)
    : responder_(mac, {.address = ip, .bits = 32}), clock_(clock), delay_ns_(delay_ns),
      fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (fd_ < 0)
        throw std::system_error(errno, std::generic_category(), "eventfd");
}

EchoPort::~EchoPort() {
    close(fd_);
}

size_t EchoPort::max_frame() const {
    return SVIO_MESSAGE_MAX;
}

void EchoPort::send(std::span<const iovec> frames, std::span<Verdict> verdicts) {
    std::lock_guard guard(mutex_);
    uint64_t now = clock_.now();
    for (size_t i = 0; i < frames.size(); i++) {
        const auto *data = static_cast<const uint8_t *>(frames[i].iov_base);
        std::vector<uint8_t> frame(data, data + frames[i].iov_len);
        verdicts[i] = Verdict::Sent;
        if (!responder_.answer(frame, now, counters_))
            continue;
        if (answers_.size() < queue_max)
            answers_.push_back({now + delay_ns_, std::move(frame)});
        else
            verdicts[i] = Verdict::Failed;
    }
    settle_fd();
}

void EchoPort::settle_fd() {
    if (readable_ == !answers_.empty())
        return;
    readable_ = !readable_;
    uint64_t value = 1;
    [[maybe_unused]] ssize_t n =
        readable_ ? write(fd_, &value, sizeof(value)) : read(fd_, &value, sizeof(value));
}

bool EchoPort::fill() {
    std::lock_guard guard(mutex_);
    return !answers_.empty() && answers_.front().at <= clock_.now();
}

std::span<const uint8_t> EchoPort::front() {
    std::lock_guard guard(mutex_);
    return answers_.front().frame; // stays put: send() only adds behind it
}

void EchoPort::pop() {
    std::lock_guard guard(mutex_);
    answers_.pop_front();
    settle_fd();
}

std::vector<PortFrame> EchoPort::pending() const {
    std::lock_guard guard(mutex_);
    std::vector<PortFrame> frames;
    for (const Answer &answer : answers_)
        frames.push_back({.frame = answer.frame});
    return frames;
}

void EchoPort::purge(bool shared) {
    if (shared)
        return;
    std::lock_guard guard(mutex_);
    answers_.clear();
    settle_fd();
}

uint64_t EchoPort::due() const {
    std::lock_guard guard(mutex_);
    return answers_.empty() ? 0 : answers_.front().at;
}

} // namespace svio
