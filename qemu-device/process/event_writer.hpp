// SPDX-License-Identifier: GPL-2.0-or-later
/// Adds to eventfds of a peer that is not trusted.
#pragma once

#include <linux/aio_abi.h>

namespace svio {

/// write() waits while an eventfd's counter is full, unless O_NONBLOCK is on; and that flag belongs to the
/// peer as well, who can take it away at any time. The kernel itself adds without ever waiting, when an
/// asynchronous request ends (io_submit(2), aio_resfd). So this reads nothing of /dev/null, which ends at
/// once.
///
/// Of one thread. Where the kernel has no such requests (ENOSYS, or fs.aio-max-nr is used up) it asks whether
/// writing would wait, and writes: the peer could fill the counter just between the two.
class EventWriter {
  public:
    EventWriter();
    ~EventWriter();
    EventWriter(const EventWriter &) = delete;
    EventWriter &operator=(const EventWriter &) = delete;

    /// Adds 1. A counter that is full has been added to and not been read: the event is there already.
    void add(int eventfd);
    bool never_waits() const { return context_ != 0; }

    /// The calling thread's own.
    static EventWriter &of_this_thread();

  private:
    static constexpr unsigned events = 64; ///< that may have ended and not been taken

    bool submit(int eventfd);
    void take_ended();

    aio_context_t context_ = 0;
    int null_ = -1;
    unsigned ended_ = 0;
};

} // namespace svio
