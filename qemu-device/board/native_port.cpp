// SPDX-License-Identifier: GPL-2.0-or-later
#include "native_port.hpp"

#include "echo_port.hpp"

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

std::unique_ptr<Port> open_native_port(const std::string &spec, std::string &error, bool incoming,
                                       Clock *clock, uint64_t echo_ns) {
    static MonotonicClock host_clock;
    if (EchoPort::named(spec))
        return EchoPort::open(spec, clock ? *clock : host_clock, echo_ns, error);
    size_t colon = spec.find(':');
    std::string kind = spec.substr(0, colon);
    std::string rest = colon == std::string::npos ? "" : spec.substr(colon + 1);
    if (kind == "tap" && !rest.empty())
        return TapPort::open(rest, error, incoming);
    size_t comma = rest.find(',');
    if (kind == "dgram" && comma != std::string::npos && comma != 0 && comma + 1 < rest.size())
        return DgramPort::open(rest.substr(0, comma), rest.substr(comma + 1), error, incoming);
    error = "port=" + spec +
            " is not one of dgram:LOCAL,REMOTE (two socket paths) and tap:IFNAME, nor echo "
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
    return {static_cast<const uint8_t *>(slot(next_).iov_base) + header_, lengths_[next_]};
}

std::vector<PortFrame> NativePort::pending() const {
    std::vector<PortFrame> frames;
    for (size_t n = next_; n < lengths_.size(); n++) {
        const uint8_t *data = buffer_.data() + n * slot_size + header_;
        frames.push_back({{data, data + lengths_[n]}, offloads_[n]});
    }
    return frames;
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
    remove_files();
    release();
}

void DgramPort::remove_files() const {
    // Not the socket of the process that has taken the wire over.
    if (receive_fd_ >= 0 && owns(bound_))
        unlink(bound_.c_str());
}

void DgramPort::release() {
    // The path stays: it may be another's by now, and who sends to it meanwhile finds that nobody is there.
    for (std::atomic<int> *fd : {&receive_fd_, &send_fd_}) {
        int old = fd->exchange(-1);
        if (old >= 0)
            close(old);
    }
    connected_ = false;
}

