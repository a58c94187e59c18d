// SPDX-License-Identifier: GPL-2.0-or-later
/// The bytes of one fuzzing input, read as decisions; zeroes when they are used up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace svio::fuzz {

class Input {
  public:
    Input(const uint8_t *data, size_t size) : at_(data), end_(data + size) {}
    bool empty() const { return at_ == end_; }
    uint8_t u8() { return empty() ? 0 : *at_++; }
    uint16_t u16() { return static_cast<uint16_t>(u8() | u8() << 8); }
    uint32_t u32() { return u16() | uint32_t{u16()} << 16; }
    uint64_t u64() { return u32() | uint64_t{u32()} << 32; }
    /// 0..n-1, from one byte.
    uint32_t below(uint32_t n) { return u8() % n; }

  private:
    const uint8_t *at_;
    const uint8_t *end_;
};

/// What a guest, or who stands in its place, has written in all inputs: entries, words of an event block or
/// of memory, register accesses, doorbells, commands, requests. An input is a whole session of them. Printed
/// in the end, beside libFuzzer's own statistics.
class Pieces {
  public:
    Pieces() = default;
    Pieces(const Pieces &) = delete;
    Pieces &operator=(const Pieces &) = delete;
    ~Pieces() { fprintf(stderr, "stat::pieces_of_guests: %llu\n", count_); }
    void add() { count_++; }

  private:
    unsigned long long count_ = 0;
};
inline Pieces pieces;

/// An invariant of the device does not hold: the fuzzer keeps the input.
[[noreturn]] inline void broken(const char *file, int line, const char *what, uint64_t a, uint64_t b) {
    fprintf(stderr, "%s:%d: %s does not hold (%#llx, %#llx)\n", file, line, what,
            static_cast<unsigned long long>(a), static_cast<unsigned long long>(b));
    abort();
}

#define MUST(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            ::svio::fuzz::broken(__FILE__, __LINE__, #condition, 0, 0);                                      \
    } while (0)
#define MUST_EQ(one, other)                                                                                  \
    do {                                                                                                     \
        uint64_t must_one = (one), must_other = (other);                                                     \
        if (must_one != must_other)                                                                          \
            ::svio::fuzz::broken(__FILE__, __LINE__, #one " == " #other, must_one, must_other);              \
    } while (0)

} // namespace svio::fuzz
