// SPDX-License-Identifier: GPL-2.0-or-later
/// Receive-side scaling: which queue pair a received frame goes to (SPEC.md chapter 5.7).
///
/// The hash is Toeplitz over the fields that Microsoft's "RSS hashing types" name, with its key as default.
/// Everything but hash() and pair_of() runs while the board is paused.
#pragma once

#include "svio_abi.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace svio {

using RssKey = std::array<uint8_t, SVIO_RSS_KEY_LEN>;

/// The Toeplitz hash of up to 36 bytes: as many as a key of 40 bytes is good for.
class Toeplitz {
  public:
    static constexpr size_t input_max = SVIO_RSS_KEY_LEN - 4;

    Toeplitz() = default;
    explicit Toeplitz(const RssKey &key) { set_key(key); }
    void set_key(const RssKey &key);
    uint32_t hash(std::span<const uint8_t> input) const {
        uint32_t value = 0;
        for (size_t i = 0; i < input.size(); i++)
            value ^= table_[2 * i][input[i] >> 4] ^ table_[2 * i + 1][input[i] & 0xf];
        return value;
    }

  private:
    /// By the place and value of four bits: small enough to stay in the first-level cache.
    std::array<std::array<uint32_t, 16>, 2 * input_max> table_{};
};

struct FlowHash {
    uint32_t value = 0;
    uint8_t type = SVIO_HASH_NONE;
};

/// What a state holds of it.
struct RssState {
    uint32_t pairs = 1;
    uint32_t types = SVIO_RSS_TYPES;
    RssKey key{};
    std::vector<uint8_t> table;

    template <typename Archive> void fields(Archive &archive) {
        archive(pairs);
        archive(types);
        archive(key);
        archive.list(table, SVIO_RSS_TABLE_MAX);
    }
};

class Rss {
  public:
    Rss() { reset(); }
    /// The defaults: one pair in use, all hash types, Microsoft's key.
    void reset();
    /// Pairs 0 to n - 1 are in use; the table is spread over them evenly.
    void use_pairs(unsigned n);
    void set_key(const RssKey &key);
    void set_types(uint32_t types) { types_ = types; }
    /// A power of two of entries, each below pairs().
    void set_table(std::span<const uint8_t> table);

    /// For migration. load() believes what check() has let through.
    RssState save() const;
    void load(const RssState &state);
    /// Throws StateError.
    static void check(const RssState &state, unsigned pairs_max);

    unsigned pairs() const { return pairs_; }
    uint32_t types() const { return types_; }
    const RssKey &key() const { return key_; }
    std::span<const uint8_t> table() const { return std::span(table_).first(mask_ + 1); }

    FlowHash hash(std::span<const uint8_t> frame) const;
    unsigned pair_of(const FlowHash &hash) const {
        return hash.type == SVIO_HASH_NONE ? 0 : table_[hash.value & mask_];
    }

  private:
    bool wants(unsigned type) const { return types_ & 1u << type; }
    FlowHash over(const uint8_t *addresses, size_t length, const uint8_t *ports, uint8_t type) const;
    FlowHash hash_ip4(std::span<const uint8_t> packet) const;
    FlowHash hash_ip6(std::span<const uint8_t> packet) const;

    RssKey key_{};
    Toeplitz toeplitz_;
    uint32_t types_ = 0;
    unsigned pairs_ = 1;
    uint32_t mask_ = 0;
    std::array<uint8_t, SVIO_RSS_TABLE_MAX> table_{};
};

} // namespace svio
