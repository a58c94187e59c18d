// SPDX-License-Identifier: GPL-2.0-or-later
/// The JSON of management (SPEC.md 8.4), for the socket and for QOM. Nothing of the JSON library shows here.
#pragma once

#include "management.hpp"

#include <memory>
#include <string>
#include <string_view>

namespace svio {

/// One request: read, run with the guest lock held, answered.
class JsonCommand {
  public:
    explicit JsonCommand(std::string_view line);
    ~JsonCommand();
    JsonCommand(const JsonCommand &) = delete;
    JsonCommand &operator=(const JsonCommand &) = delete;
    void run(Management &management);
    /// Without a newline.
    std::string answer() const;

  private:
    struct Parts;
    std::unique_ptr<Parts> parts_;
};

std::string refusal_json(uint16_t status, const std::string &why);
/// "vifs", "cores", "info" or "all" of them. Guest lock held.
std::string query_json(const Management &management, std::string_view what);

} // namespace svio
