// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace svio::test {

/// A folder with a short path, gone with its content in the end.
class TempFolder {
  public:
    TempFolder() {
        char name[] = "/tmp/svio-unit-XXXXXX";
        path_ = mkdtemp(name);
    }
    ~TempFolder() { std::filesystem::remove_all(path_); }
    std::string operator/(const std::string &name) const { return (path_ / name).string(); }

  private:
    std::filesystem::path path_;
};

} // namespace svio::test
