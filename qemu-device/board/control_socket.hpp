// SPDX-License-Identifier: GPL-2.0-or-later
/// A Unix stream socket on which lines are asked and answered. It knows nothing of what they mean, and bounds
/// all that a peer can make it keep: connections, the length of a line, answers that nobody reads.
#pragma once

#include "listening_socket.hpp"

#include <cstddef>
#include <functional>
#include <list>
#include <poll.h>
#include <string>
#include <string_view>
#include <vector>

namespace svio {

class ControlSocket {
  public:
    static constexpr size_t connections_max = 16;
    static constexpr size_t line_max = 65536;

    /// The answer to a line, both without the newline.
    using Answer = std::function<std::string(std::string_view line)>;
    /// What is said to those who cannot be served, as answers.
    struct Refusals {
        std::string too_many;
        std::string too_long;
    };

    /// Throws std::runtime_error with one sentence.
    ControlSocket(const std::string &path, Refusals refusals);
    ~ControlSocket();
    ControlSocket(const ControlSocket &) = delete;
    ControlSocket &operator=(const ControlSocket &) = delete;

    /// Does what can be done without waiting, but answers one line at most. False: there was nothing.
    bool step(const Answer &answer);
    /// What to wait for, and for how long at most (milliseconds, -1: no end).
    int watch(std::vector<pollfd> &descriptors) const;
    size_t connections() const { return connections_.size(); }
    /// The path, if it is still this socket's.
    void remove_file() const { listener_.remove_file(); }

  private:
    struct Connection {
        int fd;
        std::string in;      ///< not yet answered
        std::string out;     ///< not yet read
        bool ending = false; ///< nothing more is read: it has hung up, or is to be closed
    };

    bool accept_one();
    bool serve(Connection &connection, const Answer &answer, bool &answered);
    bool read_some(Connection &connection);
    bool write_some(Connection &connection);

    const Refusals refusals_;
    const ListeningSocket listener_;
    bool no_descriptor_ = false;        ///< the process has none left for another connection
    std::list<Connection> connections_; ///< the next to be served first
};

} // namespace svio
