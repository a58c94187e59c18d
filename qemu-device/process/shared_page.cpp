// SPDX-License-Identifier: GPL-2.0-or-later
#include "shared_page.hpp"

#include <cerrno>
#include <fcntl.h>
#include <sys/mman.h>
#include <system_error>
#include <unistd.h>

namespace svio {

namespace {

size_t page_size() {
    return static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

} // namespace

SharedPage::SharedPage(const char *name, Peers peers)
    : file_(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
    void *at = MAP_FAILED;
    if (file_.get() >= 0 && ftruncate(file_.get(), static_cast<off_t>(page_size())) == 0)
        at = mmap(nullptr, page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0);
    // Our own mapping, which is there already, stays writable.
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | (peers == Peers::Read ? F_SEAL_FUTURE_WRITE : 0);
    if (at == MAP_FAILED || fcntl(file_.get(), F_ADD_SEALS, seals) < 0)
        throw std::system_error(errno, std::generic_category(), "a page to share");
    at_ = static_cast<uint8_t *>(at);
}

SharedPage::~SharedPage() {
    munmap(at_, page_size());
}

} // namespace svio
