// SPDX-License-Identifier: GPL-2.0-or-later
#include "server.hpp"

#include "log.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <glib-unix.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <syslog.h>
#include <system_error>
#include <unistd.h>

namespace svio {

namespace {

constexpr size_t packet_max = sizeof(svio_attach_header) + sizeof(svio_attach_memory) +
                              SVIO_ATTACH_REGIONS_MAX * sizeof(svio_attach_region);

std::string errno_text() {
    return std::generic_category().message(errno);
}

/// All that came with a packet, so that none stays open.
std::vector<Descriptor> descriptors_in(msghdr &message) {
    std::vector<Descriptor> found;
    for (cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t n = 0; n < count; n++) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + n * sizeof(fd), sizeof(fd));
            found.emplace_back(fd);
        }
    }
    return found;
}

bool send_answer(int socket, std::span<uint8_t> reply, const std::vector<int> &descriptors) {
    constexpr size_t most = 2; // PAGES
    alignas(cmsghdr) std::array<char, CMSG_SPACE(most * sizeof(int))> control{};
    iovec place{reply.data(), reply.size()};
    msghdr message{};
    message.msg_iov = &place;
    message.msg_iovlen = 1;
    if (size_t bytes = descriptors.size() * sizeof(int); bytes != 0 && descriptors.size() <= most) {
        message.msg_control = control.data();
        message.msg_controllen = CMSG_SPACE(bytes);
        cmsghdr *part = CMSG_FIRSTHDR(&message);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(bytes);
        memcpy(CMSG_DATA(part), descriptors.data(), bytes);
    }
    return sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

/// By the kernel's word. 0: it is not to be known here.
int peer_pid(int fd) {
    ucred peer{};
    socklen_t length = sizeof(peer);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0 ? 0 : peer.pid;
}

/// As it has named itself; it has a slot.
std::string machine_name(Attached &attached) {
    const auto &machine = attached.vif().machine();
    return machine ? machine->name : "";
}

std::string peer_name(int pid) {
    return pid == 0 ? "a peer" : "process " + std::to_string(pid);
}

} // namespace

// ---- the listener ----

AttachServer::AttachServer(const std::string &path, Attachments &all, Service &service,
                           size_t connections_max)
    : all_(all), service_(service), connections_max_(connections_max),
      listener_(path, SOCK_SEQPACKET, SOMAXCONN, "the socket " + path + " cannot be made") {
    source_ = g_unix_fd_add(
        listener_.fd(), G_IO_IN,
        [](gint, GIOCondition, gpointer self) -> gboolean {
            static_cast<AttachServer *>(self)->accept_one();
            return G_SOURCE_CONTINUE;
        },
        this);
}

AttachServer::~AttachServer() {
    g_source_remove(source_);
    connections_.clear();
}

void AttachServer::accept_one() {
    Descriptor peer(accept4(listener_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (peer.get() < 0) {
        if (errno == EMFILE || errno == ENFILE)
            g_usleep(10000); // it stays in the queue: do not spin
        return;
    }
    int pid = peer_pid(peer.get());
    if (connections_.size() >= connections_max_) {
        if (refused_++ == 0)
            log_event(LOG_WARNING, "turned-away",
                      peer_name(pid) + " is turned away: there are " + std::to_string(connections_max_) +
                          " connections",
                      {{"pid", pid}, {"connections", connections_max_}});
        return;
    }
    refused_ = 0;
    Connection &made =
        *connections_.emplace_back(std::make_unique<Connection>(*this, all_, peer.release(), pid));
    made.name = peer_name(pid);
    made.source = g_unix_fd_add(
        made.socket.get(), static_cast<GIOCondition>(G_IO_IN | G_IO_HUP | G_IO_ERR),
        [](gint, GIOCondition, gpointer opaque) -> gboolean {
            auto &connection = *static_cast<Connection *>(opaque);
            if (connection.server.serve(connection))
                return G_SOURCE_CONTINUE;
            connection.source = 0;
            connection.server.end(connection);
            return G_SOURCE_REMOVE;
        },
        &made);
}

// ---- connections ----

AttachServer::Connection::~Connection() {
    if (source)
        g_source_remove(source);
}

bool AttachServer::serve(Connection &connection) {
    std::array<uint8_t, packet_max> packet;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(SVIO_ATTACH_REGIONS_MAX * sizeof(int))> control;
    iovec place{packet.data(), packet.size()};
    msghdr message{};
    message.msg_iov = &place;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    ssize_t length = recvmsg(connection.socket.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (length < 0)
        return errno == EAGAIN || errno == EINTR;
    std::vector<Descriptor> descriptors = descriptors_in(message);
    if (length == 0)
        return false;
    try {
        if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
            throw ProtocolError("a packet has more bytes or descriptors than any may have");
        answer(connection, {packet.data(), static_cast<size_t>(length)}, std::move(descriptors));
        return true;
    } catch (const std::exception &error) {
        log_event(LOG_WARNING, "cut-off", connection.name + " is cut off: " + error.what(),
                  {{"pid", connection.attached.pid()}, {"reason", error.what()}});
        return false;
    }
}

void AttachServer::answer(Connection &connection, std::span<const uint8_t> packet,
                          std::vector<Descriptor> descriptors) {
    Attached &attached = connection.attached;
    bool had = attached.slot().has_value();
    std::vector<uint8_t> reply = attached.handle(packet, std::move(descriptors));
    if (!attached.refusal().empty())
        log_event(LOG_WARNING, "refused", connection.name + " is refused: " + attached.refusal(),
                  {{"pid", connection.attached.pid()}, {"reason", attached.refusal()}});
    if (!had && attached.slot()) {
        std::string machine = machine_name(attached);
        if (!machine.empty())
            connection.name += " (" + machine + ")";
        log_event(LOG_INFO, "attached", connection.name + " has slot " + std::to_string(*attached.slot()),
                  {{"pid", connection.attached.pid()},
                   {"vm", machine},
                   {"slot", *attached.slot()},
                   {"vif", attached.vif().settings().id}});
        tell_machines();
    }
    if (!send_answer(connection.socket.get(), reply, attached.answer_descriptors()))
        throw ProtocolError("it does not read its answers (" + errno_text() + ")");
}

void AttachServer::end(Connection &connection) {
    const std::optional<uint32_t> slot = connection.attached.slot();
    if (slot)
        log_event(
            LOG_INFO, "left", connection.name + " leaves slot " + std::to_string(*slot),
            {{"pid", connection.attached.pid()}, {"vm", machine_name(connection.attached)}, {"slot", *slot}});
    auto at = std::find_if(connections_.begin(), connections_.end(),
                           [&](const auto &one) { return one.get() == &connection; });
    connections_.erase(at);
    if (slot)
        tell_machines();
}

void AttachServer::tell_machines() {
    service_.machines(
        static_cast<size_t>(std::count_if(connections_.begin(), connections_.end(),
                                          [](const auto &one) { return one->attached.slot().has_value(); })));
}

} // namespace svio
