// SPDX-License-Identifier: GPL-2.0-or-later
/// The state of a board as bytes, for migration and snapshots (SPEC.md chapter 12): a header, sections of
/// (tag, version, flags, length), and a last one with a checksum. What comes in is trusted no more than a
/// guest.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace svio {

/// Says in one sentence why a state cannot be loaded. Nothing has been changed then.
class StateError : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

constexpr uint32_t state_tag(const char (&name)[5]) {
    return static_cast<uint32_t>(name[0]) | static_cast<uint32_t>(name[1]) << 8 |
           static_cast<uint32_t>(name[2]) << 16 | static_cast<uint32_t>(name[3]) << 24;
}

constexpr std::array<uint8_t, 8> state_magic = {'s', 'v', 'i', 'o', 's', 't', 'a', 't'};
constexpr uint32_t state_version = 1;       ///< of header, section heads and end; sections have their own
constexpr uint16_t section_mandatory = 0x1; ///< who does not know the section must refuse the state
constexpr uint32_t end_tag = state_tag("END ");
constexpr size_t state_header_size = 12;
constexpr size_t section_head_size = 12;
constexpr size_t state_size_max = size_t{512} << 20;

/// CRC-32 as in IEEE 802.3: finds what storage and transport do to a state, not what a person does.
uint32_t state_checksum(std::span<const uint8_t> bytes);

/// Collects little-endian fields.
class StateWriter {
  public:
    static constexpr bool loading = false;
    std::vector<uint8_t> bytes;

    template <std::integral T> void operator()(const T &value) {
        auto wide = static_cast<uint64_t>(value);
        for (size_t i = 0; i < sizeof(T); i++)
            bytes.push_back(static_cast<uint8_t>(wide >> (8 * i)));
    }
    template <typename T, size_t N> void operator()(const std::array<T, N> &values) {
        for (const T &value : values)
            (*this)(value);
    }
    /// A number of elements, then those.
    template <typename T> void list(const std::vector<T> &values, size_t /*max*/) {
        (*this)(static_cast<uint32_t>(values.size()));
        for (const T &value : values)
            (*this)(value);
    }
    // Not insert(): gcc 14 believes of its copy that it overflows (-Wstringop-overflow).
    void raw(std::span<const uint8_t> data) {
        std::copy(data.begin(), data.end(), std::back_inserter(bytes));
    }
};

/// Hands them out again; throws when there are too few.
class StateReader {
  public:
    static constexpr bool loading = true;
    explicit StateReader(std::span<const uint8_t> bytes) : bytes_(bytes) {}

    template <std::integral T> void operator()(T &value) {
        std::span<const uint8_t> from = raw(sizeof(T));
        uint64_t wide = 0;
        for (size_t i = 0; i < sizeof(T); i++)
            wide |= uint64_t{from[i]} << (8 * i);
        if constexpr (std::same_as<T, bool>) {
            if (wide > 1)
                throw StateError("a flag of the state is neither 0 nor 1");
        }
        value = static_cast<T>(wide);
    }
    template <typename T, size_t N> void operator()(std::array<T, N> &values) {
        for (T &value : values)
            (*this)(value);
    }
    template <typename T> void list(std::vector<T> &values, size_t max) {
        uint32_t count;
        (*this)(count);
        if (count > max)
            throw StateError("a list of the state has " + std::to_string(count) + " elements, of at most " +
                             std::to_string(max));
        values.resize(count);
        for (T &value : values)
            (*this)(value);
    }
    std::span<const uint8_t> raw(size_t length) {
        if (length > bytes_.size())
            throw StateError("the state is truncated");
        auto head = bytes_.first(length);
        bytes_ = bytes_.subspan(length);
        return head;
    }
    size_t left() const { return bytes_.size(); }

  private:
    std::span<const uint8_t> bytes_;
};

struct StateSection {
    uint32_t tag;
    uint16_t version;
    uint16_t flags;
    std::span<const uint8_t> payload;
};

/// Header, then sections, then finish().
class StateBuilder {
  public:
    StateBuilder();
    void add(uint32_t tag, uint16_t version, std::span<const uint8_t> payload,
             uint16_t flags = section_mandatory);
    std::vector<uint8_t> finish();

  private:
    StateWriter out_;
};

/// The sections of a state that is whole. Throws StateError.
std::vector<StateSection> parse_state(std::span<const uint8_t> bytes);

} // namespace svio
