// SPDX-License-Identifier: GPL-2.0-or-later
/// Who has been heard at the port: unicast to them need not be shown to promiscuous VIFs (SPEC.md chapter
/// 13).
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>

namespace svio {

/// Bounded and without a lock: two stations whose addresses share a place displace each other, and then a
/// frame to one of them goes to more receivers than it must, as before it was heard. All cores use it.
class PortStations {
  public:
    /// `mac` points to six bytes; `vid` is 0 outside of VLANs; `now` in ns. Group addresses are no stations.
    void learn(const uint8_t *mac, unsigned vid, uint64_t now) {
        if (mac[0] & 1)
            return;
        sweep(now);
        uint64_t key = key_of(mac, vid), value = key | epoch_of(now);
        std::atomic<uint64_t> &at = place(key);
        if (at.load(std::memory_order_relaxed) != value)
            at.store(value, std::memory_order_relaxed);
    }
    bool knows(const uint8_t *mac, unsigned vid, uint64_t now) const {
        uint64_t key = key_of(mac, vid), value = place(key).load(std::memory_order_relaxed);
        return (value & ~epoch_mask) == key && fresh(value, now);
    }
    /// It has been heard somewhere else.
    void forget(const uint8_t *mac, unsigned vid) {
        uint64_t key = key_of(mac, vid);
        std::atomic<uint64_t> &at = place(key);
        uint64_t value = at.load(std::memory_order_relaxed);
        if ((value & ~epoch_mask) == key)
            at.compare_exchange_strong(value, 0, std::memory_order_relaxed);
    }

    static constexpr unsigned places = 1024;
    /// A station that is silent for so long is forgotten, or up to one epoch later (bridges: 300 s).
    static constexpr unsigned epoch_shift = 36, epochs = 4;

  private:
    static constexpr uint64_t epoch_mask = 15;

    static uint64_t epoch_of(uint64_t now) { return now >> epoch_shift & epoch_mask; }
    static bool fresh(uint64_t value, uint64_t now) {
        return ((epoch_of(now) - value) & epoch_mask) <= epochs;
    }
    static uint64_t key_of(const uint8_t *mac, unsigned vid) {
        uint64_t key = 0;
        std::memcpy(&key, mac, 6);
        return key << 16 | uint64_t{vid & 0xfff} << 4;
    }
    static size_t index(uint64_t key) {
        return static_cast<size_t>((key >> 4) * 0x9e37'79b9'7f4a'7c15 >> (64 - std::bit_width(places - 1)));
    }
    std::atomic<uint64_t> &place(uint64_t key) { return places_[index(key)]; }
    const std::atomic<uint64_t> &place(uint64_t key) const { return places_[index(key)]; }

    // Before the counter of epochs has gone around, and what is old would look new.
    void sweep(uint64_t now) {
        uint64_t epoch = now >> epoch_shift;
        if (swept_.load(std::memory_order_relaxed) == epoch ||
            swept_.exchange(epoch, std::memory_order_relaxed) == epoch)
            return;
        for (std::atomic<uint64_t> &at : places_) {
            uint64_t value = at.load(std::memory_order_relaxed);
            if (value != 0 && !fresh(value, now))
                at.compare_exchange_strong(value, 0, std::memory_order_relaxed);
        }
    }

    std::array<std::atomic<uint64_t>, places> places_{};
    std::atomic<uint64_t> swept_{0};
};

} // namespace svio
