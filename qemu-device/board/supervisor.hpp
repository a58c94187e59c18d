// SPDX-License-Identifier: GPL-2.0-or-later
/// Management as the functions of a board see it: what a guest may only ask for, and the PF's admin queue.
/// All is called with the guest lock held, also from inside of a command of management: raising an interrupt
/// may be a write to a register.
#pragma once

#include <array>
#include <cstdint>

namespace svio {

class Vif;

/// Rates in Mb/s (max 0: unlimited) and the share of what is contended.
struct Qos {
    uint32_t min_mbps = 0;
    uint32_t max_mbps = 0;
    uint32_t weight = 1;
    bool operator==(const Qos &) const = default;
};

class Supervisor {
  public:
    virtual ~Supervisor() = default;
    /// SVIO_ST_OK if this guest may have this MAC, which is a valid one.
    virtual uint16_t may_use_mac(const Vif &vif, const std::array<uint8_t, 6> &mac) = 0;
    /// `figures` are those asked for; if OK or TRIMMED, those in force.
    virtual uint16_t request_qos(Vif &vif, Qos &figures) = 0;
    /// The function is in the state RESET.
    virtual void was_reset(Vif &vif) = 0;
    /// Registers from SVIO_REG_ADMIN_SIZE_MAX on. False: a bad access.
    virtual bool read_admin(uint32_t offset, uint32_t &value) = 0;
    virtual bool write_admin(uint32_t offset, uint32_t value) = 0;
    /// A pause is over: commands may wait.
    virtual void resumed() = 0;
};

} // namespace svio
