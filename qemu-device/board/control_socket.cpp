// SPDX-License-Identifier: GPL-2.0-or-later
#include "control_socket.hpp"

#include <cerrno>
#include <sys/socket.h>
#include <unistd.h>

namespace svio {

ControlSocket::ControlSocket(const std::string &path, Refusals refusals)
    : refusals_(std::move(refusals)),
      listener_(path, SOCK_STREAM, connections_max, "cannot listen on the management socket " + path) {}

ControlSocket::~ControlSocket() {
    for (Connection &connection : connections_)
        close(connection.fd);
}

bool ControlSocket::step(const Answer &answer) {
    bool found = accept_one(), answered = false;
    for (auto at = connections_.begin(); at != connections_.end();) {
        auto next = std::next(at);
        bool had_turn = answered;
        found |= serve(*at, answer, answered);
        if (at->ending && at->out.empty() && at->in.find('\n') == std::string::npos) {
            close(at->fd);
            connections_.erase(at);
            no_descriptor_ = false;
        } else if (answered && !had_turn) {
            // Who had an answer is behind all others the next time.
            connections_.splice(connections_.end(), connections_, at);
            break;
        }
        at = next;
    }
    return found;
}

bool ControlSocket::accept_one() {
    int fd = accept4(listener_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        no_descriptor_ = errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS;
        return false;
    }
    no_descriptor_ = false;
    if (connections_.size() == connections_max) {
        // It fits into the buffer of a new socket; if not, being closed says enough.
        std::string line = refusals_.too_many + "\n";
        [[maybe_unused]] ssize_t n = send(fd, line.data(), line.size(), MSG_NOSIGNAL);
        close(fd);
        return true;
    }
    connections_.push_back({fd, {}, {}});
    return true;
}

bool ControlSocket::serve(Connection &connection, const Answer &answer, bool &answered) {
    bool found = write_some(connection);
    // Who does not read answers is not listened to.
    if (!connection.out.empty())
        return found;
    size_t end = connection.in.find('\n');
    if (end == std::string::npos && !connection.ending) {
        found |= read_some(connection);
        end = connection.in.find('\n');
    }
    if (end > line_max && connection.in.size() > line_max) { // also when there is no end yet
        connection.in.clear();
        connection.ending = true;
        connection.out = refusals_.too_long + "\n";
    } else if (end != std::string::npos && !answered) {
        std::string line = connection.in.substr(0, end);
        connection.in.erase(0, end + 1);
        answered = true;
        if (line.find_first_not_of(" \t\r") != std::string::npos)
            connection.out = answer(line) + "\n";
    } else {
        return found;
    }
    write_some(connection);
    return true;
}

bool ControlSocket::read_some(Connection &connection) {
    char buffer[16384];
    ssize_t n = recv(connection.fd, buffer, sizeof(buffer), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n > 0)
        connection.in.append(buffer, static_cast<size_t>(n));
    else
        connection.ending = true;
    return true;
}

bool ControlSocket::write_some(Connection &connection) {
    if (connection.out.empty())
        return false;
    ssize_t n = send(connection.fd, connection.out.data(), connection.out.size(), MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n < 0) { // gone, and its requests with it
        connection.out.clear();
        connection.in.clear();
        connection.ending = true;
    } else {
        connection.out.erase(0, static_cast<size_t>(n));
    }
    return true;
}

int ControlSocket::watch(std::vector<pollfd> &descriptors) const {
    // Without a descriptor for it, a waiting connection would wake us at once, over and over.
    if (!no_descriptor_)
        descriptors.push_back({listener_.fd(), POLLIN, 0});
    for (const Connection &connection : connections_)
        descriptors.push_back(
            {connection.fd, static_cast<short>(connection.out.empty() ? POLLIN : POLLOUT), 0});
    return no_descriptor_ ? 1000 : -1;
}

} // namespace svio
