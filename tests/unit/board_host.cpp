// SPDX-License-Identifier: GPL-2.0-or-later
// A board with management behind a socket, whose guests are this program's: for the tests of svioctl.
//
//     svio-board-host SOCKET VFS
//
// says "ready", then takes commands on standard input, each answered by "ok": "enable SLOT", "disable SLOT",
// "count SLOT COUNTER N" adds to a counter of a VIF, "hold" keeps the guest lock until "release". The end of
// the input ends it.
#include "managed_board.hpp"

#include <iostream>
#include <sstream>

using namespace svio;
using namespace svio::test;

namespace {

bool obey(ManagedBoard &board, const std::string &line, bool &held) {
    std::istringstream words(line);
    std::string verb, counter;
    unsigned slot = 0;
    uint64_t n = 0;
    words >> verb;
    if (verb == "hold" && !held) {
        board.lock.lock();
        return held = true;
    }
    if (verb == "release" && held) {
        held = false;
        board.lock.unlock();
        return true;
    }
    if (!(words >> slot) || slot >= board.functions.size())
        return false;
    if (verb == "enable" || verb == "disable") {
        board.enable(slot, verb == "enable");
        return true;
    }
    if (verb != "count" || !(words >> counter >> n))
        return false;
    auto at = std::find(vif_stat_names.begin(), vif_stat_names.end(), counter);
    if (at == vif_stat_names.end())
        return false;
    board.vif(slot).counters.add(static_cast<size_t>(at - vif_stat_names.begin()), n);
    return true;
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    ManagedBoard board(
        {.vfs = static_cast<unsigned>(strtoul(argv[2], nullptr, 10)), .threads = true, .socket = argv[1]});
    std::cout << "ready" << std::endl;
    bool held = false;
    for (std::string line; std::getline(std::cin, line);) {
        if (!obey(board, line, held)) {
            std::cerr << "svio-board-host: " << line << "?\n";
            return 2;
        }
        std::cout << "ok" << std::endl;
    }
    if (held)
        board.lock.unlock();
    return 0;
}
