// SPDX-License-Identifier: GPL-2.0-or-later
/// The log of svio-board, on standard error: a line for each event. As text for people ("svio-board: ...",
/// and under systemd with the priority before it, sd-daemon(3)), or as JSON for programs.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

namespace svio {

enum class LogFormat { Text, Json };

/// Before the first line.
void set_log_format(LogFormat format);

using LogField = std::pair<const char *, nlohmann::json>;

/// `priority` is one of syslog's; `event` a word for programs; `fields` what the text says, for programs too.
/// More than `log_burst` lines of an event within ten seconds are counted and not written: who connects
/// without end must not fill a disk.
void log_event(int priority, std::string_view event, const std::string &text,
               std::initializer_list<LogField> fields = {});

constexpr unsigned log_burst = 100;

} // namespace svio
