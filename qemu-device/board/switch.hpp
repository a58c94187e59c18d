// SPDX-License-Identifier: GPL-2.0-or-later
/// The on-board switch (SPEC.md chapter 13): which VIFs a frame goes to, and whether to the port.
///
/// A table for lookups, made anew while the board is paused whenever an address, a filter or a VLAN has
/// changed; cores and holders of the guest lock read it in between.
#pragma once

#include "svio_abi.h"

#include <array>
#include <bit>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace svio {

using Mac = std::array<uint8_t, 6>;

/// Slots of a board.
class SlotSet {
  public:
    static constexpr unsigned slots = SVIO_MAX_VIFS + 1;

    void add(unsigned slot) { words_[slot / 64] |= uint64_t{1} << slot % 64; }
    void remove(unsigned slot) { words_[slot / 64] &= ~(uint64_t{1} << slot % 64); }
    bool has(unsigned slot) const { return words_[slot / 64] >> slot % 64 & 1; }
    bool empty() const { return (words_[0] | words_[1]) == 0; }
    unsigned size() const {
        return static_cast<unsigned>(std::popcount(words_[0]) + std::popcount(words_[1]));
    }
    SlotSet operator&(const SlotSet &other) const {
        return {words_[0] & other.words_[0], words_[1] & other.words_[1]};
    }
    SlotSet operator|(const SlotSet &other) const {
        return {words_[0] | other.words_[0], words_[1] | other.words_[1]};
    }
    bool operator==(const SlotSet &) const = default;
    template <typename Visit> void each(Visit visit) const {
        for (unsigned n = 0; n < words_.size(); n++) {
            for (uint64_t left = words_[n]; left != 0; left &= left - 1)
                visit(n * 64 + static_cast<unsigned>(std::countr_zero(left)));
        }
    }

    SlotSet() = default;

  private:
    SlotSet(uint64_t low, uint64_t high) : words_{low, high} {}
    std::array<uint64_t, 2> words_{};
};

/// VIDs that a guest wants to receive.
using VlanFilter = std::bitset<4096>;

/// So much of a frame is copied before it is looked at: enough for its addresses, tags, and what a hash is
/// over.
inline constexpr size_t head_size = 128;

class Switch {
  public:
    static constexpr size_t tag_size = 4;
    static constexpr unsigned vid_mask = 0xfff;

    /// What the switch has to know of a VIF.
    struct Edge {
        unsigned slot = 0;
        Mac mac{};         ///< in force
        uint16_t vlan = 0; ///< VID | priority << 13
        bool spoof_check = false;
        bool tagging = false;     ///< its own tags pass
        uint32_t neighbours = 0;  ///< the group that it may reach, or SVIO_NEIGHBOURS_NONE
        bool promiscuous = false; ///< gets what nobody claims
        bool multicast = false;   ///< may receive what is in its filter
        bool all_multicast = false;
        std::span<const Mac> groups;
        const VlanFilter *vids = nullptr; ///< null: all
    };
    /// Where a frame goes.
    struct Way {
        SlotSet slots;
        bool port = false;
        bool unclaimed = false; ///< unicast to nobody here: to the port, and to those that get such frames
        bool tagged = false;    ///< as it came; else `tci` is to be put in for who sees tags
        uint16_t tci = 0;
        svio_stat drop = SVIO_STAT_COUNT; ///< or why it goes nowhere

        bool dropped() const { return drop != SVIO_STAT_COUNT; }
        /// Belongs to a VLAN, so that a VIF which is in it sees no tag, and all others one.
        bool in_vlan() const { return tci & vid_mask; }
    };

    void rebuild(std::span<const Edge> edges);
    /// `head`: the first bytes of a frame, which has at least SVIO_FRAME_MIN.
    Way from_vif(unsigned slot, std::span<const uint8_t> head) const;
    Way from_port(std::span<const uint8_t> head) const;
    /// Does this VIF see the tags of frames?
    bool sees_tags(unsigned slot) const { return edges_[slot].vlan == 0; }
    /// Does it get what nobody claims?
    bool promiscuous(unsigned slot) const { return promiscuous_.has(slot); }
    /// Does this frame of its come from its own address?
    bool is_own(unsigned slot, const uint8_t *source) const;

    /// The head of a frame as it is seen by those who see tags, and by those who do not.
    class Heads {
      public:
        /// `head` must live as long.
        Heads(const Way &way, std::span<const uint8_t> head);
        std::span<const uint8_t> seen(bool tags) const { return tags == tagged_ ? head_ : other(); }

      private:
        std::span<const uint8_t> other() const { return std::span(bytes_).first(length_); }
        std::span<const uint8_t> head_;
        bool tagged_ = false; // as it came
        std::array<uint8_t, head_size + tag_size> bytes_;
        size_t length_ = 0;
    };

    static bool is_tagged(std::span<const uint8_t> head) {
        return head.size() >= SVIO_FRAME_MIN + tag_size && head[12] == 0x81 && head[13] == 0;
    }

  private:
    /// By MAC. Open addressing, at most half full.
    class Table {
      public:
        void reset(size_t entries);
        void add(const uint8_t *mac, unsigned slot);
        SlotSet find(const uint8_t *mac) const;

      private:
        struct Entry {
            uint64_t key = 0;
            SlotSet slots;
        };
        size_t place(uint64_t key) const;
        std::vector<Entry> entries_;
        size_t mask_ = 0;
    };
    struct Known {
        Mac mac{};
        uint16_t vlan = 0;
        bool spoof_check = false;
        bool tagging = false;
    };

    void group(std::span<const Edge> edges);
    SlotSet members(unsigned vid) const { return vlan_sets_[vlan_index_[vid]] | open_; }
    void forward(Way &way, const uint8_t *to, const SlotSet &members) const;
    void keep_neighbours(Way &way, unsigned slot) const;
    SlotSet &vlan_set(unsigned vid);

    std::array<Known, SlotSet::slots> edges_{};
    Table stations_;
    Table groups_;
    SlotSet untagged_;    ///< members of no VLAN
    SlotSet open_;        ///< that get any tagged frame
    SlotSet promiscuous_; ///< that get what nobody claims
    SlotSet all_multicast_;
    bool grouped_ = false;                             ///< not all VIFs may reach each other
    std::array<SlotSet, SlotSet::slots> neighbours_{}; ///< and the VIF itself
    std::array<uint8_t, 4096> vlan_index_{};
    std::vector<SlotSet> vlan_sets_{1};
};

} // namespace svio
