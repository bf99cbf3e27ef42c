/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kinds of values. A lane holds one kind, so that a monotonic reading can never be handed to
 * somebody who asked for the time of day, however a program's requests interleave.
 *
 * The numbers are part of the segment format: append, never renumber.
 */
#ifndef SOSIE_CORE_VALUES_KINDS_H
#define SOSIE_CORE_VALUES_KINDS_H

#include "base/macro.h"

enum value_form {
	FORM_WORD,   /* 63 bits, in the slot itself */
	FORM_CELL,   /* bytes, in a cell whose place the slot names */
	FORM_STREAM, /* not logged value by value: a seeded stream; slots name its seeds */
};

/*  constant                     no. name                       form */
#define KIND_TABLE(X)                                                           \
	X(KIND_RANDOM, 0, "random", FORM_STREAM)                                \
	X(KIND_ORDER, 1, "order", FORM_WORD)                                    \
	X(KIND_PID, 2, "pid", FORM_WORD)                                        \
	X(KIND_TSC, 3, "tsc", FORM_WORD)                                        \
	X(KIND_UUID, 4, "uuid", FORM_CELL)                                      \
	X(KIND_CUSTOM, 5, "custom", FORM_CELL)                                  \
	X(KIND_DATA, 6, "data", FORM_CELL)                                      \
	X(KIND_HWADDR, 7, "hwaddr", FORM_CELL)                                  \
	X(KIND_CLOCK, 8, "clock.realtime", FORM_WORD)                           \
	X(KIND_CLOCK_MONOTONIC, 9, "clock.monotonic", FORM_WORD)                \
	X(KIND_CLOCK_PROCESS_CPUTIME, 10, "clock.process_cputime", FORM_WORD)   \
	X(KIND_CLOCK_THREAD_CPUTIME, 11, "clock.thread_cputime", FORM_WORD)     \
	X(KIND_CLOCK_MONOTONIC_RAW, 12, "clock.monotonic_raw", FORM_WORD)       \
	X(KIND_CLOCK_REALTIME_COARSE, 13, "clock.realtime_coarse", FORM_WORD)   \
	X(KIND_CLOCK_MONOTONIC_COARSE, 14, "clock.monotonic_coarse", FORM_WORD) \
	X(KIND_CLOCK_BOOTTIME, 15, "clock.boottime", FORM_WORD)                 \
	X(KIND_CLOCK_REALTIME_ALARM, 16, "clock.realtime_alarm", FORM_WORD)     \
	X(KIND_CLOCK_BOOTTIME_ALARM, 17, "clock.boottime_alarm", FORM_WORD)     \
	X(KIND_CLOCK_SGI_CYCLE, 18, "clock.sgi_cycle", FORM_WORD)               \
	X(KIND_CLOCK_TAI, 19, "clock.tai", FORM_WORD)                           \
	X(KIND_CLOCK_DYNAMIC, 20, "clock.dynamic", FORM_WORD)                   \
	X(KIND_AUXV_RANDOM, 21, "auxv.random", FORM_CELL)                       \
	X(KIND_PPID, 22, "ppid", FORM_WORD)

enum value_kind {
#define X(constant, number, name, form) constant = (number),
	KIND_TABLE(X)
#undef X
		KINDS
};

/* Room for more kinds in a lineage record without another format version. */
#define KIND_LANES 24
static_assert(KINDS <= KIND_LANES, "a lineage record has a lane for every kind");

#define CLOCK_LAST 11 /* CLOCK_TAI; the lane of clock id c is KIND_CLOCK + c */

const char *kind_name(unsigned int kind);
/* FORM_WORD for a number that is no kind. */
enum value_form kind_form(unsigned int kind);
/* The kind with that name, or -1. */
int kind_from_name(const char *name);

static inline enum value_kind kind_of_clock(int clock_id)
{
	return clock_id >= 0 && clock_id <= CLOCK_LAST ? (enum value_kind)(KIND_CLOCK + clock_id)
						       : KIND_CLOCK_DYNAMIC;
}

#endif
