// SPDX-License-Identifier: GPL-2.0-or-later
/// The socket of the attach protocol, in a GLib main loop. It bounds all that peers can make it keep.
#pragma once

#include "attach.hpp"
#include "listening_socket.hpp"
#include "service.hpp"

#include <glib.h>
#include <list>
#include <memory>
#include <string>
#include <vector>

namespace svio {

class AttachServer {
  public:
    /// More connections than there are slots can only be of those that do not attach.
    static constexpr size_t spare_connections = 8;

    /// Throws std::runtime_error with one sentence.
    AttachServer(const std::string &path, Attachments &all, Service &service, size_t connections_max);
    ~AttachServer();
    AttachServer(const AttachServer &) = delete;
    AttachServer &operator=(const AttachServer &) = delete;

  private:
    struct Connection;
    struct Connection {
        Connection(AttachServer &s, Attachments &all, int fd, int pid)
            : server(s), socket(fd), attached(all, pid) {}
        ~Connection();

        AttachServer &server;
        Descriptor socket;
        Attached attached;
        std::string name; ///< for the log
        guint source = 0;
    };

    void accept_one();
    /// False: it is over.
    bool serve(Connection &connection);
    void answer(Connection &connection, std::span<const uint8_t> packet, std::vector<Descriptor> descriptors);
    void end(Connection &connection);
    void tell_machines();

    Attachments &all_;
    Service &service_;
    const size_t connections_max_;
    const ListeningSocket listener_;
    guint source_ = 0;
    size_t refused_ = 0; // since the last one that was taken
    std::list<std::unique_ptr<Connection>> connections_;
};

} // namespace svio
