// SPDX-License-Identifier: GPL-2.0-or-later
#include "udp_port.hpp"

#include "log.hpp"

#include <arpa/inet.h>
#include <cerrno>
#include <charconv>
#include <sys/socket.h>
#include <syslog.h>
#include <system_error>

namespace svio {

namespace {

constexpr int socket_buffer = 4 << 20;

bool parse(const std::string &text, sockaddr_in &address) {
    size_t colon = text.find(':');
    if (colon == std::string::npos)
        return false;
    address.sin_family = AF_INET;
    const char *end = text.data() + text.size();
    uint16_t port = 0;
    auto [at, wrong] = std::from_chars(text.data() + colon + 1, end, port);
    address.sin_port = htons(port);
    return wrong == std::errc() && at == end && port != 0 &&
           inet_pton(AF_INET, text.substr(0, colon).c_str(), &address.sin_addr) == 1;
}

} // namespace

std::unique_ptr<Port> UdpPort::open(const std::string &spec, std::string &error) {
    constexpr size_t name = sizeof("udp:") - 1;
    std::string rest = spec.size() > name ? spec.substr(name) : "";
    size_t comma = rest.find(',');
    sockaddr_in local{}, remote{};
    if (comma == std::string::npos || !parse(rest.substr(0, comma), local) ||
        !parse(rest.substr(comma + 1), remote)) {
        error = "port=" + spec + " is not udp:LOCAL_ADDRESS:PORT,REMOTE_ADDRESS:PORT (IPv4)";
        return nullptr;
    }
    std::unique_ptr<UdpPort> port(new UdpPort);
    port->remote_ = remote;
    port->socket_ = Descriptor(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    int fd = port->socket_.get();
    if (fd < 0 || bind(fd, reinterpret_cast<sockaddr *>(&local), sizeof(local)) < 0) {
        error = "cannot bind port=" + spec + ": " + std::generic_category().message(errno);
        return nullptr;
    }
    for (int option : {SO_SNDBUF, SO_RCVBUF})
        setsockopt(fd, SOL_SOCKET, option, &socket_buffer, sizeof(socket_buffer));
    return port;
}

UdpPort::~UdpPort() {
    if (foreign_ != 0)
        log_event(LOG_WARNING, "foreign-datagrams",
                  std::to_string(foreign_) + " datagrams of others came to the wire, and were dropped",
                  {{"count", foreign_.load()}});
}

// Not connected: a connected socket would report that the other board was not there yet (ECONNREFUSED), and
// the kernel would not let us count what others send.
void UdpPort::read_batch() {
    for (size_t i = 0; i < batch;) {
        iovec to = slot(i);
        sockaddr_in from{};
        socklen_t length = sizeof(from);
        ssize_t n =
            recvfrom(socket_.get(), to.iov_base, to.iov_len, 0, reinterpret_cast<sockaddr *>(&from), &length);
        if (n < 0)
            return;
        if (from.sin_addr.s_addr != remote_.sin_addr.s_addr || from.sin_port != remote_.sin_port) {
            if (foreign_++ == 0)
                log_event(LOG_WARNING, "foreign-datagram",
                          "a datagram of another sender came to the wire, and is dropped");
            if (foreign_ % batch == 0)
                return; // a flood of them must not keep the core
            continue;
        }
        received(static_cast<size_t>(n));
        i++;
    }
}

void UdpPort::send_frames(std::span<const iovec> frames, std::span<Verdict> verdicts) {
    blocked_ = false;
    for (size_t at = 0; at < frames.size();) {
        int sent = send_datagrams(socket_.get(), frames.subspan(at), &remote_);
        for (int i = 0; i < sent; i++)
            verdicts[at++] = Verdict::Sent;
        if (sent > 0)
            continue;
        if (errno == EAGAIN || errno == ENOBUFS) {
            blocked_ = true;
            return;
        }
        ++failed_; // no route, no permission, too long: the host's network does not take it
        verdicts[at++] = Verdict::Failed;
    }
}

} // namespace svio
