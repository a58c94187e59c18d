// SPDX-License-Identifier: GPL-2.0-or-later
#include "switch.hpp"

#include <algorithm>
#include <cstring>

namespace svio {

namespace {

constexpr uint16_t reserved_vid = 0xfff;

bool is_group(const uint8_t *mac) {
    return mac[0] & 1;
}

bool is_broadcast(const uint8_t *mac) {
    return std::all_of(mac, mac + 6, [](uint8_t byte) { return byte == 0xff; });
}

/// A tag of any kind, as a provider's bridge would put.
bool looks_tagged(std::span<const uint8_t> head) {
    return (head[12] == 0x81 && head[13] == 0) || (head[12] == 0x88 && head[13] == 0xa8);
}

uint16_t tci_of(std::span<const uint8_t> head) {
    return static_cast<uint16_t>(head[14] << 8 | head[15]);
}

// Not 0 for any address of six bytes, which marks an entry that is free.
uint64_t key_of(const uint8_t *mac) {
    uint64_t key = 0;
    std::memcpy(&key, mac, 6);
    return key | uint64_t{1} << 63;
}

} // namespace

// ---- by MAC ----

void Switch::Table::reset(size_t entries) {
    size_t size = std::bit_ceil(std::max<size_t>(2 * entries, 16));
    entries_.assign(size, Entry{});
    mask_ = size - 1;
}

// Where the key is, or would be put.
size_t Switch::Table::place(uint64_t key) const {
    size_t at = static_cast<size_t>((key * 0x9e37'79b9'7f4a'7c15) >> 32) & mask_;
    while (entries_[at].key != 0 && entries_[at].key != key)
        at = (at + 1) & mask_;
    return at;
}

void Switch::Table::add(const uint8_t *mac, unsigned slot) {
    uint64_t key = key_of(mac);
    Entry &entry = entries_[place(key)];
    entry.key = key;
    entry.slots.add(slot);
}

SlotSet Switch::Table::find(const uint8_t *mac) const {
    return entries_.empty() ? SlotSet{} : entries_[place(key_of(mac))].slots;
}

// ---- the table ----

SlotSet &Switch::vlan_set(unsigned vid) {
    if (vlan_index_[vid] == 0) {
        vlan_index_[vid] = static_cast<uint8_t>(vlan_sets_.size());
        vlan_sets_.emplace_back();
    }
    return vlan_sets_[vlan_index_[vid]];
}

void Switch::group(std::span<const Edge> edges) {
    grouped_ = std::any_of(edges.begin(), edges.end(), [](const Edge &edge) { return edge.neighbours != 0; });
    neighbours_.fill({});
    for (const Edge &edge : edges) {
        neighbours_[edge.slot].add(edge.slot);
        for (const Edge &other : edges) {
            if (edge.neighbours == other.neighbours && edge.neighbours != SVIO_NEIGHBOURS_NONE)
                neighbours_[edge.slot].add(other.slot);
        }
    }
}

void Switch::rebuild(std::span<const Edge> edges) {
    size_t groups = 0;
    for (const Edge &edge : edges)
        groups += edge.groups.size();
    stations_.reset(edges.size());
    groups_.reset(groups);
    edges_.fill({});
    untagged_ = open_ = promiscuous_ = all_multicast_ = SlotSet{};
    vlan_index_.fill(0);
    vlan_sets_.assign(1, SlotSet{});
    for (const Edge &edge : edges) {
        edges_[edge.slot] = {edge.mac, edge.vlan, edge.spoof_check, edge.tagging && edge.vlan == 0};
        stations_.add(edge.mac.data(), edge.slot);
        if (edge.promiscuous)
            promiscuous_.add(edge.slot);
        if (edge.multicast && edge.all_multicast)
            all_multicast_.add(edge.slot);
        if (edge.multicast) {
            for (const Mac &group : edge.groups)
                groups_.add(group.data(), edge.slot);
        }
        if (edge.vlan != 0)
            vlan_set(edge.vlan & vid_mask).add(edge.slot);
        else
            untagged_.add(edge.slot);
        if (edge.vlan == 0 && edge.tagging && !edge.vids)
            open_.add(edge.slot);
    }
    group(edges);
    // More VLANs than there are indices for could only come from filters: such a VIF gets all of them.
    for (const Edge &edge : edges) {
        if (edge.vlan != 0 || !edge.tagging || !edge.vids)
            continue;
        for (unsigned vid = 1; vid < reserved_vid && !open_.has(edge.slot); vid++) {
            if (!edge.vids->test(vid))
                continue;
            if (vlan_index_[vid] == 0 && vlan_sets_.size() > 0xff)
                open_.add(edge.slot);
            else
                vlan_set(vid).add(edge.slot);
        }
    }
}

// ---- lookups ----

void Switch::forward(Way &way, const uint8_t *to, const SlotSet &members) const {
    if (is_broadcast(to))
        way.slots = members;
    else if (is_group(to))
        way.slots = (groups_.find(to) | all_multicast_) & members;
    else if (way.slots = stations_.find(to) & members; !way.slots.empty())
        way.port = false;
    else {
        way.slots = promiscuous_ & members;
        way.unclaimed = true;
    }
}

// Unicast to a VIF that is none is not for the port either: the wire's switch could bring it back.
void Switch::keep_neighbours(Way &way, unsigned slot) const {
    bool claimed = !way.slots.empty() && !way.port;
    way.slots = way.slots & neighbours_[slot];
    if (claimed && way.slots.empty())
        way.drop = SVIO_STAT_DROP_TX_NEIGHBOUR;
}

bool Switch::is_own(unsigned slot, const uint8_t *source) const {
    return std::memcmp(source, edges_[slot].mac.data(), edges_[slot].mac.size()) == 0;
}

Switch::Way Switch::from_vif(unsigned slot, std::span<const uint8_t> head) const {
    Way way;
    const Known &edge = edges_[slot];
    if (edge.spoof_check && !is_own(slot, head.data() + 6)) {
        way.drop = SVIO_STAT_DROP_TX_SPOOF;
        return way;
    }
    way.tci = edge.vlan;
    if (looks_tagged(head)) {
        way.tagged = is_tagged(head);
        if (way.tagged)
            way.tci = tci_of(head);
        // A tag of another kind would carry the frame past the VLANs of this switch.
        if (!edge.tagging || (way.tci & vid_mask) == reserved_vid) {
            way.drop = SVIO_STAT_DROP_TX_VLAN;
            return way;
        }
    }
    way.port = true;
    forward(way, head.data(), way.in_vlan() ? members(way.tci & vid_mask) : untagged_);
    if (grouped_)
        keep_neighbours(way, slot);
    if (way.slots.has(slot)) {
        way.slots.remove(slot);
        // To itself alone: a switch sends nothing back to where it came from.
        if (way.slots.empty() && !way.port)
            way.drop = SVIO_STAT_DROP_TX_HAIRPIN;
    }
    return way;
}

Switch::Way Switch::from_port(std::span<const uint8_t> head) const {
    Way way;
    way.tagged = is_tagged(head);
    if (way.tagged)
        way.tci = tci_of(head);
    forward(way, head.data(), way.in_vlan() ? members(way.tci & vid_mask) : untagged_);
    way.port = false;
    return way;
}

// ---- tags ----

// Outside of VLANs all see the frame as it is.
Switch::Heads::Heads(const Way &way, std::span<const uint8_t> head) : head_(head), tagged_(way.tagged) {
    constexpr ptrdiff_t addresses = 12;
    if (!way.in_vlan()) {
        length_ = head.size();
        std::copy(head.begin(), head.end(), bytes_.begin());
        return;
    }
    auto out = std::copy_n(head.begin(), addresses, bytes_.begin());
    if (!tagged_) {
        const std::array<uint8_t, tag_size> tag = {0x81, 0, static_cast<uint8_t>(way.tci >> 8),
                                                   static_cast<uint8_t>(way.tci)};
        out = std::copy(tag.begin(), tag.end(), out);
    }
    out = std::copy(head.begin() + addresses + (tagged_ ? ptrdiff_t{tag_size} : 0), head.end(), out);
    length_ = static_cast<size_t>(out - bytes_.begin());
}

} // namespace svio
