// SPDX-License-Identifier: GPL-2.0-or-later
#include "tap.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdexcept>
#include <sys/ioctl.h>
#include <unistd.h>

namespace svio::wire_peer {

Tap::Tap(const std::string &name) {
    ifreq request{};
    if (name.empty() || name.size() >= sizeof request.ifr_name) {
        throw std::runtime_error("\"" + name + "\" is no name of an interface: 1 to 15 characters are one");
    }
    std::memcpy(request.ifr_name, name.data(), name.size());
    request.ifr_flags = IFF_TAP | IFF_NO_PI;
    fd_ = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd_ < 0 || ioctl(fd_, TUNSETIFF, &request) != 0) {
        const int error = errno;
        if (fd_ >= 0) {
            close(fd_);
        }
        throw std::runtime_error("cannot open the TAP interface " + name + ": " + std::strerror(error));
    }
}

Tap::~Tap() {
    close(fd_);
}

bool Tap::put(std::span<const std::uint8_t> frame) const noexcept {
    return write(fd_, frame.data(), frame.size()) == static_cast<ssize_t>(frame.size());
}

std::span<std::uint8_t> Tap::next(std::span<std::uint8_t> room) const noexcept {
    const auto length = read(fd_, room.data(), room.size());
    return room.first(length > 0 ? static_cast<std::size_t>(length) : 0);
}

} // namespace svio::wire_peer
