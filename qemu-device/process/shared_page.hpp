// SPDX-License-Identifier: GPL-2.0-or-later
/// A page that another process sees too: svio_attach.h says what is in which.
#pragma once

#include "descriptor.hpp"
#include "host.hpp"
#include "svio_attach.h"

#include <atomic>
#include <cstddef>

namespace svio {

/// A file of one page, zero, that cannot shrink, mapped here.
class SharedPage {
  public:
    enum class Peers { Read, Write };
    /// Throws std::system_error.
    SharedPage(const char *name, Peers peers);
    SharedPage(const SharedPage &) = delete;
    SharedPage &operator=(const SharedPage &) = delete;
    ~SharedPage();

    /// For whoever is to see it.
    int fd() const { return file_.get(); }
    /// A word of it. Whoever may write it may write anything.
    std::atomic_ref<uint32_t> word(size_t offset) const {
        return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t *>(at_ + offset));
    }

  private:
    Descriptor file_;
    uint8_t *at_ = nullptr;
};

/// Tells peers how many cores poll.
class PollingPage final : public ThreadHooks {
  public:
    void polling(bool polls) override {
        page_.word(offsetof(svio_attach_polling, cores)).fetch_add(polls ? 1 : UINT32_MAX);
    }
    int fd() const { return page_.fd(); }

  private:
    SharedPage page_{"svio-polling", SharedPage::Peers::Read};
};

} // namespace svio
