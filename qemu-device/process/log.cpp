// SPDX-License-Identifier: GPL-2.0-or-later
#include "log.hpp"

#include <array>
#include <chrono>
#include <ctime>
#include <map>
#include <mutex>
#include <syslog.h>
#include <unistd.h>

namespace svio {

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto burst_time = std::chrono::seconds(10);

struct Burst {
    Clock::time_point since;
    unsigned lines = 0;
    uint64_t unwritten = 0;
};

LogFormat chosen = LogFormat::Text;

/// Of this event so far; nothing if it has had its lines.
bool may_write(std::string_view event, uint64_t &unwritten) {
    static std::mutex mutex; // ports' lines come from cores
    static std::map<std::string, Burst, std::less<>> bursts;
    std::lock_guard guard(mutex);
    auto at = bursts.find(event);
    if (at == bursts.end())
        at = bursts.emplace(event, Burst{}).first;
    Burst &burst = at->second;
    auto now = Clock::now();
    if (now - burst.since > burst_time)
        burst = {.since = now, .lines = 0, .unwritten = burst.unwritten};
    if (burst.lines == log_burst) {
        burst.unwritten++;
        return false;
    }
    burst.lines++;
    unwritten = std::exchange(burst.unwritten, 0);
    return true;
}

/// RFC 3339, in UTC.
std::string time_text() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    tm parts{};
    gmtime_r(&now.tv_sec, &parts);
    std::array<char, 32> text{};
    size_t length = strftime(text.data(), text.size(), "%FT%T", &parts);
    snprintf(text.data() + length, text.size() - length, ".%03ldZ", now.tv_nsec / 1'000'000);
    return text.data();
}

std::string json_line(int priority, std::string_view event, const std::string &text, uint64_t unwritten,
                      std::initializer_list<LogField> fields) {
    nlohmann::json line{{"time", time_text()}, {"priority", priority}, {"event", event}, {"message", text}};
    if (unwritten != 0)
        line["unwritten"] = unwritten;
    for (const auto &[name, value] : fields)
        line[name] = value;
    // A line feed in a string is escaped: nobody can make two lines of one.
    return line.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

std::string text_line(int priority, const std::string &text, uint64_t unwritten) {
    static const bool journal = getenv("JOURNAL_STREAM") != nullptr;
    std::string line = journal ? "<" + std::to_string(priority) + ">svio-board: " : "svio-board: ";
    line += text;
    if (unwritten != 0)
        line += " (" + std::to_string(unwritten) + " more such lines were not written)";
    return line;
}

} // namespace

void set_log_format(LogFormat format) {
    chosen = format;
}

void log_event(int priority, std::string_view event, const std::string &text,
               std::initializer_list<LogField> fields) {
    uint64_t unwritten = 0;
    if (!may_write(event, unwritten))
        return;
    std::string line = chosen == LogFormat::Json ? json_line(priority, event, text, unwritten, fields)
                                                 : text_line(priority, text, unwritten);
    line += '\n';
    // In one piece, so that lines of threads do not mix.
    [[maybe_unused]] ssize_t n = write(STDERR_FILENO, line.data(), line.size());
}

} // namespace svio
