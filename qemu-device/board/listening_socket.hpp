// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "descriptor.hpp"

#include <string>
#include <sys/types.h>

namespace svio {

/// A Unix socket in the file system to which its owner's processes alone can connect (mode 0600).
class ListeningSocket {
  public:
    /// `type`: SOCK_STREAM or SOCK_SEQPACKET. Takes the place of a socket that nobody listens on any more,
    /// and of nothing else. Throws std::runtime_error: `refusal`, and why.
    ListeningSocket(const std::string &path, int type, int backlog, const std::string &refusal);
    ~ListeningSocket() { remove_file(); }
    ListeningSocket(const ListeningSocket &) = delete;
    ListeningSocket &operator=(const ListeningSocket &) = delete;

    int fd() const { return socket_.get(); }
    /// The path, if it is still this socket's.
    void remove_file() const;

  private:
    const std::string path_;
    Descriptor socket_;
    dev_t device_ = 0;
    ino_t inode_ = 0;
};

} // namespace svio
