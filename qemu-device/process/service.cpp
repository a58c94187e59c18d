// SPDX-License-Identifier: GPL-2.0-or-later
#include "service.hpp"

#include <string>
#include <systemd/sd-daemon.h>

namespace svio {

void Service::ready() {
    sd_notify(0, "READY=1");
    machines(0);
    uint64_t usec = 0;
    if (sd_watchdog_enabled(0, &usec) > 0) {
        // Twice in its time, as sd_watchdog_enabled(3) advises.
        watchdog_ = g_timeout_add(
            static_cast<guint>(usec / 2000),
            [](gpointer) -> gboolean {
                sd_notify(0, "WATCHDOG=1");
                return G_SOURCE_CONTINUE;
            },
            nullptr);
    }
}

void Service::machines(size_t attached) {
    sd_notify(0, ("STATUS=" + std::to_string(attached) + (attached == 1 ? " machine" : " machines")).c_str());
}

void Service::stopping() {
    stop_watchdog();
    sd_notify(0, "STOPPING=1");
}

void Service::stop_watchdog() {
    if (watchdog_)
        g_source_remove(watchdog_);
    watchdog_ = 0;
}

} // namespace svio
