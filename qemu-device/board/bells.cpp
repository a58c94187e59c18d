// SPDX-License-Identifier: GPL-2.0-or-later
#include "bells.hpp"

#include "board.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <system_error>

namespace svio {

unsigned take_bell(const Descriptor &bell) {
    constexpr uint64_t counted = 64;
    uint64_t times = 0;
    iovec place{&times, sizeof(times)};
    if (bell.get() < 0 || preadv2(bell.get(), &place, 1, -1, RWF_NOWAIT) != sizeof(times))
        return 0;
    return static_cast<unsigned>(std::min(times, counted));
}

Bells::Bells() : set_(epoll_create1(EPOLL_CLOEXEC)) {
    if (set_.get() < 0)
        throw std::system_error(errno, std::generic_category(), "epoll_create1");
}

void Bells::add(const Descriptor &bell, uint32_t slot, unsigned pair) {
    if (bell.get() < 0)
        return;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = uint64_t{slot} << 32 | pair;
    if (epoll_ctl(set_.get(), EPOLL_CTL_ADD, bell.get(), &event) == 0)
        count_++;
    else
        deaf_++;
}

// By hand: the eventfd is its peer's too, so that closing our descriptor does not take it out of the set.
void Bells::remove(const Descriptor &bell) {
    if (bell.get() < 0)
        return;
    if (epoll_ctl(set_.get(), EPOLL_CTL_DEL, bell.get(), nullptr) == 0)
        count_--;
    else
        deaf_--;
}

size_t Bells::look(Place *places) const {
    if (count_ == 0)
        return 0;
    std::array<epoll_event, at_once> events;
    int n = epoll_wait(set_.get(), events.data(), static_cast<int>(at_once), 0);
    for (int i = 0; i < n; i++) {
        uint64_t key = events[static_cast<size_t>(i)].data.u64;
        places[i] = {static_cast<uint32_t>(key >> 32), static_cast<uint32_t>(key)};
    }
    return static_cast<size_t>(std::max(n, 0));
}

// ---- cores ----

void Core::watch(Vif &vif, unsigned pair) {
    bells_.add(vif.pair(pair).bells[SVIO_SEND], vif.config().slot, pair);
}

void Core::unwatch(Vif &vif, unsigned pair) {
    bells_.remove(vif.pair(pair).bells[SVIO_SEND]);
}

// Doorbells that are descriptors: quiets them, and has others look whom they concern.
bool Core::take_bells() {
    was_rung_ = false;
    auto ring = [](Vif &vif, unsigned pair, unsigned direction, Queue &queue) {
        unsigned times = take_bell(vif.pair(pair).bells[direction]);
        queue.counters.add(SVIO_QSTAT_BELLS, times);
        return times != 0;
    };
    bool rung = bells_.take([&](uint32_t slot, unsigned pair) {
        ring(board_.vif(slot), pair, SVIO_SEND, board_.vif(slot).pair(pair).send);
    });
    if (lacks_.vif)
        rung |= ring(*lacks_.vif, lacks_.pair, SVIO_RECEIVE, lacks_.vif->receive_queue(lacks_.pair));
    return rung;
}

} // namespace svio
