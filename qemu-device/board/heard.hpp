// SPDX-License-Identifier: GPL-2.0-or-later
/// Where stations that are nobody's VIF were heard last: at the port, or behind a trusted VIF as on a bridge
/// of the PF (SPEC.md chapter 13).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>

namespace svio {

/// Bounded and without a lock: two stations whose addresses share a place displace each other, and then a
/// frame to one of them goes to more receivers than it must, as before it was heard. All cores use it.
class Heard {
  public:
    /// nowhere, at_port, or behind(slot).
    using Where = uint8_t;
    static constexpr Where nowhere = 0, at_port = 255;
    static constexpr Where behind(unsigned slot) { return static_cast<Where>(slot + 1); }
    static constexpr unsigned slot_of(Where where) { return where - 1u; }

    /// `mac` points to six bytes; `vid` is 0 outside of VLANs; `now` in ns. Group addresses are no stations.
    void learn(const uint8_t *mac, unsigned vid, Where where, uint64_t now) {
        if (mac[0] & 1)
            return;
        sweep(now);
        uint64_t key = mix(mac, vid);
        uint64_t value = tag(key) | uint64_t{where} << epoch_bits | epoch_of(now);
        std::atomic<uint64_t> &at = places_[index(key)];
        if (at.load(std::memory_order_relaxed) != value)
            at.store(value, std::memory_order_relaxed);
    }
    Where find(const uint8_t *mac, unsigned vid, uint64_t now) const {
        uint64_t key = mix(mac, vid), value = places_[index(key)].load(std::memory_order_relaxed);
        return tag_of(value) == tag(key) && fresh(value, now) ? where_of(value) : nowhere;
    }
    void forget(const uint8_t *mac, unsigned vid) {
        uint64_t key = mix(mac, vid);
        std::atomic<uint64_t> &at = places_[index(key)];
        uint64_t value = at.load(std::memory_order_relaxed);
        if (value != 0 && tag_of(value) == tag(key))
            at.compare_exchange_strong(value, 0, std::memory_order_relaxed);
    }
    /// All for which `gone` says so.
    template <typename Gone> void forget_if(Gone gone) {
        for (std::atomic<uint64_t> &at : places_) {
            uint64_t value = at.load(std::memory_order_relaxed);
            if (value != 0 && gone(where_of(value)))
                at.compare_exchange_strong(value, 0, std::memory_order_relaxed);
        }
    }

    /// A station that is silent for so many epochs (of 69 s) is forgotten, or up to one later (bridges: 300
    /// s).
    static constexpr unsigned epoch_shift = 36, epochs = 4;

  private:
    // A MAC and a VID have 60 bits. They are mixed in a way that can be undone, so that the place says ten of
    // them and the value in it need hold the other fifty alone.
    static constexpr unsigned key_bits = 60, index_bits = 10, epoch_bits = 4, where_bits = 8;
    static constexpr unsigned tag_shift = epoch_bits + where_bits;
    static constexpr uint64_t key_mask = (uint64_t{1} << key_bits) - 1;
    static constexpr uint64_t epoch_mask = (1 << epoch_bits) - 1;

    static uint64_t mix(const uint8_t *mac, unsigned vid) {
        uint64_t key = 0;
        std::memcpy(&key, mac, 6);
        key = key << 12 | (vid & 0xfff);
        key ^= key >> 31;
        key = key * 0x9e37'79b9'7f4a'7c15 & key_mask;
        return key ^ key >> 29;
    }
    static size_t index(uint64_t key) { return key & ((1 << index_bits) - 1); }
    static uint64_t tag(uint64_t key) { return key >> index_bits << tag_shift; }
    static uint64_t tag_of(uint64_t value) { return value >> tag_shift << tag_shift; }
    static Where where_of(uint64_t value) { return static_cast<Where>(value >> epoch_bits); }
    static uint64_t epoch_of(uint64_t now) { return now >> epoch_shift & epoch_mask; }
    static bool fresh(uint64_t value, uint64_t now) {
        return ((epoch_of(now) - value) & epoch_mask) <= epochs;
    }

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

    std::array<std::atomic<uint64_t>, size_t{1} << index_bits> places_{};
    std::atomic<uint64_t> swept_{0};
};

} // namespace svio
