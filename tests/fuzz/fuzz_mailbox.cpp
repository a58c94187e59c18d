// SPDX-License-Identifier: GPL-2.0-or-later
/// Commands of the mailbox.
#include "attack.hpp"

SVIO_FUZZ_TARGET(Command, Command, Command, RawCommand, Register, Control, Offer, ReceiveGood, Wire)
