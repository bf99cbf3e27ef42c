/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Structured logging for programs (libraries never log): one line an event,
 *
 *   2026-01-31T12:00:00.000000000Z info hostd "instance started" instance=web-1 pid=4711
 *
 * to standard error, or without the time when standard error is the journal (JOURNAL_STREAM).
 * The control path (starting, stopping, decisions) and the data path (per frame, per request)
 * have their own thresholds, and the data path is rate-limited: what is dropped is counted and
 * the count is printed with the next line that passes.
 *
 * Thread-safe: a line is written by one write(2).
 */
#ifndef SOSIE_BASE_LOG_H
#define SOSIE_BASE_LOG_H

#include <stdarg.h>

#include "base/macro.h"

/*     constant   name     syslog level */
#define LOG_LEVEL_TABLE(X)           \
	X(LOG_ERROR, "error", 3)     \
	X(LOG_WARNING, "warning", 4) \
	X(LOG_INFO, "info", 6)       \
	X(LOG_DEBUG, "debug", 7)

enum log_level {
#define X(constant, name, priority) constant,
	LOG_LEVEL_TABLE(X)
#undef X
		LOG_LEVELS
};

/* Lines the data path may write per second before it counts instead. */
#define LOG_DATA_RATE 20

/*
 * Sets the program's name and reads SOSIE_LOG ("debug", or "info,data=debug"): thresholds of the
 * control path and of the data path. Default: info, data=warning. An unknown word is reported.
 */
void log_init(const char *program);

/*
 * fields: printf format of ` key=value` pairs; NULL for none. Values that may hold spaces or
 * control characters are passed through log_quote().
 */
void log_control(enum log_level level, const char *message, const char *fields, ...) PRINTF(3, 4);
void log_data(enum log_level level, const char *message, const char *fields, ...) PRINTF(3, 4);

/*
 * Quotes s as a JSON-like string when it holds anything but plain characters. The result lives in
 * one of a few per-thread buffers and is overwritten after LOG_QUOTE_BUFFERS further calls.
 */
#define LOG_QUOTE_BUFFERS 8
const char *log_quote(const char *s);

#endif
