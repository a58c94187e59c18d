// SPDX-License-Identifier: GPL-2.0-or-later
#include "native_port.hpp"

#include "svio_abi.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace svio {

namespace {

std::string errno_text() {
    return std::generic_category().message(errno);
}

bool fill_address(const std::string &path, sockaddr_un &address) {
    address = {};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof(address.sun_path))
        return false;
    std::memcpy(address.sun_path, path.data(), path.size());
    return true;
}

constexpr int socket_buffer = 4 << 20;

bool would_block(int error) {
    return error == EAGAIN || error == EWOULDBLOCK || error == ENOBUFS;
}

} // namespace

std::unique_ptr<Port> open_native_port(const std::string &spec, std::string &error) {
    size_t colon = spec.find(':');
    std::string kind = spec.substr(0, colon);
    std::string rest = colon == std::string::npos ? "" : spec.substr(colon + 1);
    if (kind == "tap" && !rest.empty())
        return TapPort::open(rest, error);
    size_t comma = rest.find(',');
    if (kind == "dgram" && comma != std::string::npos && comma != 0 && comma + 1 < rest.size())
        return DgramPort::open(rest.substr(0, comma), rest.substr(comma + 1), error);
    error = "port=" + spec +
            " is not one of dgram:LOCAL,REMOTE (two socket paths) and tap:IFNAME "
            "(on QEMU's command line a comma inside of a value is written twice)";
    return nullptr;
}

// ---- batches ----

NativePort::NativePort() : buffer_(batch * slot_size) {
    lengths_.reserve(batch);
}

size_t NativePort::max_frame() const {
    return SVIO_MESSAGE_MAX;
}

bool NativePort::fill() {
    if (next_ < lengths_.size())
        return true;
    lengths_.clear();
    next_ = 0;
    read_batch();
    return !lengths_.empty();
}

std::span<const uint8_t> NativePort::front() {
    return {static_cast<const uint8_t *>(slot(next_).iov_base), lengths_[next_]};
}

// ---- dgram ----

DgramPort::DgramPort() {
    for (size_t i = 0; i < batch; i++) {
        slots_[i] = slot(i);
        messages_[i].msg_hdr.msg_iov = &slots_[i];
        messages_[i].msg_hdr.msg_iovlen = 1;
    }
}

DgramPort::~DgramPort() {
    if (receive_fd_ >= 0) {
        close(receive_fd_);
        unlink(local_.c_str());
    }
    if (send_fd_ >= 0)
        close(send_fd_);
}

std::unique_ptr<Port> DgramPort::open(const std::string &local, const std::string &remote,
                                      std::string &error) {
    sockaddr_un address;
    if (!fill_address(remote, address) || !fill_address(local, address)) {
        error = "a socket path of port=dgram: is longer than the " +
                std::to_string(sizeof(address.sun_path) - 1) + " bytes that unix sockets allow";
        return nullptr;
    }
    std::unique_ptr<DgramPort> port(new DgramPort);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    port->send_fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    // A socket that a killed process left behind is in the way; anything else at that path is not ours to
    // remove.
    struct stat status;
    if (lstat(local.c_str(), &status) == 0 && S_ISSOCK(status.st_mode))
        unlink(local.c_str());
    if (fd < 0 || port->send_fd_ < 0 ||
        bind(fd, reinterpret_cast<sockaddr *>(&address), sizeof(address)) < 0) {
        error = "cannot bind the socket " + local + " of port=dgram: " + errno_text();
        if (fd >= 0)
            close(fd);
        return nullptr;
    }
    port->receive_fd_ = fd;
    port->local_ = local;
    port->remote_ = remote;
    setsockopt(port->send_fd_, SOL_SOCKET, SO_SNDBUF, &socket_buffer, sizeof(socket_buffer));
    port->connect_remote();
    return port;
}

// Sending has a socket of its own, connected to the peer: so poll() tells when the peer's queue has room
// again, while the bound one hears every sender, also a peer that was started anew.
bool DgramPort::connect_remote() {
    sockaddr_un address;
    fill_address(remote_, address);
    connected_ = connect(send_fd_, reinterpret_cast<sockaddr *>(&address), sizeof(address)) == 0;
    return connected_;
}

void DgramPort::send(std::span<const iovec> frames, std::span<Verdict> verdicts) {
    std::array<mmsghdr, 64> messages;
    size_t at = 0;
    blocked_ = false;
    bool reconnected = false;
    while (at < frames.size()) {
        if (!connected_ && !connect_remote()) {
            verdicts[at++] = Verdict::Failed; // nobody there
            continue;
        }
        size_t n = std::min(frames.size() - at, messages.size());
        for (size_t i = 0; i < n; i++) {
            messages[i] = {};
            messages[i].msg_hdr.msg_iov = const_cast<iovec *>(&frames[at + i]);
            messages[i].msg_hdr.msg_iovlen = 1;
        }
        int sent = sendmmsg(send_fd_, messages.data(), static_cast<unsigned>(n), MSG_DONTWAIT | MSG_NOSIGNAL);
        for (int i = 0; i < sent; i++)
            verdicts[at++] = Verdict::Sent;
        if (sent > 0)
            continue;
        if (would_block(errno)) {
            blocked_ = true;
            return;
        }
        // The peer went away: look for a new one at its path once, then give this frame up.
        connected_ = false;
        if (std::exchange(reconnected, true) || !connect_remote())
            verdicts[at++] = Verdict::Failed;
    }
}

void DgramPort::read_batch() {
    int n = recvmmsg(receive_fd_, messages_.data(), batch, MSG_DONTWAIT, nullptr);
    for (int i = 0; i < n; i++)
        received(messages_[static_cast<size_t>(i)].msg_len);
}

// ---- tap ----

TapPort::~TapPort() {
    if (fd_ >= 0)
        close(fd_);
}

std::unique_ptr<Port> TapPort::open(const std::string &name, std::string &error) {
    if (name.size() >= IFNAMSIZ) {
        error = "the interface name " + name + " of port=tap: is too long";
        return nullptr;
    }
    std::unique_ptr<TapPort> port(new TapPort);
    port->fd_ = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (port->fd_ < 0) {
        error = "cannot open /dev/net/tun for port=tap: " + errno_text();
        return nullptr;
    }
    ifreq request{};
    request.ifr_flags = IFF_TAP | IFF_NO_PI;
    std::memcpy(request.ifr_name, name.data(), name.size());
    if (ioctl(port->fd_, TUNSETIFF, &request) < 0) {
        error = "cannot attach to the tap interface " + name + ": " + errno_text() +
                " (make it with: ip tuntap add dev " + name + " mode tap user $USER)";
        return nullptr;
    }
    return port;
}

void TapPort::send(std::span<const iovec> frames, std::span<Verdict> verdicts) {
    blocked_ = false;
    for (size_t i = 0; i < frames.size(); i++) {
        ssize_t n = write(fd_, frames[i].iov_base, frames[i].iov_len);
        if (n < 0 && would_block(errno)) {
            blocked_ = true;
            return;
        }
        verdicts[i] = n < 0 ? Verdict::Failed : Verdict::Sent;
    }
}

void TapPort::read_batch() {
    for (size_t i = 0; i < batch; i++) {
        iovec to = slot(i);
        ssize_t n = read(fd_, to.iov_base, to.iov_len);
        if (n <= 0)
            return;
        received(static_cast<size_t>(n));
    }
}

} // namespace svio
