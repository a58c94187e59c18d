// SPDX-License-Identifier: GPL-2.0-or-later
/// Queue entries and chains of a sender.
#include "attack.hpp"

SVIO_FUZZ_TARGET(SendEntry, SendEntry, SendChain, SendGood, Work, Restart, RamWord, Wire, Sleep)
