// SPDX-License-Identifier: GPL-2.0-or-later
#include "slirp_port.hpp"

#include "svio_abi.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <optional>
#include <sstream>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <system_error>
#include <unistd.h>

namespace svio {

namespace {

constexpr uint64_t ns_per_ms = 1'000'000;
constexpr uint64_t eventfd_full = ~uint64_t{1}; // at which it cannot be written to

int made(int fd, const char *what) {
    if (fd < 0)
        throw std::system_error(errno, std::generic_category(), what);
    return fd;
}

in_addr ipv4(const char *text) {
    in_addr address{};
    inet_pton(AF_INET, text, &address);
    return address;
}

in6_addr ipv6(const char *text) {
    in6_addr address{};
    inet_pton(AF_INET6, text, &address);
    return address;
}

/// Reassembly in libslirp 4.7 can be made to crash, and with it all machines of the board would lose it.
bool is_fragment(const std::vector<uint8_t> &frame) {
    constexpr size_t type = 12, flags = 20;
    bool ip = frame.size() > flags + 1 && frame[type] == 8 && frame[type + 1] == 0;
    return ip && ((frame[flags] & 0x3f) != 0 || frame[flags + 1] != 0); // more fragments, or an offset
}

/// Both have the same values but for their names.
int slirp_events(short poll_events) {
    int events = 0;
    for (auto [from, to] : {std::pair{POLLIN, SLIRP_POLL_IN}, std::pair{POLLOUT, SLIRP_POLL_OUT},
                            std::pair{POLLPRI, SLIRP_POLL_PRI}, std::pair{POLLERR, SLIRP_POLL_ERR},
                            std::pair{POLLHUP, SLIRP_POLL_HUP}})
        events |= poll_events & from ? to : 0;
    return events;
}

short poll_events(int events) {
    int found = 0;
    for (auto [from, to] : {std::pair{SLIRP_POLL_IN, POLLIN}, std::pair{SLIRP_POLL_OUT, POLLOUT},
                            std::pair{SLIRP_POLL_PRI, POLLPRI}})
        found |= events & from ? to : 0;
    return static_cast<short>(found);
}

struct Place {
    in_addr address;
    int port;
};

/// "[ADDRESS]:PORT"
std::optional<Place> parse_place(const std::string &text, in_addr otherwise) {
    size_t colon = text.find(':');
    if (colon == std::string::npos)
        return {};
    Place place{otherwise, 0};
    if (colon != 0 && inet_pton(AF_INET, text.substr(0, colon).c_str(), &place.address) != 1)
        return {};
    const char *end = text.data() + text.size();
    auto [at, wrong] = std::from_chars(text.data() + colon + 1, end, place.port);
    if (wrong != std::errc() || at != end || place.port < 1 || place.port > 65535)
        return {};
    return place;
}

} // namespace

// ---- what libslirp calls ----

const SlirpCb &SlirpPort::callbacks() {
    static const SlirpCb all = [] {
        SlirpCb cb{};
        cb.send_packet = [](const void *data, size_t length, void *opaque) -> ssize_t {
            auto &self = *static_cast<SlirpPort *>(opaque);
            const auto *bytes = static_cast<const uint8_t *>(data);
            if (self.answers_.size() < answers_max)
                self.answers_.emplace_back(bytes, bytes + length);
            else // TCP sends it again
                self.answers_lost_.fetch_add(1, std::memory_order_relaxed);
            return static_cast<ssize_t>(length);
        };
        cb.guest_error = [](const char *, void *) {};
        cb.clock_get_ns = [](void *opaque) {
            return static_cast<int64_t>(static_cast<SlirpPort *>(opaque)->clock_.now());
        };
        cb.timer_new = [](SlirpTimerCb call, void *call_opaque, void *opaque) -> void * {
            return &static_cast<SlirpPort *>(opaque)->timers_.emplace_back(Timer{call, call_opaque, -1});
        };
        cb.timer_free = [](void *timer, void *opaque) {
            std::erase_if(static_cast<SlirpPort *>(opaque)->timers_,
                          [=](const Timer &one) { return &one == timer; });
        };
        cb.timer_mod = [](void *timer, int64_t at_ms, void *) { static_cast<Timer *>(timer)->at_ms = at_ms; };
        // A number may come back for another socket: what was awaited of the old one says nothing.
        cb.register_poll_fd = cb.unregister_poll_fd = [](int fd, void *opaque) {
            static_cast<SlirpPort *>(opaque)->forget(fd);
        };
        cb.notify = [](void *) {}; // it is always this thread, and it looks again
        return cb;
    }();
    return all;
}

// ---- beginning and end ----

SlirpPort::SlirpPort()
    : events_(made(epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
      alarm_(made(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), "timerfd_create")),
      kick_(made(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd")),
      room_(made(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd")) {
    for (int fd : {alarm_.get(), kick_.get()}) {
        epoll_event event{};
        event.events = EPOLLIN;
        made(epoll_ctl(events_.get(), EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
    }
}

SlirpPort::~SlirpPort() {
    if (slirp_)
        slirp_cleanup(slirp_);
}

size_t SlirpPort::max_frame() const {
    return SVIO_MESSAGE_MAX;
}

std::unique_ptr<SlirpPort> SlirpPort::open(const std::string &spec, std::string &error) {
    constexpr size_t name = sizeof("slirp") - 1;
    std::vector<std::string> forwards;
    bool restricted = false;
    std::istringstream options(spec.size() > name ? spec.substr(name + 1) : "");
    for (std::string option; std::getline(options, option, ',');) {
        if (option == "restrict=on" || option == "restrict=off") {
            restricted = option == "restrict=on";
        } else if (option.starts_with("hostfwd=")) {
            forwards.push_back(option.substr(sizeof("hostfwd=") - 1));
        } else {
            error = "port=slirp does not know the option '" + option +
                    "'; there are restrict=on|off and hostfwd=tcp|udp:[ADDRESS]:PORT-[GUEST]:PORT";
            return nullptr;
        }
    }
    std::unique_ptr<SlirpPort> port(new SlirpPort);
    if (!port->start(restricted, error))
        return nullptr;
    for (const std::string &rule : forwards) {
        if (!port->forward(rule, error))
            return nullptr;
    }
    port->await();
    return port;
}

bool SlirpPort::start(bool restricted, std::string &error) {
    SlirpConfig config{};
    config.version = 3;
    config.restricted = restricted;
    config.in_enabled = config.in6_enabled = true;
    config.vnetwork = ipv4("10.0.2.0");
    config.vnetmask = ipv4("255.255.255.0");
    config.vhost = ipv4("10.0.2.2");
    config.vnameserver = ipv4("10.0.2.3");
    config.vdhcp_start = ipv4("10.0.2.15");
    config.vprefix_addr6 = ipv6("fec0::");
    config.vprefix_len = 64;
    config.vhost6 = ipv6("fec0::2");
    config.vnameserver6 = ipv6("fec0::3");
    slirp_ = slirp_new(&config, &callbacks(), this);
    if (!slirp_)
        error = "libslirp does not start";
    return slirp_ != nullptr;
}

bool SlirpPort::forward(const std::string &rule, std::string &error) {
    size_t colon = rule.find(':'), dash = rule.find('-');
    std::string protocol = rule.substr(0, colon);
    std::optional<Place> host, guest;
    if (colon != std::string::npos && dash != std::string::npos && dash > colon) {
        host = parse_place(rule.substr(colon + 1, dash - colon - 1), in_addr{INADDR_ANY});
        guest = parse_place(rule.substr(dash + 1), ipv4("10.0.2.15"));
    }
    if (!host || !guest || (protocol != "tcp" && protocol != "udp")) {
        error = "hostfwd=" + rule + " of port=slirp is not tcp|udp:[ADDRESS]:PORT-[GUEST]:PORT";
        return false;
    }
    if (slirp_add_hostfwd(slirp_, protocol == "udp", host->address, host->port, guest->address, guest->port) <
        0) {
        error = "hostfwd=" + rule + " of port=slirp: " + std::generic_category().message(errno);
        return false;
    }
    return true;
}

// ---- from guests ----

void SlirpPort::send(std::span<const iovec> frames, std::span<Verdict> verdicts) {
    std::lock_guard guard(inbox_mutex_);
    for (size_t i = 0; i < frames.size(); i++) {
        if (inbox_.size() == inbox_max) {
            if (!blocked_.exchange(true)) [[maybe_unused]]
                ssize_t n = write(room_.get(), &eventfd_full, sizeof(eventfd_full));
            break;
        }
        const auto *data = static_cast<const uint8_t *>(frames[i].iov_base);
        std::vector<uint8_t> frame(data, data + frames[i].iov_len);
        if (is_fragment(frame)) {
            verdicts[i] = Verdict::Failed;
            fragments_refused_.fetch_add(1, std::memory_order_relaxed);
        } else {
            verdicts[i] = Verdict::Sent;
            inbox_.push_back(std::move(frame));
        }
    }
    if (!inbox_.empty() && !kicked_.exchange(true)) {
        uint64_t one = 1;
        [[maybe_unused]] ssize_t n = write(kick_.get(), &one, sizeof(one));
    }
}

void SlirpPort::take_inbox() {
    {
        std::lock_guard guard(inbox_mutex_);
        taken_.swap(inbox_);
        uint64_t value;
        [[maybe_unused]] ssize_t n;
        if (kicked_.exchange(false))
            n = read(kick_.get(), &value, sizeof(value));
        if (blocked_.exchange(false))
            n = read(room_.get(), &value, sizeof(value));
    }
    for (const std::vector<uint8_t> &frame : taken_)
        slirp_input(slirp_, frame.data(), static_cast<int>(frame.size()));
    taken_.clear();
}

// ---- the core's look ----

bool SlirpPort::fill() {
    if (!answers_.empty())
        return true;
    epoll_event event;
    if (!kicked_.load(std::memory_order_relaxed) && epoll_wait(events_.get(), &event, 1, 0) <= 0)
        return false;
    take_inbox();
    serve_sockets();
    serve_timers();
    await();
    return !answers_.empty();
}

// By the numbers of the last await(): a socket that is new since then has none, and waits for the next look.
void SlirpPort::serve_sockets() {
    bool failed = poll(sockets_.data(), sockets_.size(), 0) < 0;
    slirp_pollfds_poll(
        slirp_, failed,
        [](int n, void *opaque) {
            auto &sockets = static_cast<SlirpPort *>(opaque)->sockets_;
            return n < 0 ? 0 : slirp_events(sockets.at(static_cast<size_t>(n)).revents);
        },
        this);
}

void SlirpPort::serve_timers() {
    auto now_ms = static_cast<int64_t>(clock_.now() / ns_per_ms);
    for (Timer &timer : timers_) {
        if (timer.at_ms < 0 || timer.at_ms > now_ms)
            continue;
        timer.at_ms = -1;
        timer.call(timer.opaque);
    }
}

void SlirpPort::await() {
    uint32_t timeout = UINT32_MAX;
    sockets_.clear();
    slirp_pollfds_fill(
        slirp_, &timeout,
        [](int fd, int events, void *opaque) {
            auto &sockets = static_cast<SlirpPort *>(opaque)->sockets_;
            sockets.push_back({fd, poll_events(events), 0});
            return static_cast<int>(sockets.size()) - 1;
        },
        this);
    for (const pollfd &wanted : sockets_)
        await_socket(wanted);
    // Sockets of which libslirp wants nothing now (their guest does not take more) must not wake anyone.
    if (awaited_.size() > sockets_.size()) {
        gone_.clear();
        for (const auto &[fd, events] : awaited_) {
            if (std::none_of(sockets_.begin(), sockets_.end(), [fd = fd](auto &s) { return s.fd == fd; }))
                gone_.push_back(fd);
        }
        for (int fd : gone_)
            forget(fd);
    }
    await_time(timeout);
}

void SlirpPort::await_socket(const pollfd &wanted) {
    auto known = awaited_.find(wanted.fd);
    if (known != awaited_.end() && known->second == wanted.events)
        return;
    epoll_event event{};
    event.events = static_cast<uint32_t>(wanted.events); // poll's and epoll's values are the same
    if (epoll_ctl(events_.get(), EPOLL_CTL_MOD, wanted.fd, &event) == 0 ||
        epoll_ctl(events_.get(), EPOLL_CTL_ADD, wanted.fd, &event) == 0)
        awaited_[wanted.fd] = wanted.events;
}

void SlirpPort::forget(int fd) {
    if (awaited_.erase(fd) != 0)
        epoll_ctl(events_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

// An alarm that comes too early costs one look; so one that is earlier is left as it is.
void SlirpPort::await_time(uint32_t timeout_ms) {
    uint64_t now = clock_.now();
    uint64_t at = timeout_ms == UINT32_MAX ? UINT64_MAX : now + timeout_ms * ns_per_ms;
    for (const Timer &timer : timers_) {
        if (timer.at_ms >= 0)
            at = std::min(at, static_cast<uint64_t>(timer.at_ms) * ns_per_ms);
    }
    bool rings = alarm_at_ != 0 && alarm_at_ > now;
    if (rings && alarm_at_ <= at)
        return;
    if (at == UINT64_MAX && alarm_at_ == 0)
        return;
    alarm_at_ = at == UINT64_MAX ? 0 : std::max(at, now + 1);
    itimerspec when{};
    when.it_value = {static_cast<time_t>(alarm_at_ / 1'000'000'000),
                     static_cast<long>(alarm_at_ % 1'000'000'000)};
    timerfd_settime(alarm_.get(), TFD_TIMER_ABSTIME, &when, nullptr); // forgets one that has rung
}

void SlirpPort::visit_counters(const Visitor &visit) const {
    visit("answers_lost", answers_lost_.load(std::memory_order_relaxed));
    visit("fragments_refused", fragments_refused_.load(std::memory_order_relaxed));
}

} // namespace svio
