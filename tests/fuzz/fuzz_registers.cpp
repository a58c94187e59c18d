// SPDX-License-Identifier: GPL-2.0-or-later
/// Accesses to registers and doorbells, of every size and in any order.
#include "attack.hpp"

SVIO_FUZZ_TARGET(Register, Register, Register, Register, Setup, Setup, Control, Bell, SendGood, ReceiveGood,
                 Offer, Work)
