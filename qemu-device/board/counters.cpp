// SPDX-License-Identifier: GPL-2.0-or-later
#include "counters.hpp"

namespace svio {

#define NAME(id, text) #text,
const std::array<const char *, SVIO_STAT_COUNT> vif_stat_names = {SVIO_STAT_NAMES};
const std::array<const char *, SVIO_QSTAT_COUNT> queue_stat_names = {SVIO_QSTAT_NAMES};
const std::array<const char *, CoreStatCount> core_stat_names = {SVIO_CORE_STATS(NAME)};
#undef NAME

} // namespace svio