bool DgramPort::owns(const std::string &path) const {
    struct stat status;
    return lstat(path.c_str(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_;
}

std::unique_ptr<Port> DgramPort::open(const std::string &local, const std::string &remote, std::string &error,
                                      bool incoming) {
    sockaddr_un address;
    // While the machine runs elsewhere the socket waits beside its path.
    std::string first = incoming ? local + "~" : local;
    if (!fill_address(remote, address) || !fill_address(first, address)) {
        error = "a socket path of port=dgram: is longer than the " +
                std::to_string(sizeof(address.sun_path) - 1) + " bytes that unix sockets allow";
        return nullptr;
    }
    std::unique_ptr<DgramPort> port(new DgramPort);
    port->local_ = local;
    port->remote_ = remote;
    if (!port->bind_at(first, error))
        return nullptr;
    if (!incoming)
        port->connect_remote();
    return port;
}

// New sockets, bound to `path`.
bool DgramPort::bind_at(const std::string &path, std::string &error) {
    release();
    sockaddr_un address;
    if (!fill_address(path, address)) {
        error = "the socket path " + path + " is too long";
        return false;
    }
    receive_fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    send_fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    // A socket that a killed process left behind is in the way; anything else at that path is not ours to
    // remove.
    struct stat status;
    if (lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode))
        unlink(path.c_str());
    if (receive_fd_ < 0 || send_fd_ < 0 ||
        ::bind(receive_fd_, reinterpret_cast<sockaddr *>(&address), sizeof(address)) < 0 ||
        lstat(path.c_str(), &status) < 0) {
        error = "cannot bind the socket " + path + " of port=dgram: " + errno_text();
        release();
        return false;
    }
    bound_ = path;
    device_ = status.st_dev;
    inode_ = status.st_ino;
    setsockopt(send_fd_, SOL_SOCKET, SO_SNDBUF, &socket_buffer, sizeof(socket_buffer));
    return true;
}

bool DgramPort::activate(std::string &error) {
    if (receive_fd_ >= 0 && owns(local_))
        return true; // nobody else has had it
    // Peers that were there before may be gone as well, or about to go: connect when there is a frame.
    connected_ = false;
    if ((receive_fd_ < 0 || !owns(bound_) || bound_ == local_) && !bind_at(local_ + "~", error))
        return false;
    struct stat status;
    if (lstat(local_.c_str(), &status) == 0 && !S_ISSOCK(status.st_mode)) {
        error = "cannot bind the socket " + local_ + " of port=dgram: there is something else";
        return false;
    }
    // In one step: there is a socket at the path all the time.
    if (rename(bound_.c_str(), local_.c_str()) < 0) {
        error = "cannot bind the socket " + local_ + " of port=dgram: " + errno_text();
        return false;
    }
    bound_ = local_;
    return true;
}

// Sending has a socket of its own, connected to the peer: so poll() tells when the peer's queue has room
// again, while the bound one hears every sender, also a peer that was started anew.
bool DgramPort::connect_remote() {
    sockaddr_un address;
    fill_address(remote_, address);
    connected_ = connect(send_fd_, reinterpret_cast<sockaddr *>(&address), sizeof(address)) == 0;
    return connected_;
}

int NativePort::send_datagrams(int fd, std::span<const iovec> frames, const sockaddr_in *to) {
    std::array<mmsghdr, 64> messages;
    size_t n = std::min(frames.size(), messages.size());
    for (size_t i = 0; i < n; i++) {
        messages[i] = {};
        messages[i].msg_hdr.msg_name = const_cast<sockaddr_in *>(to);
        messages[i].msg_hdr.msg_namelen = to ? sizeof(*to) : 0;
        messages[i].msg_hdr.msg_iov = const_cast<iovec *>(&frames[i]);
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    return sendmmsg(fd, messages.data(), static_cast<unsigned>(n), MSG_DONTWAIT | MSG_NOSIGNAL);
}

void DgramPort::send_frames(std::span<const iovec> frames, std::span<Verdict> verdicts) {
    size_t at = 0;
    blocked_ = false;
    bool reconnected = false;
    while (at < frames.size()) {
        if (!connected_ && !connect_remote()) {
            verdicts[at++] = Verdict::Failed; // nobody there
            continue;
        }
        int sent = send_datagrams(send_fd_, frames.subspan(at));
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
    release();
}

void TapPort::release() {
    int old = fd_.exchange(-1);
    if (old >= 0)
        close(old);
}

std::unique_ptr<Port> TapPort::open(const std::string &name, std::string &error, bool incoming) {
    if (name.size() >= IFNAMSIZ) {
        error = "the interface name " + name + " of port=tap: is too long";
        return nullptr;
    }
    std::unique_ptr<TapPort> port(new TapPort);
    port->name_ = name;
    port->stale_ = incoming;
    return port->attach(error) ? std::move(port) : nullptr;
}

bool TapPort::attach(std::string &error) {
    fd_ = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd_ < 0) {
        error = "cannot open /dev/net/tun for port=tap: " + errno_text();
        return false;
    }
    ifreq request{};
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    std::memcpy(request.ifr_name, name_.data(), name_.size());
    if (ioctl(fd_, TUNSETIFF, &request) < 0) {
        error = "cannot attach to the tap interface " + name_ + ": " + errno_text() +
                " (make it with: ip tuntap add dev " + name_ + " mode tap user $USER)";
        release();
        return false;
    }
    take_offloads();
    return true;
}

// The host may leave checksums and segments to us: what a guest does not take is done on the board.
void TapPort::take_offloads() {
    int size = vnet_header_size;
    ioctl(fd_, TUNSETVNETHDRSZ, &size); // of 2.6.34
    header_ = vnet_header_size;
    constexpr unsigned udp4 = 0x20, udp6 = 0x40; // TUN_F_USO4, _USO6, of Linux 6.2
    constexpr unsigned long most = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    if (ioctl(fd_, TUNSETOFFLOAD, most | udp4 | udp6) < 0)
        ioctl(fd_, TUNSETOFFLOAD, most);
}

bool TapPort::activate(std::string &error) {
    if (fd_ < 0)
        return attach(error);
    // The machine has got what came before by its old port.
    if (std::exchange(stale_, false)) {
        for (unsigned n = 0; n < 64 && fill(); n++) // there is an end, also to a flood
            forget_received();
    }
    return true;
}

void TapPort::send_frames(std::span<const iovec> frames, std::span<Verdict> verdicts) {
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
        auto *data = static_cast<const uint8_t *>(to.iov_base);
        size_t length = static_cast<size_t>(n) < header_ ? 0 : static_cast<size_t>(n) - header_;
        Offload offload;
        // One in whose header there is no sense has no length, and is counted as such.
        if (length != 0 && !read_vnet_header(data, {data + header_, length}, offload))
            length = 0;
        received(length, length != 0 ? offload : Offload{});
    }
}

} // namespace svio
