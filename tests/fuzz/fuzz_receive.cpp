// SPDX-License-Identifier: GPL-2.0-or-later
/// Buffers of a receiver, and frames that come.
#include "attack.hpp"

SVIO_FUZZ_TARGET(ReceiveEntry, ReceiveEntry, ReceiveGood, Offer, Offer, Work, Restart, RamWord, Wire, Sleep)
