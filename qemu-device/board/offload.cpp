// SPDX-License-Identifier: GPL-2.0-or-later
#include "offload.hpp"

#include <algorithm>
#include <cstring>

namespace svio {

namespace {

/// struct virtio_net_hdr_mrg_rxbuf: <linux/virtio_net.h> is no C++. Little endian, as is the host.
struct VnetHeader {
    uint8_t flags;
    uint8_t gso_type;
    uint16_t hdr_len;
    uint16_t gso_size;
    uint16_t csum_start;
    uint16_t csum_offset;
    uint16_t buffers;
};
static_assert(sizeof(VnetHeader) == vnet_header_size);
constexpr uint8_t vnet_needs_csum = 1, vnet_data_valid = 2;
constexpr uint8_t vnet_gso_tcp4 = 1, vnet_gso_tcp6 = 4, vnet_gso_udp_l4 = 5, vnet_gso_ecn = 0x80;

constexpr uint8_t tcp_cwr = 0x80, tcp_psh = 0x08, tcp_fin = 0x01;
constexpr uint8_t protocol_tcp = 6, protocol_udp = 17;
constexpr size_t macs_size = 12, ip4_size = 20, ip6_size = 40, tcp_size = 20, udp_size = 8;

uint16_t get16(const uint8_t *at) {
    return static_cast<uint16_t>(at[0] << 8 | at[1]);
}
uint32_t get32(const uint8_t *at) {
    return uint32_t{get16(at)} << 16 | get16(at + 2);
}
void put16(uint8_t *at, size_t value) {
    at[0] = static_cast<uint8_t>(value >> 8);
    at[1] = static_cast<uint8_t>(value);
}
void put32(uint8_t *at, uint32_t value) {
    put16(at, value >> 16);
    put16(at + 2, value & 0xffff);
}
uint16_t as_in_memory(size_t value) {
    return static_cast<uint16_t>((value >> 8 & 0xff) | (value & 0xff) << 8);
}

struct Network {
    size_t at = 0; ///< where the packet begins
    uint16_t type = 0;
};

/// Past up to two VLAN tags.
Network find_network(std::span<const uint8_t> frame) {
    size_t at = macs_size;
    for (unsigned tags = 0; at + 2 <= frame.size(); tags++, at += vlan_tag_size) {
        uint16_t type = get16(&frame[at]);
        if ((type != 0x8100 && type != 0x88a8) || tags == 2)
            return {at + 2, type};
    }
    return {};
}

void store_checksum(uint8_t *at, uint16_t sum) {
    auto checksum = static_cast<uint16_t>(~sum);
    // The same in one's complement, and in UDP a zero says that there is none.
    if (checksum == 0)
        checksum = 0xffff;
    std::memcpy(at, &checksum, sizeof(checksum));
}

} // namespace

// ---- fields ----

uint64_t offload_needs(const Offload &offload) {
    uint64_t needs = 0;
    if (offload.has(SVIO_ENTRY_CSUM))
        needs |= SVIO_F_CSUM_TX;
    if (offload.has(SVIO_ENTRY_VLAN))
        needs |= SVIO_F_VLAN_TX;
    if (offload.has(SVIO_ENTRY_SEG)) {
        switch (offload.seg_type) {
        case SVIO_SEG_TCP4:
            needs |= SVIO_F_SEG_TCP4;
            break;
        case SVIO_SEG_TCP6:
            needs |= SVIO_F_SEG_TCP6;
            break;
        case SVIO_SEG_UDP:
            needs |= SVIO_F_SEG_UDP;
            break;
        default:
            break; // which offload_fits() finds
        }
    }
    return needs;
}

bool offload_fits(const Offload &offload, size_t length) {
    if (offload.has(SVIO_ENTRY_CSUM) && size_t{offload.csum_start} + offload.csum_offset + 2 > length)
        return false;
    // A tag that is put in moves the others on.
    if (offload.has(SVIO_ENTRY_VLAN) &&
        (length < macs_size || std::max(offload.csum_start, offload.seg_header) > 0xffff - vlan_tag_size))
        return false;
    if (!offload.has(SVIO_ENTRY_SEG))
        return true;
    return offload.has(SVIO_ENTRY_CSUM) && offload.seg_type >= SVIO_SEG_TCP4 &&
           offload.seg_type <= SVIO_SEG_UDP && offload.seg_size != 0 && offload.seg_header < length &&
           size_t{offload.csum_start} + offload.csum_offset + 2 <= offload.seg_header &&
           frames_of(offload, length) <= SVIO_SEGMENTS_MAX;
}

uint32_t frames_of(const Offload &offload, size_t length) {
    if (!offload.has(SVIO_ENTRY_SEG))
        return 1;
    return static_cast<uint32_t>((length - offload.seg_header + offload.seg_size - 1) / offload.seg_size);
}

size_t bytes_of(const Offload &offload, size_t length) {
    return length + size_t{frames_of(offload, length) - 1} * offload.seg_header;
}

// ---- checksums ----

uint16_t ones_sum(std::span<const uint8_t> bytes, uint64_t sum) {
    const uint8_t *at = bytes.data();
    size_t left = bytes.size();
    // Words of 32 bits in a sum of 64: no carry is lost below 16 GiB, and compilers make vectors of it. As
    // 2^16 is 1 modulo 2^16 - 1, their halves may be added in the end.
    uint64_t even = 0;
    for (; left >= 16; left -= 16, at += 16) {
        uint32_t words[4];
        std::memcpy(words, at, sizeof(words));
        even += uint64_t{words[0]} + words[1];
        sum += uint64_t{words[2]} + words[3];
    }
    for (; left >= 2; left -= 2, at += 2) {
        uint16_t word;
        std::memcpy(&word, at, sizeof(word));
        sum += word;
    }
    if (left != 0)
        sum += *at; // as if a zero followed
    for (sum = (sum & 0xffffffff) + (sum >> 32) + (even & 0xffffffff) + (even >> 32); sum >> 16;)
        sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<uint16_t>(sum);
}

void insert_checksum(std::span<uint8_t> message, Offload &offload) {
    store_checksum(&message[size_t{offload.csum_start} + offload.csum_offset],
                   ones_sum(message.subspan(offload.csum_start)));
    offload.flags = (offload.flags & ~uint32_t{SVIO_ENTRY_CSUM}) | SVIO_ENTRY_CSUM_OK;
}

bool checksum_right(std::span<const uint8_t> frame) {
    Network network = find_network(frame);
    std::span<const uint8_t> packet = frame.subspan(network.at);
    size_t header, length, addresses;
    uint8_t protocol;
    if (network.type == 0x0800 && packet.size() >= ip4_size && packet[0] >> 4 == 4) {
        header = size_t{packet[0]} % 16 * 4;
        length = get16(&packet[2]);
        addresses = 12;
        protocol = packet[9];
        if (header < ip4_size || (get16(&packet[6]) & 0x3fff) != 0) // a fragment
            return false;
    } else if (network.type == 0x86dd && packet.size() >= ip6_size && packet[0] >> 4 == 6) {
        header = ip6_size;
        length = ip6_size + get16(&packet[4]);
        addresses = 8;
        protocol = packet[6];
    } else {
        return false;
    }
    if (length > packet.size() || length < header)
        return false;
    std::span<const uint8_t> transport = packet.subspan(header, length - header);
    if (protocol == protocol_tcp ? transport.size() < tcp_size
                                 : protocol != protocol_udp || transport.size() < udp_size)
        return false;
    if (protocol == protocol_udp && (get16(&transport[6]) == 0 || get16(&transport[4]) != transport.size()))
        return false; // none, or not over all of it
    uint64_t pseudo = ones_sum(packet.subspan(addresses, header == ip6_size && addresses == 8 ? 32 : 8));
    pseudo += as_in_memory(transport.size()) + as_in_memory(protocol);
    return ones_sum(transport, pseudo) == 0xffff;
}

// ---- VLAN tags ----

namespace {

/// Offsets from the beginning of a message that has grown or shrunk before them.
void shift(Offload &offload, int by) {
    offload.csum_start = static_cast<uint16_t>(offload.csum_start + by);
    offload.seg_header = static_cast<uint16_t>(offload.seg_header + by);
}

} // namespace

void insert_vlan(uint8_t *message, Offload &offload) {
    std::memmove(message - vlan_tag_size, message, macs_size);
    put16(message + macs_size - vlan_tag_size, 0x8100);
    put16(message + macs_size - vlan_tag_size + 2, offload.vlan_tci);
    offload.flags &= ~uint32_t{SVIO_ENTRY_VLAN};
    shift(offload, vlan_tag_size);
}

bool has_vlan(std::span<const uint8_t> frame, const Offload &offload) {
    return frame.size() >= macs_size + vlan_tag_size + 2 && get16(&frame[macs_size]) == 0x8100 &&
           !offload.has(SVIO_ENTRY_VLAN) &&
           (!offload.has(SVIO_ENTRY_CSUM) || offload.csum_start >= macs_size + vlan_tag_size);
}

void remove_vlan(std::span<uint8_t> frame, Offload &offload) {
    offload.vlan_tci = get16(&frame[macs_size + 2]);
    offload.flags |= SVIO_ENTRY_VLAN;
    std::memmove(&frame[vlan_tag_size], frame.data(), macs_size);
    shift(offload, -static_cast<int>(vlan_tag_size));
}

// ---- segmentation ----

Segmenter::Segmenter(std::span<const uint8_t> message, const Offload &offload)
    : message_(message), offload_(offload), valid_(parse()) {}

bool Segmenter::parse() {
    Network network = find_network(message_.first(offload_.seg_header));
    ip_ = network.at;
    ip6_ = network.type == 0x86dd;
    size_t transport = offload_.csum_start, fixed = ip6_ ? ip6_size : ip4_size;
    bool tcp = offload_.seg_type != SVIO_SEG_UDP;
    if (ip_ == 0 || (!ip6_ && network.type != 0x0800) || transport < ip_ + fixed ||
        transport + (tcp ? tcp_size : udp_size) > offload_.seg_header ||
        offload_.csum_offset != (tcp ? 16 : 6) || (tcp && ip6_ != (offload_.seg_type == SVIO_SEG_TCP6)) ||
        std::min<size_t>(offload_.seg_size, message_.size()) + offload_.seg_header - ip_ > 0xffff)
        return false;
    const uint8_t *ip = &message_[ip_], *l4 = &message_[transport];
    uint8_t protocol = tcp ? protocol_tcp : protocol_udp;
    if (ip6_) {
        // Whatever is between the headers comes along.
        if (ip[0] >> 4 != 6 || (transport == ip_ + ip6_size && ip[6] != protocol))
            return false;
    } else if (ip[0] >> 4 != 4 || ip_ + size_t{ip[0]} % 16 * 4 != transport || ip[9] != protocol ||
               (get16(ip + 6) & 0x3fff) != 0) {
        return false;
    }
    size_t size = tcp ? size_t{l4[12]} / 16 * 4 : udp_size;
    return size >= (tcp ? tcp_size : udp_size) && transport + size == offload_.seg_header;
}

std::span<const uint8_t> Segmenter::payload(uint32_t n) const {
    std::span<const uint8_t> all = message_.subspan(offload_.seg_header);
    size_t from = size_t{n} * offload_.seg_size;
    return all.subspan(from, std::min<size_t>(offload_.seg_size, all.size() - from));
}

void Segmenter::mend_ip(uint32_t n, uint8_t *frame, size_t size) const {
    uint8_t *ip = frame + ip_;
    if (ip6_) {
        put16(ip + 4, size - ip_ - ip6_size);
        return;
    }
    put16(ip + 2, size - ip_);
    put16(ip + 4, get16(ip + 4) + n);
    put16(ip + 10, 0);
    auto checksum = static_cast<uint16_t>(~ones_sum({ip, offload_.csum_start - ip_}));
    std::memcpy(ip + 10, &checksum, sizeof(checksum));
}

void Segmenter::mend_tcp(uint32_t n, uint8_t *tcp) const {
    put32(tcp + 4, get32(tcp + 4) + n * offload_.seg_size);
    if (n != 0)
        tcp[13] &= static_cast<uint8_t>(~tcp_cwr);
    if (n + 1 != count())
        tcp[13] &= static_cast<uint8_t>(~(tcp_psh | tcp_fin));
}

void Segmenter::write(uint32_t n, uint8_t *to) const {
    std::span<const uint8_t> data = payload(n);
    std::memcpy(to, message_.data(), offload_.seg_header);
    std::memcpy(to + offload_.seg_header, data.data(), data.size());
    size_t size = offload_.seg_header + data.size();
    mend_ip(n, to, size);
    uint8_t *transport = to + offload_.csum_start;
    if (offload_.seg_type == SVIO_SEG_UDP)
        put16(transport + 4, size - offload_.csum_start);
    else
        mend_tcp(n, transport);
    // The pseudo header's sum is in the field, with the length of the whole: take that out (in one's
    // complement, by adding what is left of it), and put this one's in.
    size_t whole = message_.size() - offload_.csum_start, own = size - offload_.csum_start;
    uint64_t sum = uint64_t{static_cast<uint16_t>(~as_in_memory(whole & 0xffff))} +
                   static_cast<uint16_t>(~as_in_memory(whole >> 16)) + as_in_memory(own & 0xffff) +
                   as_in_memory(own >> 16);
    store_checksum(transport + offload_.csum_offset, ones_sum({transport, own}, sum));
}

// ---- virtio_net_hdr ----

void write_vnet_header(std::span<const uint8_t> message, const Offload &offload, uint8_t *to) {
    VnetHeader out{};
    if (offload.has(SVIO_ENTRY_CSUM)) {
        out.flags = vnet_needs_csum;
        out.csum_start = offload.csum_start;
        out.csum_offset = offload.csum_offset;
    }
    if (offload.has(SVIO_ENTRY_SEG)) {
        out.hdr_len = offload.seg_header;
        out.gso_size = offload.seg_size;
        if (offload.seg_type == SVIO_SEG_UDP)
            out.gso_type = vnet_gso_udp_l4;
        else
            out.gso_type = offload.seg_type == SVIO_SEG_TCP4 ? vnet_gso_tcp4 : vnet_gso_tcp6;
        if (offload.seg_type != SVIO_SEG_UDP && (message[size_t{offload.csum_start} + 13] & tcp_cwr))
            out.gso_type |= vnet_gso_ecn;
    }
    std::memcpy(to, &out, sizeof(out));
}

bool read_vnet_header(const uint8_t *header, std::span<const uint8_t> message, Offload &offload) {
    VnetHeader in;
    std::memcpy(&in, header, sizeof(in));
    offload = {};
    if (in.flags & vnet_needs_csum) {
        offload.flags = SVIO_ENTRY_CSUM;
        offload.csum_start = in.csum_start;
        offload.csum_offset = in.csum_offset;
    } else if (in.flags & vnet_data_valid) {
        offload.flags = SVIO_ENTRY_CSUM_OK;
    }
    if (in.gso_type != 0) {
        offload.flags |= SVIO_ENTRY_SEG;
        offload.seg_size = in.gso_size;
        // hdr_len is no more than a hint.
        size_t transport = offload.csum_start;
        switch (in.gso_type & ~vnet_gso_ecn) {
        case vnet_gso_tcp4:
            offload.seg_type = SVIO_SEG_TCP4;
            break;
        case vnet_gso_tcp6:
            offload.seg_type = SVIO_SEG_TCP6;
            break;
        case vnet_gso_udp_l4:
            offload.seg_type = SVIO_SEG_UDP;
            break;
        default:
            return false;
        }
        if (transport + tcp_size > message.size())
            return false;
        size_t size = offload.seg_type == SVIO_SEG_UDP ? udp_size : size_t{message[transport + 12]} / 16 * 4;
        if (transport + size > 0xffff)
            return false;
        offload.seg_header = static_cast<uint16_t>(transport + size);
    }
    return offload_fits(offload, message.size()) &&
           (!offload.has(SVIO_ENTRY_SEG) || Segmenter(message, offload).valid());
}

} // namespace svio
