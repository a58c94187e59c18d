// SPDX-License-Identifier: GPL-2.0-or-later
#include "link.hpp"

#include "offload.hpp"

#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <cstring>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdexcept>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

namespace svio::wire_peer {

namespace {

constexpr int kSocketBuffer = 8 << 20;

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

class SocketLink final : public Link {
  public:
    SocketLink(const std::string &local, const std::string &remote);
    ~SocketLink() override { unlink(local_.c_str()); }
    Put put(std::span<const std::uint8_t> frame) noexcept override;

  private:
    bool connect_remote() noexcept;

    std::string local_;
    sockaddr_un remote_;
    bool connected_ = false;
};

SocketLink::SocketLink(const std::string &local, const std::string &remote) : remote_(address_of(remote)) {
    const auto address = address_of(local);
    fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    send_fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd_ < 0 || send_fd_ < 0) {
        fail("no unix datagram socket", errno);
    }
    enlarge(send_fd_, SO_SNDBUFFORCE, SO_SNDBUF);
    enlarge(fd_, SO_RCVBUFFORCE, SO_RCVBUF);
    remove_stale(fd_, address);
    if (bind(fd_, reinterpret_cast<const sockaddr *>(&address), sizeof address) != 0) {
        fail("cannot bind " + local, errno);
    }
    local_ = local; // ours to remove from here on
}

// Looking the other side's path up costs as much as a message, hence a connected socket of its own: the bound
// one hears every sender. A VM that came later, or came again, is found by connecting anew.
bool SocketLink::connect_remote() noexcept {
    connected_ = connect(send_fd_, reinterpret_cast<const sockaddr *>(&remote_), sizeof remote_) == 0;
    return connected_;
}

Put SocketLink::put(std::span<const std::uint8_t> frame) noexcept {
    for (bool fresh = false; !fresh;) {
        fresh = !connected_;
        if (!connected_ && !connect_remote()) {
            break;
        }
        if (::send(send_fd_, frame.data(), frame.size(), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
            return Put::Sent;
        }
        if (errno == EAGAIN || errno == ENOBUFS) {
            return Put::Full;
        }
        connected_ = false;
    }
    return errno == ECONNREFUSED || errno == ENOENT ? Put::Absent : Put::Failed;
}

// Before each frame: struct virtio_net_hdr, which unlike a TAP's has no number of buffers at its end.
constexpr std::size_t kHeader = vnet_header_size - sizeof(std::uint16_t);

class InterfaceLink final : public Link {
  public:
    explicit InterfaceLink(const std::string &name);
    std::span<std::uint8_t> frame_of(std::span<std::uint8_t> received) noexcept override;
    Put put(std::span<const std::uint8_t> frame) noexcept override;
};

InterfaceLink::InterfaceLink(const std::string &name) {
    const auto index = if_nametoindex(name.c_str());
    if (!index) {
        fail("there is no interface \"" + name + "\"", errno);
    }
    // Of no protocol, so that nothing comes before it is bound to the one interface.
    fd_ = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd_ < 0) {
        fail("no packet socket (CAP_NET_RAW is needed)", errno);
    }
    enlarge(fd_, SO_SNDBUFFORCE, SO_SNDBUF);
    enlarge(fd_, SO_RCVBUFFORCE, SO_RCVBUF);
    const int on = 1;
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(index);
    // What the host itself sends there is no frame of the NIC's. The NIC may leave check sums to us.
    if (setsockopt(fd_, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) != 0 ||
        setsockopt(fd_, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) != 0 ||
        bind(fd_, reinterpret_cast<const sockaddr *>(&address), sizeof address) != 0) {
        fail("cannot listen on " + name, errno);
    }
    send_fd_ = dup(fd_);
    if (send_fd_ < 0) {
        fail("no further descriptor", errno);
    }
}

std::span<std::uint8_t> InterfaceLink::frame_of(std::span<std::uint8_t> received) noexcept {
    if (received.size() < vnet_header_size) {
        return {};
    }
    const auto frame = received.subspan(kHeader);
    Offload offload;
    if (!read_vnet_header(received.data(), frame, offload)) {
        return {};
    }
    if (offload.has(SVIO_ENTRY_CSUM)) {
        insert_checksum(frame, offload);
    }
    return frame;
}

Put InterfaceLink::put(std::span<const std::uint8_t> frame) noexcept {
    std::array<std::uint8_t, kHeader> header{}; // nothing is left to others
    std::array parts{iovec{header.data(), header.size()},
                     iovec{const_cast<std::uint8_t *>(frame.data()), frame.size()}};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    if (sendmsg(send_fd_, &message, MSG_DONTWAIT) >= 0) {
        return Put::Sent;
    }
    switch (errno) {
    case EAGAIN:
        return Put::Full;
    case ENOBUFS: // the interface's queue had no room, and no socket tells when it has some
        return Put::Lost;
    case ENETDOWN:
    case ENXIO:
        return Put::Absent;
    default:
        return Put::Failed;
    }
}

} // namespace

Link::~Link() {
    for (const int fd : {fd_, send_fd_}) {
        if (fd >= 0) {
            close(fd);
        }
    }
}

std::unique_ptr<Link> socket_link(const std::string &local, const std::string &remote) {
    return std::make_unique<SocketLink>(local, remote);
}

std::unique_ptr<Link> interface_link(const std::string &name) {
    return std::make_unique<InterfaceLink>(name);
}

} // namespace svio::wire_peer
