// SPDX-License-Identifier: GPL-2.0-or-later
#include "rate.hpp"

namespace svio {

namespace {

int64_t part(int64_t bytes, uint64_t share, uint64_t of) {
    return static_cast<int64_t>(static_cast<unsigned __int128>(bytes) * share / of);
}

} // namespace

// What is too much for one is there for all.
void PortRate::give(Share &share, int64_t bytes) {
    share.tokens += bytes;
    if (int64_t over = share.tokens - burst(); over > 0) {
        share.tokens -= over;
        spare_ += over;
    }
}

void PortRate::refill(uint64_t now) {
    if (filled_at_ == 0)
        filled_at_ = now > burst_ns ? now - burst_ns : 0;
    uint64_t passed = std::min<uint64_t>(now - filled_at_, 1'000'000'000);
    filled_at_ = now;
    uint64_t bits = passed * mbps_ + rest_; // thousandths
    rest_ = bits % 8000;
    int64_t fresh = static_cast<int64_t>(bits / 8000);
    uint64_t weights = 0, guaranteed = 0;
    for (const Share &share : shares_) {
        weights += share.weight;
        guaranteed += share.weight ? share.min_mbps : 0;
    }
    int64_t left = fresh;
    for (Share &share : shares_) {
        if (share.weight == 0 || share.min_mbps == 0)
            continue;
        // More may be promised than there is: then the promises are what it is divided by.
        int64_t bytes = part(fresh, share.min_mbps, std::max<uint64_t>(guaranteed, mbps_));
        give(share, bytes);
        left -= bytes;
    }
    int64_t rest = left;
    for (Share &share : shares_) {
        if (share.weight == 0)
            continue;
        int64_t bytes = part(rest, share.weight, weights);
        give(share, bytes);
        left -= bytes;
    }
    spare_ = std::min(spare_ + left, burst());
}

void PortRate::claim(unsigned core, uint64_t weight, uint64_t min_mbps, uint64_t now) {
    std::lock_guard guard(mutex_);
    refill(now);
    Share &share = shares_[core];
    share.weight = weight;
    share.min_mbps = min_mbps;
    if (weight == 0 && share.tokens > 0) {
        spare_ = std::min(spare_ + share.tokens, burst());
        share.tokens = 0;
    }
}

bool PortRate::may(unsigned core) {
    std::lock_guard guard(mutex_);
    Share &share = shares_[core];
    if (share.tokens > 0)
        return true;
    if (share.tokens + spare_ <= 0)
        return false;
    int64_t taken = std::min(spare_, 2048 - share.tokens);
    share.tokens += taken;
    spare_ -= taken;
    return share.tokens > 0;
}

void PortRate::spend(unsigned core, uint64_t bytes) {
    std::lock_guard guard(mutex_);
    shares_[core].tokens -= static_cast<int64_t>(bytes);
}

uint64_t PortRate::due(unsigned core, uint64_t now) {
    constexpr uint64_t least_ns = 20'000;
    std::lock_guard guard(mutex_);
    // As if all went to this core: if not, it looks once more.
    int64_t lack = 1 - shares_[core].tokens;
    uint64_t wait = lack > 0 ? static_cast<uint64_t>(lack) * 8000 / mbps_ : 0;
    return now + std::max(wait, least_ns);
}

} // namespace svio
