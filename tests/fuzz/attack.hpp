// SPDX-License-Identifier: GPL-2.0-or-later
/// The moves of a hostile guest. Each fuzz target is a selection of them.
#pragma once

#include "machine.hpp"

namespace svio::fuzz {

enum class Move : uint8_t {
    SendEntry,    ///< any entry, any place of the send ring
    SendChain,    ///< a chain of plausible entries
    SendGood,     ///< a message as it should be
    SendOffload,  ///< a packet with offload fields, most of them right
    ReceiveEntry, ///< any entry, any place of the receive ring
    ReceiveGood,  ///< buffers as they should be
    Offer,        ///< the wire has a frame
    EventWord,    ///< any word of an event block
    RamWord,      ///< any word of the guest's memory
    Work,         ///< cores work until nothing is left
    Sleep,        ///< a core arms its bells
    Time,         ///< time passes
    Register,     ///< an access to any register, any size
    Setup,        ///< a queue register with a plausible value
    Restart,      ///< stop a queue, clear it, start it
    Control,      ///< reset, features, run
    Command,      ///< a mailbox command with plausible fields
    RawCommand,   ///< a mailbox command of any bytes
    Bell,
    Wire,   ///< the port blocks, fails, goes on; link; bus master
    Reload, ///< the state is saved, and loaded as it is
    Tamper, ///< a state is loaded in which something was changed
};

/// One input: its first bytes choose machine, features and ring size, the others the moves.
class Attack {
  public:
    Attack(const uint8_t *data, size_t size);
    /// Plays the input with these moves and checks what must hold in the end. 0, for libFuzzer.
    int play(std::span<const Move> moves);

  private:
    static constexpr unsigned most_moves = 1000;

    void move(Move move);
    Ring &ring() { return in_.u8() & 1 ? static_cast<Ring &>(machine_.rx) : machine_.tx; }
    uint64_t address(const Ring &ring);
    uint32_t length();
    uint32_t word(const Ring &ring);
    void entry(Ring &ring, bool is_send);
    void send_chain();
    void send_good();
    void send_offload();
    void offer();
    void access_register();
    void setup();
    void restart();
    void control();
    void command();
    void raw_command();
    void wire();
    void tamper();

    Input in_;
    Machine &machine_;
    uint64_t sequence_ = 0;
};

/// libFuzzer's entry point, with the moves of a target.
#define SVIO_FUZZ_TARGET(...)                                                                                \
    extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);                                 \
    int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {                                           \
        using enum svio::fuzz::Move;                                                                         \
        static constexpr svio::fuzz::Move moves[] = {__VA_ARGS__};                                           \
        return svio::fuzz::Attack(data, size).play(moves);                                                   \
    }

} // namespace svio::fuzz
