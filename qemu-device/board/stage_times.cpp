// SPDX-License-Identifier: GPL-2.0-or-later
#include "stage_times.hpp"

namespace svio {

#define NAME(id, text) text,
const std::array<const char *, StageCount> stage_names = {SVIO_STAGES(NAME)};
#undef NAME

// They were posted after the last look that did not find them, and before the doorbell.
void StageTimes::picked_up(SendQueue &queue, uint64_t n) {
    if (!on_ || n == 0)
        return;
    picked_ += n;
    uint64_t looked = queue.times.empty_at;
    if (looked == 0)
        return; // nobody had looked yet
    uint64_t rung = queue.times.rung_at.load(std::memory_order_relaxed);
    add(StageSendPickedUp, now_, std::max({looked, rung, woken_at_}), n);
}

void StageTimes::switched(Clock &clock, Outbox &outbox) {
    if (picked_ == 0)
        return;
    uint64_t begun = phase_;
    end_phase(clock);
    switched_ = phase_;
    add(StageSendSwitched, phase_, begun, picked_);
    for (Staged &frame : outbox.frames()) {
        if (frame.switched_at == 0)
            frame.switched_at = phase_;
    }
}

// What was given to receive queues in this phase was in the core's hands from its beginning on.
void StageTimes::end_phase(Clock &clock) {
    uint64_t begun = phase_;
    phase_ = clock.now();
    if (given_ != 0)
        add(StageReceiveDelivered, phase_, begun, given_);
    given_ = 0;
}

uint64_t StageTimes::completed_at(SendQueue &queue) const {
    if (!on_ || !queue.signal_held())
        return 0;
    if (queue.times.done_at == 0)
        queue.times.done_at = switched_;
    return queue.times.done_at;
}

} // namespace svio
