// SPDX-License-Identifier: GPL-2.0-or-later
/// States that come in with a migration: as saved, or with anything in them changed.
#include "attack.hpp"

SVIO_FUZZ_TARGET(Reload, Tamper, Tamper, Tamper, SendGood, SendEntry, ReceiveGood, Offer, Work, Setup,
                 Command, Wire)
