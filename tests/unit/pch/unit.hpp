// SPDX-License-Identifier: GPL-2.0-or-later
// What nearly every unit test includes, compiled once. For the sanitizers' builds only: the plain one proves
// that each file includes what it uses.
#include <gtest/gtest.h>

#include "driver.hpp"
