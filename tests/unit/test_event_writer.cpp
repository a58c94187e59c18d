// SPDX-License-Identifier: GPL-2.0-or-later
/// Signals go to eventfds of peers that may do with them what they like. Run it under the thread sanitizer.
#include "descriptor.hpp"
#include "event_writer.hpp"

#include <atomic>
#include <chrono>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <thread>

using namespace svio;

namespace {

constexpr uint64_t full = ~uint64_t{1}; // the largest that a counter can have

void wait_flag(int fd, bool waits) {
    int flags = fcntl(fd, F_GETFL);
    ASSERT_EQ(fcntl(fd, F_SETFL, waits ? flags & ~O_NONBLOCK : flags | O_NONBLOCK), 0);
}

} // namespace

TEST(EventWriter, AddsOneEachTime) {
    Descriptor counter(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    EventWriter writer;
    for (int n = 0; n < 1000; n++)
        writer.add(counter.get());
    eventfd_t value = 0;
    ASSERT_EQ(eventfd_read(counter.get(), &value), 0);
    EXPECT_EQ(value, 1000u);
}

TEST(EventWriter, EachThreadHasItsOwn) {
    EventWriter *mine = &EventWriter::of_this_thread(), *other = nullptr;
    std::thread([&] { other = &EventWriter::of_this_thread(); }).join();
    EXPECT_NE(mine, other);
    EXPECT_EQ(mine, &EventWriter::of_this_thread());
}

// A peer that empties and fills its counter, with O_NONBLOCK off whenever it is full: whoever writes would
// wait for the next reading, which comes only when another signal has been given.
TEST(EventWriter, NoPeerCanMakeItWait) {
    if (!EventWriter().never_waits())
        GTEST_SKIP() << "this kernel has no asynchronous requests (io_setup), or fs.aio-max-nr is used up";
    constexpr int cycles = 2000;
    Descriptor counter(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    std::atomic<uint64_t> given{0};
    std::atomic<bool> stop{false};
    std::thread core([&] {
        while (!stop) {
            EventWriter::of_this_thread().add(counter.get());
            given++;
        }
    });
    bool stuck = false;
    for (int n = 0; n < cycles && !stuck; n++) {
        wait_flag(counter.get(), false);
        eventfd_t value;
        eventfd_read(counter.get(), &value);
        eventfd_write(counter.get(), full);
        wait_flag(counter.get(), true);
        auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        // Two: one may have been on its way.
        for (uint64_t before = given; given < before + 2 && !stuck;) {
            std::this_thread::yield();
            stuck = std::chrono::steady_clock::now() > patience;
        }
    }
    stop = true;
    wait_flag(counter.get(), false);
    eventfd_t value;
    eventfd_read(counter.get(), &value); // lets go whoever waits
    core.join();
    EXPECT_FALSE(stuck);
}
