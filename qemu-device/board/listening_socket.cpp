// SPDX-License-Identifier: GPL-2.0-or-later
#include "listening_socket.hpp"

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <system_error>

namespace svio {

namespace {

bool listens(const sockaddr_un &address, int type) {
    Descriptor probe(socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    // A listener whose queue is full says EAGAIN, and one of another type EPROTOTYPE: it lives.
    return probe.get() >= 0 &&
           (connect(probe.get(), reinterpret_cast<const sockaddr *>(&address), sizeof(address)) == 0 ||
            errno == EAGAIN || errno == EPROTOTYPE);
}

} // namespace

ListeningSocket::ListeningSocket(const std::string &path, int type, int backlog, const std::string &refusal)
    : path_(path) {
    auto refuse = [&](const std::string &why) { throw std::runtime_error(refusal + ": " + why); };
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof(address.sun_path))
        refuse("its path must have 1 to " + std::to_string(sizeof(address.sun_path) - 1) + " bytes");
    std::memcpy(address.sun_path, path.data(), path.size());
    struct stat status;
    if (lstat(path.c_str(), &status) == 0) {
        if (!S_ISSOCK(status.st_mode))
            refuse("there is something else");
        if (listens(address, type))
            refuse("another process listens there");
        unlink(path.c_str()); // left behind by a process that was killed
    }
    socket_ = Descriptor(socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    // Before bind(), which gives the file the mode of the socket: nobody else can connect for a moment, and
    // the process's umask, which other threads share, is let alone.
    if (fd() < 0 || fchmod(fd(), 0600) < 0 ||
        bind(fd(), reinterpret_cast<sockaddr *>(&address), sizeof(address)) < 0 ||
        chmod(path.c_str(), 0600) < 0 || lstat(path.c_str(), &status) < 0 || listen(fd(), backlog) < 0)
        refuse(std::generic_category().message(errno));
    device_ = status.st_dev;
    inode_ = status.st_ino;
}

void ListeningSocket::remove_file() const {
    struct stat status;
    if (lstat(path_.c_str(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_)
        unlink(path_.c_str());
}

} // namespace svio
