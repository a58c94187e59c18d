// SPDX-License-Identifier: GPL-2.0-or-later
#include "attack.hpp"

#include "state.hpp"

namespace svio::fuzz {

Attack::Attack(const uint8_t *data, size_t size) : in_(data, size), machine_(Machine::of(in_.u8())) {
    uint8_t choice = in_.u8();
    // Mostly what the device offers, in part or whole; sometimes nothing at all.
    uint64_t offered = machine_.offered_features();
    uint64_t features = choice & 0x10 ? offered & in_.u16() : choice & 0x20 ? 0 : offered;
    machine_.begin(features, 4 + (choice & 3));
}

/// The others are the outside's: the wire, time, the cores' turns, migration.
static bool of_guest(Move move) {
    switch (move) {
    case Move::Offer:
    case Move::Work:
    case Move::Sleep:
    case Move::Time:
    case Move::Wire:
    case Move::Reload:
    case Move::Tamper:
        return false;
    default:
        return true;
    }
}

int Attack::play(std::span<const Move> moves) {
    for (unsigned n = 0; n < most_moves && !in_.empty(); n++)
        move(moves[in_.u8() % moves.size()]);
    machine_.work();
    machine_.end();
    return 0;
}

void Attack::move(Move move) {
    if (of_guest(move))
        pieces.add();
    switch (move) {
    case Move::SendEntry:
        return entry(machine_.tx, true);
    case Move::SendChain:
        return send_chain();
    case Move::SendGood:
        return send_good();
    case Move::SendOffload:
        return send_offload();
    case Move::ReceiveEntry:
        return entry(machine_.rx, false);
    case Move::ReceiveGood:
        return machine_.rx.post(1 + in_.below(8), 1 + in_.u8());
    case Move::Offer:
        return offer();
    case Move::EventWord: {
        Ring &at = ring();
        machine_.ram.set_word(at.event + 4 * in_.below(32), word(at));
        return;
    }
    case Move::RamWord:
        machine_.ram.set_word(FakeRam::base + (in_.u16() * 4u) % GuardedRam::size, word(ring()));
        return;
    case Move::Work:
        return machine_.work();
    case Move::Sleep:
        return machine_.sleep();
    case Move::Time:
        return machine_.clock.forward(uint64_t{in_.u16()} * 1000);
    case Move::Register:
        return access_register();
    case Move::Setup:
        return setup();
    case Move::Restart:
        return restart();
    case Move::Control:
        return control();
    case Move::Command:
        return command();
    case Move::RawCommand:
        return raw_command();
    case Move::Bell:
        return machine_.write(SVIO_BELL(in_.u8() & 7, in_.u8() & 1), in_.u8());
    case Move::Wire:
        return wire();
    case Move::Reload:
        return machine_.reload();
    case Move::Tamper:
        return tamper();
    }
}

// ---- values ----

uint64_t Attack::address(const Ring &ring) {
    switch (in_.below(10)) {
    case 0:
        return in_.u64();
    case 1:
        return FakeRam::base + GuardedRam::size - in_.u16();
    case 2:
        return FakeRam::base - in_.below(64);
    case 3:
        return ring.entry_at(in_.u8());
    case 4:
        return ring.event + in_.u8();
    case 5:
        return FakeRam::base + in_.u32() % GuardedRam::size;
    case 6:
        return UINT64_MAX - in_.u16();
    default:
        return ring.buffer_at(in_.u8());
    }
}

uint32_t Attack::length() {
    switch (in_.below(8)) {
    case 0:
        return in_.u32();
    case 1:
        return in_.below(16);
    case 2:
        return SVIO_MESSAGE_MAX - 8 + in_.below(16);
    case 3:
        return in_.u16();
    default:
        return 14 + in_.u8();
    }
}

uint32_t Attack::word(const Ring &ring) {
    switch (in_.below(4)) {
    case 0:
        return in_.u32();
    case 1:
        return ring.next - in_.u8();
    default:
        return ring.next + in_.u8();
    }
}

// ---- queues ----

void Attack::entry(Ring &ring, bool is_send) {
    uint8_t how = in_.u8();
    uint32_t at = how & 1 ? ring.next : in_.u8();
    svio_entry entry{};
    entry.addr = address(ring);
    entry.len = length();
    if (how & 2) {
        entry.csum_start = in_.u16();
        entry.csum_offset = in_.u16();
        entry.seg_size = in_.u16();
        entry.seg_header = in_.u16();
        entry.vlan_tci = in_.u16();
        entry.seg_type = in_.u8();
        entry.hash_type = in_.u8();
    }
    uint32_t flags = how & 4 ? in_.u32() : in_.u8() & (how & 2 ? 0xff : 1);
    if (!(how & 8)) {
        // The right ownership for the place.
        uint32_t lap = svio_lap(at, ring.size);
        flags &= ~(SVIO_ENTRY_POSTED | SVIO_ENTRY_DONE);
        flags |= lap ? SVIO_ENTRY_POSTED : is_send ? 0 : SVIO_ENTRY_DONE;
    }
    machine_.ram.put(ring.entry_at(at), &entry, offsetof(svio_entry, flags));
    ring.set_flags(at, flags);
    if (at == ring.next)
        ring.next++;
}

void Attack::send_chain() {
    SendRing &ring = machine_.tx;
    uint32_t count = 1 + in_.below(40), head = ring.next;
    uint8_t how = in_.u8();
    uint32_t first = 0;
    for (uint32_t n = 0; n < count; n++) {
        // Longer than its slot, so that buffers share memory: allowed.
        ring.fill(ring.next, ring.buffer_at(ring.next), how & 1 ? 1 + in_.u16() % 8192u : 1 + in_.u8());
        uint32_t flags = ring.lap_flag(ring.next, SVIO_ENTRY_POSTED) | (n + 1 < count ? SVIO_ENTRY_MORE : 0);
        if (n == 0)
            first = flags;
        else
            ring.set_flags(ring.next, flags);
        ring.next++;
    }
    if (how & 2)
        ring.next -= in_.below(4);
    ring.set_flags(head, first);
}

void Attack::send_good() {
    uint32_t size = 14 + in_.u8() % 200u;
    uint8_t pieces = in_.u8();
    Frame frame = make_frame(size, ++sequence_, peer_mac, vif_mac);
    if (pieces & 1)
        machine_.tx.post(frame, {1 + pieces / 2u % 13});
    else
        machine_.tx.post(frame);
}

void Attack::send_offload() {
    uint8_t kind = in_.u8(), what = in_.u8();
    Packet packet{.ip6 = (kind & 1) != 0,
                  .udp = (kind & 2) != 0,
                  .vlan = std::vector<unsigned>(kind >> 2 & 3, 0x8007),
                  .options4 = (kind >> 4 & 3) * 4u,
                  .extension6 = (kind >> 4 & 3) * 8u,
                  .options_tcp = (kind >> 6) * 4u,
                  .tcp_flags = in_.u8(),
                  .payload = in_.u8() % 100u};
    Frame frame = packet.make(++sequence_ & 0xffff);
    Offload offload = what & 1 ? packet.seg(1 + in_.u8() % 40u) : packet.csum();
    if (what & 2) {
        offload.flags |= SVIO_ENTRY_VLAN;
        offload.vlan_tci = in_.u16();
    }
    if (what & 4)
        offload.flags |= SVIO_ENTRY_LOOP;
    // Something that is not right, in the headers or in the fields.
    if (what & 8)
        frame[in_.u8() % frame.size()] ^= in_.u8();
    uint16_t *const fields[] = {&offload.csum_start, &offload.csum_offset, &offload.seg_size,
                                &offload.seg_header};
    if (what & 16)
        *fields[in_.u8() & 3] = what & 32 ? in_.u16() : in_.u8();
    if (what & 64)
        offload.seg_type = in_.u8() & 7;
    uint32_t split = 1 + in_.u8() % static_cast<uint32_t>(frame.size());
    machine_.tx.post(frame, {split}, offload);
}

void Attack::offer() {
    static constexpr Mac targets[] = {vif_mac, broadcast_mac, {0x33, 0x33, 0, 0, 0, 1}, peer_mac};
    uint8_t to = in_.u8();
    size_t size = to & 0x80 ? in_.u16() * 2u : in_.u8() * 2u;
    machine_.offer(make_frame(size, ++sequence_, targets[to & 0x40 ? to & 3 : 0]));
}

// ---- registers ----

void Attack::access_register() {
    uint8_t how = in_.u8();
    uint32_t offset = in_.u8() * 4u;
    switch (how >> 4 & 3) {
    case 1:
        offset = in_.u16();
        break;
    case 2:
        offset = SVIO_REG_QUEUES + offset;
        break;
    case 3:
        offset = (SVIO_REG_BELLS + offset * 0x80) & 0xffff;
        break;
    default:
        break;
    }
    uint64_t value = how & 0x40 ? in_.u64() : in_.u8();
    unsigned size = how & 0x08 ? 1u << (how & 3) : 4;
    machine_.access(offset, size, value, how & 0x80);
}

void Attack::setup() {
    static constexpr uint32_t regs[] = {SVIO_QUEUE_BASE_LO,  SVIO_QUEUE_BASE_HI,   SVIO_QUEUE_EVENT_LO,
                                        SVIO_QUEUE_EVENT_HI, SVIO_QUEUE_SIZE,      SVIO_QUEUE_VECTOR,
                                        SVIO_QUEUE_CONTROL,  SVIO_QUEUE_MODERATION};
    uint8_t how = in_.u8();
    unsigned direction = how & 1;
    uint32_t reg = regs[how >> 1 & 7], value = in_.u16();
    uint64_t where = how & 0x80 ? address(machine_.tx) : address(machine_.rx) & ~uint64_t{63};
    if (reg == SVIO_QUEUE_BASE_LO || reg == SVIO_QUEUE_EVENT_LO)
        value = static_cast<uint32_t>(where);
    else if (reg == SVIO_QUEUE_BASE_HI || reg == SVIO_QUEUE_EVENT_HI)
        value = static_cast<uint32_t>(where >> 32);
    else if (reg == SVIO_QUEUE_SIZE && !(how & 0x40))
        value = 16u << (value & 15);
    else if (reg == SVIO_QUEUE_MODERATION)
        value |= uint32_t{in_.u8()} << 16;
    machine_.set_queue(direction, reg, value);
}

void Attack::restart() {
    unsigned direction = in_.u8() & 1;
    Ring &ring = direction == SVIO_SEND ? static_cast<Ring &>(machine_.tx) : machine_.rx;
    machine_.set_queue(direction, SVIO_QUEUE_CONTROL, 0);
    MUST_EQ(machine_.read(SVIO_QUEUE_REG(0, direction, SVIO_QUEUE_STATE)), SVIO_QUEUE_DISABLED);
    for (uint32_t i = 0; i < ring.size; i++)
        ring.set_flags(i, 0);
    ring.next = ring.clean = 0;
    machine_.enable(direction, ring, in_.below(10));
}

void Attack::control() {
    uint8_t value = in_.u8();
    if (value & 0x80)
        machine_.write(SVIO_REG_DRIVER_FEATURES_LO, in_.u16());
    machine_.write(SVIO_REG_CONTROL, value & 7);
    // Nothing but FEATURES_OK lets it run.
    uint32_t status = machine_.read(SVIO_REG_STATUS);
    MUST(!(status & SVIO_STATUS_RUNNING) || (status & SVIO_STATUS_FEATURES_OK));
}

// ---- commands ----

void Attack::command() {
    static constexpr uint16_t opcodes[] = {
        SVIO_OP_NOP,         SVIO_OP_IDENTIFY,    SVIO_OP_SET_MAC,     SVIO_OP_RX_MODE, SVIO_OP_MULTICAST,
        SVIO_OP_VLAN_FILTER, SVIO_OP_STATS,       SVIO_OP_QOS_REQUEST, SVIO_OP_RSS,     SVIO_OP_SET_MTU,
        SVIO_OP_QUEUE_PAIRS, SVIO_OP_VIF_DESTROY, SVIO_OP_TEST_SIGNAL};
    svio_command command{};
    command.opcode = opcodes[in_.below(std::size(opcodes))];
    uint8_t how = in_.u8();
    command.tag = in_.u8();
    command.slot = how & 0x40 ? in_.u32() : SVIO_SLOT_SELF;
    command.data_len = how & 0x20 ? in_.u32() : in_.u16() % 1024u;
    command.data_addr = how & 0x10 ? address(machine_.tx) : machine_.rx.buffers;
    for (size_t n = in_.u8() % 41u, i = 0; i < n; i++)
        command.u.raw[i] = in_.u8();
    machine_.command(command);
}

void Attack::raw_command() {
    svio_command command{};
    for (size_t i = 0; i < sizeof(command); i++)
        reinterpret_cast<uint8_t *>(&command)[i] = in_.u8();
    machine_.command(command);
}

void Attack::wire() {
    uint8_t how = in_.u8();
    switch (how & 7) {
    case 0:
        machine_.port().room = how >> 3;
        break;
    case 1:
        machine_.port().failing = how >> 3;
        break;
    case 2:
        machine_.port().frame_limit = 64u + how;
        break;
    case 3:
        machine_.set_link(how & 8);
        break;
    case 4:
        machine_.set_dma(how & 8);
        break;
    default:
        machine_.port().unblock(how & 8 ? SIZE_MAX : how >> 4);
        break;
    }
}

// ---- states ----

void Attack::tamper() {
    std::vector<uint8_t> whole = machine_.save();
    std::vector<StateSection> sections = parse_state(whole);
    uint8_t how = in_.u8();
    size_t chosen = in_.u8() % sections.size();
    std::vector<uint8_t> payload(sections[chosen].payload.begin(), sections[chosen].payload.end());
    for (unsigned n = 1 + how % 4u; n > 0 && !payload.empty(); n--) {
        uint8_t at = in_.u8(), value = in_.u8();
        payload[at % payload.size()] = value;
    }
    if (how & 4)
        payload.resize(in_.u8() * (how & 8 ? 300u : 1u), in_.u8());
    sections[chosen].payload = payload;
    // With the right checksum, or it would end there.
    StateBuilder out;
    for (size_t n = 0; n < sections.size(); n++) {
        const StateSection &section = sections[n];
        if (section.tag == end_tag || ((how & 0x10) && n == chosen))
            continue;
        uint16_t version = n == chosen && (how & 0x20) ? in_.u16() : section.version;
        for (unsigned copies = n == chosen && (how & 0x40) ? 2 : 1; copies > 0; copies--)
            out.add(section.tag, version, section.payload, section.flags);
    }
    std::vector<uint8_t> changed = out.finish();
    if (how & 0x80) {
        changed[in_.u16() % changed.size()] ^= in_.u8();
        changed.resize(changed.size() - in_.u8() % 16u);
    }
    machine_.load(changed);
}

} // namespace svio::fuzz
