// SPDX-License-Identifier: GPL-2.0-or-later
/// What a service says to systemd (sd_notify(3)); without systemd nothing.
#pragma once

#include <cstddef>
#include <glib.h>

namespace svio {

class Service {
  public:
    /// The sockets accept. From now on the watchdog, if there is one, hears of a main loop that turns.
    void ready();
    void machines(size_t attached);
    /// Ends the watchdog too: the end may take its time.
    void stopping();
    ~Service() { stop_watchdog(); }

  private:
    void stop_watchdog();

    guint watchdog_ = 0;
};

} // namespace svio
