// SPDX-License-Identifier: GPL-2.0-or-later
/// Received messages and their offloads (SPEC.md chapter 6): a driver gets what it has accepted, and the rest
/// is done here.
#include "vif.hpp"

#include <algorithm>
#include <cstring>

namespace svio {

namespace {

constexpr uint64_t large_receive = SVIO_F_RX_SEG | SVIO_F_CSUM_RX | SVIO_F_RX_CHAIN;
/// Of a pair's scratch: a message with its tag, then a frame that was cut from it.
constexpr size_t scratch_message = vlan_tag_size + SVIO_MESSAGE_MAX;

} // namespace

void Vif::use_rx_offloads(uint64_t features) {
    rx_offloads_ = features;
    for (Pair &pair : pairs_)
        pair.receive.features =
            features_ok_ ? driver_features_ & (~uint64_t{SVIO_F_RX_OFFLOADS} | features) : 0;
}

ReceiveQueue::Result Vif::put_frame(const Message &message, Arrival &arrival, const FlowHash &hash,
                                    const Terms &terms) {
    Pair &pair = pairs_[arrival.pair];
    auto result =
        pair.receive.deliver(memory_, message, chains(), clock_, arrival.missing, terms.flags, hash);
    if (result != ReceiveQueue::Result::Delivered)
        return result;
    arrival.delivered++;
    pair.full_since = 0;
    counters.add(SVIO_STAT_RX_FRAMES);
    // As on the wire: with the tag.
    counters.add(SVIO_STAT_RX_BYTES,
                 message.size + (message.offload.has(SVIO_ENTRY_VLAN) ? vlan_tag_size : 0));
    if (terms.from_vif)
        counters.add(SVIO_STAT_SWITCHED_RX);
    if (message.head[0] & 1) {
        bool broadcast = std::all_of(message.head.begin(), message.head.begin() + 6,
                                     [](uint8_t byte) { return byte == 0xff; });
        counters.add(broadcast ? SVIO_STAT_RX_BROADCAST : SVIO_STAT_RX_MULTICAST);
    }
    return result;
}

// Of a message in one piece: from arrival.segment on, until there is no buffer.
ReceiveQueue::Result Vif::put_pieces(const Message &message, Arrival &arrival, const FlowHash &hash,
                                     const Terms &terms) {
    Pair &pair = pairs_[arrival.pair];
    const Offload &offload = message.offload;
    Segmenter cut(message.head, offload);
    if (!cut.valid()) // the tag that was put in may be one too many
        return ReceiveQueue::Result::Malformed;
    Offload rest{.flags = offload.flags & SVIO_ENTRY_VLAN, .vlan_tci = offload.vlan_tci};
    if (pair.receive.features & SVIO_F_CSUM_RX)
        rest.flags |= SVIO_ENTRY_CSUM_OK;
    uint8_t *to = pair.scratch.data() + scratch_message;
    auto result = ReceiveQueue::Result::Delivered;
    for (; arrival.segment < cut.count(); arrival.segment++) {
        cut.write(arrival.segment, to);
        Message piece({to, cut.length(arrival.segment)}, rest);
        result = put_frame(piece, arrival, hash, terms);
        if (result != ReceiveQueue::Result::Delivered)
            break;
    }
    return result;
}

namespace {

class Copy final : public Taker {
  public:
    explicit Copy(uint8_t *to) : to_(to) {}
    bool take(std::span<const uint8_t> piece) override {
        to_ = std::copy(piece.begin(), piece.end(), to_);
        return true;
    }

  private:
    uint8_t *to_;
};

bool in_one_piece(const Message &message) {
    return !message.memory && message.tail.empty();
}

} // namespace

// One that has to be looked at as a whole, or changed.
ReceiveQueue::Result Vif::put_changed(const Message &message, Arrival &arrival, const FlowHash &hash,
                                      const Terms &terms) {
    Pair &pair = pairs_[arrival.pair];
    uint64_t takes = pair.receive.features;
    if (pair.scratch.empty())
        pair.scratch.resize(2 * scratch_message);
    uint8_t *copy = pair.scratch.data() + vlan_tag_size;
    Copy copier(copy);
    if (!message.show(copier))
        return ReceiveQueue::Result::Broken;
    size_t size = message.size;
    Offload offload = message.offload;
    if (offload.has(SVIO_ENTRY_SEG) && !Segmenter({copy, size}, offload).valid())
        return ReceiveQueue::Result::Malformed;
    if ((takes & SVIO_F_VLAN_RX) && has_vlan({copy, size}, offload)) {
        remove_vlan({copy, size}, offload);
        copy += vlan_tag_size;
        size -= vlan_tag_size;
    } else if (offload.has(SVIO_ENTRY_VLAN) && !(takes & SVIO_F_VLAN_RX)) {
        insert_vlan(copy, offload);
        copy -= vlan_tag_size;
        size += vlan_tag_size;
    }
    if (offload.has(SVIO_ENTRY_CSUM) && !offload.has(SVIO_ENTRY_SEG) && !(takes & SVIO_F_CSUM_RX)) {
        insert_checksum({copy, size}, offload);
        offload.flags &= ~uint32_t{SVIO_ENTRY_CSUM_OK};
    }
    Message changed({copy, size}, offload);
    if (offload.has(SVIO_ENTRY_SEG) && ((takes & large_receive) != large_receive || arrival.segment != 0))
        return put_pieces(changed, arrival, hash, terms);
    auto result = put_frame(changed, arrival, hash, terms);
    // More buffers than a chain may have: the driver has small ones.
    if (result == ReceiveQueue::Result::TooLong && offload.has(SVIO_ENTRY_SEG))
        return put_pieces(changed, arrival, hash, terms);
    return result;
}

ReceiveQueue::Result Vif::put(const Message &message, Arrival &arrival, const FlowHash &hash,
                              const Terms &terms) {
    Pair &pair = pairs_[arrival.pair];
    if (!pair.receive.running())
        return ReceiveQueue::Result::Failed;
    uint64_t takes = pair.receive.features;
    if (message.offload.flags == 0 && !(takes & (SVIO_F_CSUM_RX | SVIO_F_VLAN_RX)))
        return put_frame(message, arrival, hash, terms);
    Message told = message;
    Offload &offload = told.offload;
    if (!(takes & SVIO_F_CSUM_RX))
        offload.flags &= ~uint32_t{SVIO_ENTRY_CSUM_OK};
    else if (!offload.has(SVIO_ENTRY_CSUM | SVIO_ENTRY_CSUM_OK) && in_one_piece(message) &&
             checksum_right(message.head)) // what another VIF has in its memory costs more to look at
        offload.flags |= SVIO_ENTRY_CSUM_OK;
    if (offload.has(SVIO_ENTRY_SEG) || (offload.has(SVIO_ENTRY_VLAN) && !(takes & SVIO_F_VLAN_RX)) ||
        ((takes & SVIO_F_VLAN_RX) && has_vlan(message.head, offload)) ||
        (offload.has(SVIO_ENTRY_CSUM) && !(takes & SVIO_F_CSUM_RX)))
        return put_changed(told, arrival, hash, terms);
    return put_frame(told, arrival, hash, terms);
}

} // namespace svio
