// SPDX-License-Identifier: GPL-2.0-or-later
/// Cores without threads: an alarm of the owner's clock steps them, so that a run is the same each time.
///
/// Everything is called with the guest lock held, by one thread at a time. A core that is woken looks
/// `poll_ns + message_ns` later, the price of a look and of the message that it is woken for; a look that
/// found n messages keeps it busy for `poll_ns + n * message_ns`, one that found none for `poll_ns`. After
/// the board's `poll_us` without work it sleeps, its doorbells armed, until it is woken or something is due.
/// The management core takes `poll_ns + message_ns` for each command, beside the others.
#pragma once

#include "host.hpp"

#include <cstdint>
#include <functional>
#include <vector>

namespace svio {

class Board;

/// Calls VirtualExecutor::fire() at the time that was set last, never from within set().
class Alarm {
  public:
    static constexpr uint64_t never = UINT64_MAX;
    virtual ~Alarm() = default;
    /// Nanoseconds of the board's clock.
    virtual void set(uint64_t at) = 0;
};

struct VirtualCosts {
    uint64_t poll_ns;    ///< of a look at all queues, at least 1
    uint64_t message_ns; ///< of each message taken from a send queue or put into a receive queue
    uint64_t idle_ns;    ///< without work, before a core sleeps
};

class VirtualExecutor {
  public:
    /// The board must have no threads, and outlive all calls but the destructor.
    VirtualExecutor(Board &board, Alarm &alarm, const VirtualCosts &costs);
    void start();
    void stop();
    /// A core has been poked: a doorbell, a frame, the end of a pause.
    void woken(unsigned core);
    /// What management does when its time has come, one command each time. Before start().
    void employ(std::function<void()> management) { management_ = std::move(management); }
    /// There is a command for it.
    void command_waits();
    /// The alarm: steps each core whose time has come, in the order of times and then of cores, and
    /// management before cores of the same time.
    void fire();

  private:
    struct Stepper {
        uint64_t at = Alarm::never; ///< of the next look
        uint64_t free_at = 0;       ///< busy until then
        uint64_t idle_since = 0;    ///< 0: it had work last
        bool asleep = true;
    };
    void step(unsigned core, uint64_t now);
    void sleep(unsigned core, uint64_t now);
    void set_alarm();

    Board &board_;
    Alarm &alarm_;
    const VirtualCosts costs_;
    std::vector<Stepper> steppers_;
    std::function<void()> management_;
    uint64_t command_at_ = Alarm::never;
    bool running_ = false, firing_ = false;
};

} // namespace svio
