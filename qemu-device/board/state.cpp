// SPDX-License-Identifier: GPL-2.0-or-later
#include "state.hpp"

namespace svio {

namespace {

constexpr std::array<uint32_t, 256> crc_table = [] {
    std::array<uint32_t, 256> table{};
    for (uint32_t n = 0; n < table.size(); n++) {
        uint32_t value = n;
        for (int bit = 0; bit < 8; bit++)
            value = value & 1 ? 0xedb88320 ^ value >> 1 : value >> 1;
        table[n] = value;
    }
    return table;
}();

} // namespace

uint32_t state_checksum(std::span<const uint8_t> bytes) {
    uint32_t crc = ~uint32_t{0};
    for (uint8_t byte : bytes)
        crc = crc_table[(crc ^ byte) & 0xff] ^ crc >> 8;
    return ~crc;
}

StateBuilder::StateBuilder() {
    out_(state_magic);
    out_(state_version);
}

void StateBuilder::add(uint32_t tag, uint16_t version, std::span<const uint8_t> payload, uint16_t flags) {
    out_(tag);
    out_(version);
    out_(flags);
    out_(static_cast<uint32_t>(payload.size()));
    out_.raw(payload);
}

std::vector<uint8_t> StateBuilder::finish() {
    uint32_t sum = state_checksum(out_.bytes);
    StateWriter payload;
    payload(sum);
    add(end_tag, 1, payload.bytes);
    return std::move(out_.bytes);
}

std::vector<StateSection> parse_state(std::span<const uint8_t> bytes) {
    StateReader in(bytes);
    std::array<uint8_t, state_magic.size()> magic;
    uint32_t version;
    in(magic);
    if (magic != state_magic)
        throw StateError("this is not the state of an svio device");
    in(version);
    if (version != state_version)
        throw StateError("the state has format " + std::to_string(version) + ", and this device knows " +
                         std::to_string(state_version));
    std::vector<StateSection> sections;
    for (;;) {
        size_t begin = bytes.size() - in.left();
        StateSection section;
        uint32_t length;
        in(section.tag);
        in(section.version);
        in(section.flags);
        in(length);
        section.payload = in.raw(length);
        if (section.tag != end_tag) {
            sections.push_back(section);
            continue;
        }
        // The one part that the checksum does not cover.
        if (section.version != 1 || section.flags != section_mandatory)
            throw StateError("the end of the state is corrupt");
        StateReader end(section.payload);
        uint32_t sum;
        end(sum);
        if (end.left() || in.left())
            throw StateError("the state goes on after its end");
        if (sum != state_checksum(bytes.first(begin)))
            throw StateError("the state is corrupt: its checksum is wrong");
        return sections;
    }
}

} // namespace svio
