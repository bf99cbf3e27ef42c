/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every unit test includes: cmocka with the headers that it needs before it.
 */
#ifndef SOSIE_TESTS_UNIT_H
#define SOSIE_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/macro.h"

/* cmocka's own assert_int_equal() casts to unsigned 64 bits, which hides signs in messages. */
#define assert_ok(r) assert_int_equal((r), 0)

#endif
