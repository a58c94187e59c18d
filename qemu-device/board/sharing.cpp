// SPDX-License-Identifier: GPL-2.0-or-later
/// How VIFs share a board: which core serves whom, and who gets what a netdev pushes.
#include "board.hpp"

#include <algorithm>

namespace svio {

// ---- who is there ----

void Board::settings_changed(Vif &vif) {
    table_stale_ = true;
    update_mode();
    place(vif);
}

void Board::update_mode() {
    size_t present = 0;
    bool timed = port_rate_.limited();
    for (auto &vif : vifs_) {
        if (!vif->present())
            continue;
        if (present++ == 0)
            sole_ = vif->config().slot;
        timed = timed || vif->rate.any();
    }
    timed_ = timed;
    shared_ = present > 1;
    cable_ = present == 1 && sole().settings().plain() && !port_rate_.limited();
}

void Board::refresh_table() {
    if (!table_stale_)
        return;
    std::vector<Switch::Edge> edges;
    for (auto &vif : vifs_) {
        if (vif->present())
            edges.push_back(vif->edge());
    }
    table_.rebuild(edges);
    heard_.forget_if([this](Heard::Where where) {
        return where != Heard::at_port && !table_.promiscuous(Heard::slot_of(where));
    });
    table_stale_ = false;
}

// ---- cores ----

// Of those with the fewest queue pairs the first.
unsigned Board::least_loaded() const {
    std::vector<unsigned> load(cores_.size());
    for (auto &vif : vifs_) {
        for (unsigned pair = 0; pair < placements_[vif->config().slot].pairs; pair++)
            load[vif->pair(pair).core]++;
    }
    return static_cast<unsigned>(std::min_element(load.begin(), load.end()) - load.begin());
}

void Board::place(Vif &vif) {
    Placement &now = placements_[vif.config().slot];
    unsigned before = now.pairs;
    uint32_t wanted = vif.present() ? vif.settings().core : uint32_t{SVIO_CORE_AUTO};
    for (unsigned pair = vif.pairs(); pair < before; pair++)
        core_of(vif, pair).leave(vif, pair);
    now.pairs = std::min(before, vif.pairs());
    bool by_hand = wanted != SVIO_CORE_AUTO;
    unsigned first = by_hand ? wanted % cores() : least_loaded();
    for (unsigned pair = 0; pair < vif.pairs(); pair++) {
        unsigned core = by_hand ? first : (first + pair) % cores();
        if (pair >= before) {
            vif.pair(pair).core = core;
            core_of(vif, pair).serve(vif, pair);
        } else if (by_hand) {
            move(vif, pair, core);
        } // else it stays where it is
    }
    now = {vif.pairs(), wanted};
}

void Board::move(Vif &vif, unsigned pair, unsigned core) {
    Core &from = core_of(vif, pair);
    if (vif.pair(pair).core == core)
        return;
    from.hand_over(vif, pair, *cores_[core]);
    vif.pair(pair).core = core;
}

void Board::set_bells(Vif &vif, std::vector<Descriptor> bells) {
    Pause pause(*this);
    for (unsigned pair = 0; pair < SVIO_MAX_QUEUE_PAIRS; pair++) {
        Core *core = pair < placements_[vif.config().slot].pairs ? &core_of(vif, pair) : nullptr;
        if (core)
            core->unwatch(vif, pair);
        for (unsigned direction : {unsigned{SVIO_SEND}, unsigned{SVIO_RECEIVE}}) {
            size_t n = 2 * pair + direction;
            vif.pair(pair).bells[direction] = n < bells.size() ? std::move(bells[n]) : Descriptor();
        }
        if (core)
            core->watch(vif, pair);
    }
}

bool Board::balance_due() {
    if (!shared() || cores_.size() < 2)
        return false;
    uint64_t now = clock_.now(), at = balance_at_.load(std::memory_order_relaxed);
    return now >= at && balance_at_.compare_exchange_strong(at, now + balance_ns, std::memory_order_relaxed);
}

// By what queue pairs have sent and received since the last time. A pair moves if that makes the fuller one
// of two cores emptier than it was, and by enough not to swing to and fro.
void Board::balance() {
    struct Load {
        Vif *vif;
        unsigned pair;
        uint64_t work;
    };
    std::vector<Load> movable;
    std::vector<uint64_t> load(cores_.size());
    for (auto &vif : vifs_) {
        for (unsigned pair = 0; pair < vif->pairs(); pair++) {
            uint64_t work = vif->pair(pair).take_work();
            load[vif->pair(pair).core] += work;
            if (vif->settings().core == SVIO_CORE_AUTO)
                movable.push_back({vif.get(), pair, work});
        }
    }
    auto most = std::max_element(load.begin(), load.end()),
         least = std::min_element(load.begin(), load.end());
    uint64_t gap = *most - *least;
    if (gap <= *most / 4)
        return;
    auto from = static_cast<unsigned>(most - load.begin()), to = static_cast<unsigned>(least - load.begin());
    const Load *best = nullptr;
    auto distance = [gap](const Load &l) { return l.work > gap / 2 ? l.work - gap / 2 : gap / 2 - l.work; };
    for (const Load &l : movable) {
        if (l.vif->pair(l.pair).core == from && l.work > gap / 8 && l.work < gap - gap / 8 &&
            (!best || distance(l) < distance(*best)))
            best = &l;
    }
    if (!best)
        return;
    Pause pause(*this);
    move(*best->vif, best->pair, to);
}

// ---- what a netdev pushes ----

bool Board::receive(std::span<const uint8_t> frame, const Offload &offload) {
    if (!cable())
        return receive_switched(frame, offload);
    Vif &vif = sole();
    Vif::Route route = vif.route(frame);
    Core &core = core_of(vif, route.pair);
    // When a machine stops, QEMU offers what waits in its own queues once more and then forgets it: keep it
    // here.
    if (paused())
        return vif.active() && core.push_backlog(vif, {frame.begin(), frame.end()}, offload);
    if ((!core.driven() || core.backlog_full()) && core.behind_backlog())
        return false;
    // Delivery is the core's work, and takes its time.
    if (core.driven() && vif.active())
        return core.push_backlog(vif, {frame.begin(), frame.end()}, offload);
    Vif::Arrival arrival;
    Message message(frame, offload);
    Vif::Delivery outcome = vif.receive_locked(message, route, arrival, Vif::Terms{});
    return settle(vif, outcome, arrival, message, false);
}

// Guest lock held. The table is up to date but for changes under a pause that is still in force.
bool Board::receive_switched(std::span<const uint8_t> frame, const Offload &offload) {
    if (paused())
        refresh_table();
    return each_receiver(frame, offload,
                         [this](Vif &vif, const Message &message) { return offer(vif, message); });
}

namespace {

class Collector final : public Taker {
  public:
    bool take(std::span<const uint8_t> piece) override {
        bytes.insert(bytes.end(), piece.begin(), piece.end());
        return true;
    }
    std::vector<uint8_t> bytes;
};

} // namespace

// False: to be held back, as its VIF is the only one.
bool Board::offer(Vif &vif, const Message &message) {
    Vif::Route route = vif.route(message.head);
    Core &core = core_of(vif, route.pair);
    Vif::Delivery outcome = Vif::Delivery::Busy;
    Vif::Arrival arrival{.pair = route.pair};
    if (paused()) {
        if (!vif.active()) {
            vif.counters.add(SVIO_STAT_DROP_RX_NOT_RUNNING);
            return true;
        }
    } else if (core.driven() && vif.active()) {
        if (!shared() && core.backlog_full() && core.behind_backlog())
            return false;
    } else if (shared() ? core.has_backlog() : core.behind_backlog()) {
        if (!shared())
            return false;
    } else {
        outcome = vif.receive_locked(message, route, arrival, {.filtered = false, .patient = !shared()});
    }
    return settle(vif, outcome, arrival, message, true);
}

// What becomes of a message that the netdev has offered to a VIF: see offer().
bool Board::settle(Vif &vif, Vif::Delivery outcome, const Vif::Arrival &arrival, const Message &message,
                   bool sorted) {
    Core &core = core_of(vif, arrival.pair);
    // Of one whose first segments were delivered the netdev would offer all of them again.
    if (outcome == Vif::Delivery::Full && arrival.segment != 0)
        outcome = Vif::Delivery::Busy;
    if (outcome == Vif::Delivery::Busy) {
        Collector whole;
        message.show(whole);
        if (!core.push_backlog(vif, std::move(whole.bytes), message.offload, arrival.segment, sorted))
            vif.counters.add(SVIO_STAT_DROP_RX_BACKLOG);
    }
    if (outcome == Vif::Delivery::Full && arrival.until != 0)
        core.flush_port_at(arrival.until);
    vif.report_errors();
    return outcome != Vif::Delivery::Full;
}

} // namespace svio
