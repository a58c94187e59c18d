// SPDX-License-Identifier: GPL-2.0-or-later
/// Counters that any thread may read while others count.
#pragma once

#include "svio_abi.h"

#include <array>
#include <atomic>
#include <cstdint>

namespace svio {

template <size_t N> class Counters {
  public:
    void add(size_t which, uint64_t n = 1) { value_[which].fetch_add(n, std::memory_order_relaxed); }
    void set(size_t which, uint64_t n) { value_[which].store(n, std::memory_order_relaxed); }
    void clear() {
        for (auto &value : value_)
            value.store(0, std::memory_order_relaxed);
    }
    uint64_t get(size_t which) const { return value_[which].load(std::memory_order_relaxed); }

  private:
    std::array<std::atomic<uint64_t>, N> value_{};
};

using VifCounters = Counters<SVIO_STAT_COUNT>;
using QueueCounters = Counters<SVIO_QSTAT_COUNT>;

#define SVIO_CORE_STATS(X)                                                                                   \
    X(Polls, polls)                                                                                          \
    X(EmptyPolls, empty_polls)                                                                               \
    X(Sleeps, sleeps)                                                                                        \
    X(Wakes, wakes)                                                                                          \
    X(Rests, rests)                                                                                          \
    X(PickedUp, picked_up)                                                                                   \
    X(Switched, switched)                                                                                    \
    X(Delivered, delivered)                                                                                  \
    X(Signalled, signalled)                                                                                  \
    X(LockTaken, lock_taken)                                                                                 \
    X(Backlogged, backlogged)                                                                                \
    X(PortBlocked, port_blocked)                                                                             \
    X(Parks, parks)

enum CoreStat : size_t {
#define X(name, text) Core##name,
    SVIO_CORE_STATS(X)
#undef X
        CoreStatCount
};
using CoreCounters = Counters<CoreStatCount>;

extern const std::array<const char *, SVIO_STAT_COUNT> vif_stat_names;
extern const std::array<const char *, SVIO_QSTAT_COUNT> queue_stat_names;
extern const std::array<const char *, CoreStatCount> core_stat_names;

} // namespace svio
