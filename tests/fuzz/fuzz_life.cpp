// SPDX-License-Identifier: GPL-2.0-or-later
/// All of it, over resets.
#include "attack.hpp"

SVIO_FUZZ_TARGET(SendEntry, SendChain, SendGood, ReceiveEntry, ReceiveGood, Offer, EventWord, RamWord, Work,
                 Sleep, Time, Register, Setup, Restart, Control, Command, Bell, Wire)
