// SPDX-License-Identifier: GPL-2.0-or-later
/// Rates (SPEC.md chapter 14): token buckets of VIFs, and the one of the port, which cores share.
#pragma once

#include "svio_abi.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

namespace svio {

/// A token bucket, kept as the time at which it is empty no more: exact at any rate, and idle it costs
/// nothing.
class TokenBucket {
  public:
    /// So long may the rate be exceeded after a pause. Covers a core that comes late.
    static constexpr uint64_t burst_ns = 10'000'000;

    void set_rate(uint32_t mbps) {
        mbps_ = mbps;
        rest_ = 0;
    }
    void fill() { due_ = 0; }
    bool limited() const { return mbps_ != 0; }
    /// When it may give again: now, or later.
    uint64_t due() const { return due_; }
    bool may(uint64_t now) const { return due_ <= now; }
    /// Takes tokens, also those that are not there yet.
    void spend(uint64_t bytes, uint64_t now) {
        uint64_t bits = bytes * 8000 + rest_; // in Mb/s times nanoseconds
        due_ = std::max(due_, now > burst_ns ? now - burst_ns : 0) + bits / mbps_;
        rest_ = bits % mbps_;
    }

  private:
    uint32_t mbps_ = 0;
    uint64_t due_ = 0;
    uint64_t rest_ = 0;
};

/// Of one VIF. Its queue pairs may be with several cores.
class VifRate {
  public:
    /// Paused.
    void set(uint32_t min_mbps, uint32_t max_mbps) {
        min_.set_rate(min_mbps);
        max_.set_rate(max_mbps);
        any_ = min_mbps || max_mbps;
    }
    /// As if nothing had ever been sent. Paused.
    void fill() {
        min_.fill();
        max_.fill();
    }
    bool any() const { return any_; }
    bool guarantees() const { return min_.limited(); }
    /// May it send at all? If not, `due` says when.
    bool may(uint64_t now, uint64_t &due) {
        std::lock_guard guard(mutex_);
        due = max_.due();
        return !max_.limited() || max_.may(now);
    }
    /// Is less than the guaranteed rate used up?
    bool owed(uint64_t now) {
        std::lock_guard guard(mutex_);
        return min_.limited() && min_.may(now);
    }
    void spend(uint64_t bytes, uint64_t now, bool guaranteed) {
        std::lock_guard guard(mutex_);
        if (max_.limited())
            max_.spend(bytes, now);
        if (guaranteed)
            min_.spend(bytes, now);
    }

  private:
    std::mutex mutex_;
    bool any_ = false; // changed while the board is paused
    TokenBucket min_, max_;
};

/// The port's limit. What it allows is dealt out to the cores that have something to send: what their VIFs
/// are guaranteed first, the rest by the sum of their weights. What a core leaves goes to the others.
class PortRate {
  public:
    static constexpr uint64_t burst_ns = 5'000'000;

    void set_rate(uint32_t mbps) { mbps_ = mbps; }
    uint32_t mbps() const { return mbps_; }
    bool limited() const { return mbps_ != 0; }
    /// A core says what it has to send: the sum of weights and of guarantees of its VIFs that have something
    /// for the port; 0: nothing.
    void claim(unsigned core, uint64_t weight, uint64_t min_mbps, uint64_t now);
    bool may(unsigned core);
    void spend(unsigned core, uint64_t bytes);
    /// When there may be tokens again.
    uint64_t due(unsigned core, uint64_t now);

  private:
    struct Share {
        int64_t tokens = 0; // bytes
        uint64_t weight = 0, min_mbps = 0;
    };
    void refill(uint64_t now);
    void give(Share &share, int64_t bytes);
    int64_t burst() const { return std::max<int64_t>(static_cast<int64_t>(burst_ns / 8000 * mbps_), 2048); }

    uint32_t mbps_ = 0;
    std::mutex mutex_;
    std::array<Share, SVIO_MAX_CORES> shares_{};
    int64_t spare_ = 0;
    uint64_t filled_at_ = 0;
    uint64_t rest_ = 0;
};

} // namespace svio
