// SPDX-License-Identifier: GPL-2.0-or-later
/// Offloads (SPEC.md chapter 6): what a message says is still to be done to it, and doing it in software for
/// those that cannot.
#pragma once

#include "svio_abi.h"

#include <cstddef>
#include <cstdint>
#include <span>

namespace svio {

/// The offload fields of a message. They travel with it, from its send queue to whoever resolves them.
struct Offload {
    uint32_t flags = 0; ///< SVIO_ENTRY_CSUM, _CSUM_OK, _SEG, _VLAN: which of the others hold
    uint16_t csum_start = 0;
    uint16_t csum_offset = 0;
    uint16_t seg_size = 0;
    uint16_t seg_header = 0;
    uint16_t vlan_tci = 0;
    uint8_t seg_type = SVIO_SEG_NONE;

    bool has(uint32_t flag) const { return flags & flag; }
    bool operator==(const Offload &) const = default;
    template <typename Archive> void fields(Archive &archive) {
        archive(flags);
        archive(csum_start);
        archive(csum_offset);
        archive(seg_size);
        archive(seg_header);
        archive(vlan_tci);
        archive(seg_type);
    }
};

constexpr uint32_t vlan_tag_size = 4;

/// The fields of a message whose head has `now` bytes, and had `before`.
inline Offload moved(Offload offload, size_t now, size_t before) {
    offload.csum_start = static_cast<uint16_t>(offload.csum_start + now - before);
    offload.seg_header = static_cast<uint16_t>(offload.seg_header + now - before);
    return offload;
}

/// The features that a guest must have accepted to send with these fields.
uint64_t offload_needs(const Offload &offload);
/// Do the fields lie inside of a message of this length? What the message holds is not looked at.
bool offload_fits(const Offload &offload, size_t length);
/// The frames and bytes that a message is on the wire.
uint32_t frames_of(const Offload &offload, size_t length);
size_t bytes_of(const Offload &offload, size_t length);

/// One's complement sum of 16-bit words as they lie in memory, folded.
uint16_t ones_sum(std::span<const uint8_t> bytes, uint64_t sum = 0);

/// Stores the checksum that `offload` asks for, which must fit, and notes that it is right now.
void insert_checksum(std::span<uint8_t> message, Offload &offload);

/// Is it a packet of TCP or UDP, whole, with a checksum, and a right one?
bool checksum_right(std::span<const uint8_t> frame);

/// Puts the tag of `offload` into a message, whose first byte comes to lie 4 bytes before `message`.
void insert_vlan(uint8_t *message, Offload &offload);
/// Has the frame a tag of 802.1Q that remove_vlan() can take out?
bool has_vlan(std::span<const uint8_t> frame, const Offload &offload);
/// Notes the tag in `offload`. The frame is then `frame` without its first 4 bytes.
void remove_vlan(std::span<uint8_t> frame, Offload &offload);

/// Cuts a message with SVIO_ENTRY_SEG, whose fields fit, into the frames that it stands for. Each is made
/// from the message alone, so that whoever sends them can stop after any.
class Segmenter {
  public:
    Segmenter(std::span<const uint8_t> message, const Offload &offload);
    /// Are the headers what the fields say they are? Else nothing can be made of it.
    bool valid() const { return valid_; }
    uint32_t count() const { return frames_of(offload_, message_.size()); }
    size_t length(uint32_t n) const { return offload_.seg_header + payload(n).size(); }
    /// Writes frame n, all its checksums right.
    void write(uint32_t n, uint8_t *to) const;

  private:
    std::span<const uint8_t> payload(uint32_t n) const;
    bool parse();
    void mend_ip(uint32_t n, uint8_t *frame, size_t size) const;
    void mend_tcp(uint32_t n, uint8_t *tcp) const;

    std::span<const uint8_t> message_;
    const Offload &offload_;
    size_t ip_ = 0;
    bool ip6_ = false;
    bool valid_;
};

/// struct virtio_net_hdr_mrg_rxbuf, which frames begin with where a port carries offloads.
constexpr size_t vnet_header_size = 12;
void write_vnet_header(std::span<const uint8_t> message, const Offload &offload, uint8_t *to);
/// The fields of a message that came with such a header. False: there is no sense in it.
bool read_vnet_header(const uint8_t *header, std::span<const uint8_t> message, Offload &offload);

} // namespace svio
