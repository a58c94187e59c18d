// SPDX-License-Identifier: GPL-2.0-or-later
/// Offload fields, and packets that are or are not what these say.
#include "attack.hpp"

SVIO_FUZZ_TARGET(SendOffload, SendOffload, SendOffload, SendEntry, SendGood, ReceiveGood, Work, Wire, Reload,
                 Restart, Command)
