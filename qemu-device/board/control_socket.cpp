// SPDX-License-Identifier: GPL-2.0-or-later
#include "control_socket.hpp"

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <system_error>
#include <unistd.h>

namespace svio {

namespace {

std::string errno_text() {
    return std::generic_category().message(errno);
}

[[noreturn]] void refuse(const std::string &path, const std::string &why) {
    throw std::runtime_error("cannot listen on the management socket " + path + ": " + why);
}

bool listens(const sockaddr_un &address) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    // A listener whose queue is full says EAGAIN: it lives.
    bool alive =
        fd >= 0 &&
        (connect(fd, reinterpret_cast<const sockaddr *>(&address), sizeof(address)) == 0 || errno == EAGAIN);
    if (fd >= 0)
        close(fd);
    return alive;
}

} // namespace

ControlSocket::ControlSocket(const std::string &path, Refusals refusals)
    : path_(path), refusals_(std::move(refusals)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof(address.sun_path))
        refuse(path, "its path must have 1 to " + std::to_string(sizeof(address.sun_path) - 1) + " bytes");
    std::memcpy(address.sun_path, path.data(), path.size());
    struct stat status;
    if (lstat(path.c_str(), &status) == 0) {
        if (!S_ISSOCK(status.st_mode))
            refuse(path, "there is something else");
        if (listens(address))
            refuse(path, "another process listens there");
        unlink(path.c_str()); // left behind by a process that was killed
    }
    listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    // Before bind(), which gives the file the mode of the socket: nobody else can connect for a moment, and
    // the process's umask, which other threads share, is let alone.
    if (listener_ < 0 || fchmod(listener_, 0600) < 0 ||
        bind(listener_, reinterpret_cast<sockaddr *>(&address), sizeof(address)) < 0 ||
        chmod(path.c_str(), 0600) < 0 || lstat(path.c_str(), &status) < 0 ||
        listen(listener_, connections_max) < 0) {
        std::string why = errno_text();
        if (listener_ >= 0)
            close(listener_);
        refuse(path, why);
    }
    device_ = status.st_dev;
    inode_ = status.st_ino;
}

ControlSocket::~ControlSocket() {
    for (Connection &connection : connections_)
        close(connection.fd);
    remove_file();
    close(listener_);
}

void ControlSocket::remove_file() const {
    struct stat status;
    if (lstat(path_.c_str(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_)
        unlink(path_.c_str());
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
    int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
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
        descriptors.push_back({listener_, POLLIN, 0});
    for (const Connection &connection : connections_)
        descriptors.push_back(
            {connection.fd, static_cast<short>(connection.out.empty() ? POLLIN : POLLOUT), 0});
    return no_descriptor_ ? 1000 : -1;
}

} // namespace svio
