// SPDX-License-Identifier: GPL-2.0-or-later
/// A core's signals: asked of its queues at the end of a round, and raised for what has completed.
#include "board.hpp"
#include "core.hpp"

namespace svio {

void Core::collect_signals(bool now_or_never) {
    auto ask = [&](Vif &vif, Queue &queue, Stage stage, uint64_t since) {
        if (queue.signal_due(board_.clock(), now_or_never))
            signals_.push_back({&vif, queue.regs.vector, stage, since});
    };
    for (const Served &served : served_) {
        if (!served.vif->active())
            continue;
        SendQueue &queue = served.vif->pair(served.pair).send;
        ask(*served.vif, queue, StageSendSignalled, times_.completed_at(queue));
        if (!queue.signal_held())
            queue.times.done_at = 0;
    }
    // Whoever delivers asks: the core that polls the port, and the one that drained its backlog.
    std::erase_if(delivered_, [&](Delivered &served) {
        if (served.since == 0)
            served.since = times_.delivered_at();
        if (!served.vif->active())
            return false; // bus mastering may come back
        ReceiveQueue &queue = served.vif->receive_queue(served.pair);
        std::lock_guard lock(queue.mutex);
        ask(*served.vif, queue, StageReceiveSignalled, served.since);
        // What moderation holds back is asked for again, until it is sent.
        return !queue.running() || !queue.signal_held();
    });
}

// Active, so that a pause waits for it. What cannot be raised without the guest lock is left for flush().
void Core::raise_unlocked() {
    std::erase_if(signals_, [this](const Signal &signal) {
        if (!signal.vif->dma() || !signal.vif->signals().raise_unlocked(signal.vector))
            return false;
        counters.add(CoreSignalled);
        times_.signalled(signal.stage, signal.since, board_.clock());
        return true;
    });
}

// Guest lock held. What a function may not send while its bus mastering is off waits until it is on again.
void Core::raise_signals() {
    // An MSI-X entry may point at a register: raising may reset this very VIF, which empties signals_.
    due_.swap(signals_);
    for (const Signal &signal : due_) {
        if (!signal.vif->dma()) {
            signals_.push_back(signal);
            continue;
        }
        signal.vif->signals().raise(signal.vector);
        counters.add(CoreSignalled);
        times_.signalled(signal.stage, signal.since, board_.clock());
    }
    due_.clear();
}

} // namespace svio
