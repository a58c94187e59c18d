// SPDX-License-Identifier: GPL-2.0-or-later
#include "shared_signals.hpp"

#include "board.hpp"

namespace svio {

Signals &SharedSignals::add(Signals &own) {
    return lines_.emplace_back(*this, static_cast<unsigned>(lines_.size()), own);
}

void SharedSignals::raise(unsigned slot, unsigned vector) {
    identifier_ |= 1u << slot % bits;
    for (unsigned n = slot % bits; n < lines_.size(); n += bits) {
        if (n == slot)
            lines_[n].own.raise(vector);
        else
            raise_in_vain(n);
    }
}

// Nobody can tell which of its queues was meant, so it is all that run.
void SharedSignals::raise_in_vain(unsigned slot) {
    Vif &vif = board_.vif(slot);
    if (!vif.active())
        return;
    uint32_t vectors = 0;
    for (unsigned pair = 0; pair < vif.pairs(); pair++) {
        for (const Queue *queue :
             {static_cast<Queue *>(&vif.pair(pair).send), static_cast<Queue *>(&vif.pair(pair).receive)}) {
            if (queue->running() && queue->regs.vector < SVIO_VECTORS)
                vectors |= 1u << queue->regs.vector;
        }
    }
    if (vectors == 0)
        return;
    vif.counters.add(SVIO_STAT_SIGNALS_REDUNDANT);
    for (unsigned vector = 0; vector < SVIO_VECTORS; vector++) {
        if (vectors >> vector & 1)
            lines_[slot].own.raise(vector);
    }
}

} // namespace svio
