// SPDX-License-Identifier: GPL-2.0-or-later
/// Event blocks, the words that arm doorbells and signals, moderation and time.
#include "attack.hpp"

SVIO_FUZZ_TARGET(EventWord, EventWord, EventWord, Setup, SendGood, ReceiveGood, Offer, Work, Sleep, Time,
                 Bell, Restart)
