// SPDX-License-Identifier: GPL-2.0-or-later
#include "virtual_executor.hpp"

#include "board.hpp"

#include <algorithm>

namespace svio {

VirtualExecutor::VirtualExecutor(Board &board, Alarm &alarm, const VirtualCosts &costs)
    : board_(board), alarm_(alarm), costs_(costs), steppers_(board.cores()) {
    for (unsigned n = 0; n < board.cores(); n++)
        board.core(n).driven_by(this);
}

void VirtualExecutor::start() {
    running_ = true;
    for (unsigned n = 0; n < steppers_.size(); n++)
        woken(n);
}

void VirtualExecutor::stop() {
    running_ = false;
    for (Stepper &stepper : steppers_)
        stepper = {};
    command_at_ = Alarm::never;
    alarm_.set(Alarm::never);
}

void VirtualExecutor::woken(unsigned core) {
    Stepper &stepper = steppers_[core];
    if (!running_ || !stepper.asleep)
        return; // it looks anyway
    uint64_t at = std::max(board_.clock().now(), stepper.free_at) + costs_.poll_ns + costs_.message_ns;
    stepper.asleep = false;
    stepper.idle_since = 0;
    board_.core(core).counters.add(CoreWakes);
    stepper.at = std::min(stepper.at, at);
    set_alarm();
}

void VirtualExecutor::command_waits() {
    if (!running_ || command_at_ != Alarm::never)
        return;
    command_at_ = board_.clock().now() + costs_.poll_ns + costs_.message_ns;
    set_alarm();
}

void VirtualExecutor::fire() {
    if (firing_)
        return; // an event loop inside of a port's send()
    firing_ = true;
    while (running_) {
        auto next = std::min_element(steppers_.begin(), steppers_.end(),
                                     [](const Stepper &a, const Stepper &b) { return a.at < b.at; });
        uint64_t now = board_.clock().now();
        if (std::min(command_at_, next->at) > now)
            break;
        if (command_at_ <= next->at) {
            command_at_ = Alarm::never;
            management_();
        } else {
            step(static_cast<unsigned>(next - steppers_.begin()), now);
        }
    }
    firing_ = false;
    set_alarm();
}

void VirtualExecutor::step(unsigned n, uint64_t now) {
    Stepper &stepper = steppers_[n];
    Core &core = board_.core(n);
    stepper.at = Alarm::never;
    if (board_.paused()) {
        core.parked();
        stepper.asleep = true; // whoever ends the pause wakes it
        return;
    }
    stepper.asleep = false;
    uint64_t before = core.messages();
    bool found = core.round();
    uint64_t cost = costs_.poll_ns + (core.messages() - before) * costs_.message_ns;
    core.spent(cost);
    stepper.free_at = now + cost;
    stepper.at = stepper.free_at;
    if (found) {
        stepper.idle_since = 0;
        return;
    }
    if (stepper.idle_since == 0)
        stepper.idle_since = now;
    if (now - stepper.idle_since >= costs_.idle_ns || core.waits_for_tokens())
        sleep(n, now);
}

void VirtualExecutor::sleep(unsigned n, uint64_t now) {
    Stepper &stepper = steppers_[n];
    Core &core = board_.core(n);
    if (!core.prepare_sleep() || core.poked())
        return; // something is there after all
    core.counters.add(CoreSleeps);
    stepper.asleep = true;
    uint64_t due = core.due();
    stepper.at = due == 0 ? Alarm::never : std::max({due, stepper.free_at, now + 1});
}

void VirtualExecutor::set_alarm() {
    if (firing_)
        return; // fire() does, at its end
    uint64_t first = command_at_;
    for (const Stepper &stepper : steppers_)
        first = std::min(first, stepper.at);
    alarm_.set(running_ ? first : Alarm::never);
}

} // namespace svio
