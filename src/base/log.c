/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/str.h"

#define LINE_MAX_BYTES  2048
#define QUOTE_MAX_BYTES 256

static const char *program = "sosie";
static enum log_level control_threshold = LOG_INFO;
static enum log_level data_threshold = LOG_WARNING;
static bool to_journal;

static const struct {
	const char *name;
	int priority;
} levels[] = {
#define X(constant, name, priority) [constant] = {name, priority},
	LOG_LEVEL_TABLE(X)
#undef X
};
static_assert(ARRAY_SIZE(levels) == LOG_LEVELS, "one row per level");

static bool level_from_name(const char *name, size_t n, enum log_level *ret)
{
	for (unsigned int i = 0; i < LOG_LEVELS; i++) {
		if (strlen(levels[i].name) == n && !memcmp(levels[i].name, name, n)) {
			*ret = (enum log_level)i;
			return true;
		}
	}
	return false;
}

void log_init(const char *name)
{
	const char *setting = getenv("SOSIE_LOG");

	program = name;
	to_journal = getenv("JOURNAL_STREAM") != NULL;
	while (setting && *setting) {
		size_t n = strcspn(setting, ",");
		bool data = str_starts_with(setting, "data=");
		size_t skip = data ? strlen("data=") : 0;

		if (!level_from_name(
			    setting + skip, n - skip, data ? &data_threshold : &control_threshold))
			log_control(LOG_WARNING, "unknown word in SOSIE_LOG", " word=%s",
				log_quote(setting));
		setting += n;
		setting += *setting == ',';
	}
}

static size_t append(char *line, size_t used, const char *format, ...) PRINTF(3, 4);
static size_t append_v(char *line, size_t used, const char *format, va_list args) PRINTF(3, 0);

/* Appends what fits; the line always keeps room for a newline. */
static size_t append_v(char *line, size_t used, const char *format, va_list args)
{
	size_t room = LINE_MAX_BYTES - 1 - used;
	int n = vsnprintf(line + used, room, format, args);

	if (n < 0)
		return used;
	return used + MIN((size_t)n, room - 1);
}

static size_t append(char *line, size_t used, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	used = append_v(line, used, format, args);
	va_end(args);
	return used;
}

static void write_line(enum log_level level, const char *message, unsigned int dropped,
	const char *fields, va_list args) PRINTF(4, 0);

static void write_line(enum log_level level, const char *message, unsigned int dropped,
	const char *fields, va_list args)
{
	char line[LINE_MAX_BYTES], when[TIMESTAMP_SIZE];
	struct timespec now = {0};
	size_t used = 0;

	if (to_journal) {
		used = append(line, used, "<%d>", levels[level].priority);
	} else {
		(void)clock_gettime(CLOCK_REALTIME, &now);
		format_timestamp((uint64_t)(now.tv_sec * NSEC_PER_SEC + now.tv_nsec), when);
		used = append(line, used, "%s %s ", when, levels[level].name);
	}
	used = append(line, used, "%s \"%s\"", program, message);
	if (fields)
		used = append_v(line, used, fields, args);
	if (dropped > 0)
		used = append(line, used, " dropped=%u", dropped);
	line[used++] = '\n';
	/* Nowhere to report it when standard error is gone. */
	if (write(STDERR_FILENO, line, used) < 0)
		return;
}

void log_control(enum log_level level, const char *message, const char *fields, ...)
{
	va_list args;

	if (level > control_threshold)
		return;
	va_start(args, fields);
	write_line(level, message, 0, fields, args);
	va_end(args);
}

void log_data(enum log_level level, const char *message, const char *fields, ...)
{
	static atomic_long window; /* the second that `lines` counts */
	static atomic_uint lines, dropped;
	struct timespec now = {0};
	long expected;
	va_list args;

	if (level > data_threshold)
		return;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	expected = atomic_load(&window);
	if (expected != now.tv_sec &&
		atomic_compare_exchange_strong(&window, &expected, now.tv_sec))
		atomic_store(&lines, 0);
	if (atomic_fetch_add(&lines, 1) >= LOG_DATA_RATE) {
		atomic_fetch_add(&dropped, 1);
		return;
	}
	va_start(args, fields);
	write_line(level, message, atomic_exchange(&dropped, 0), fields, args);
	va_end(args);
}

static bool needs_quotes(const char *s)
{
	if (!*s)
		return true;
	for (; *s; s++)
		if (*s <= ' ' || *s == '"' || *s == '\\' || *s == '=' || *s == 0x7f)
			return true;
	return false;
}

const char *log_quote(const char *s)
{
	static _Thread_local char buffers[LOG_QUOTE_BUFFERS][QUOTE_MAX_BYTES];
	static _Thread_local unsigned int next;
	char *out = buffers[next++ % LOG_QUOTE_BUFFERS];
	size_t used = 0;

	if (!s)
		return "-";
	if (!needs_quotes(s) && strlen(s) < QUOTE_MAX_BYTES) {
		memcpy(out, s, strlen(s) + 1);
		return out;
	}
	out[used++] = '"';
	/* An escape takes up to four bytes; the closing quote and NUL two more. */
	for (; *s && used + 6 < QUOTE_MAX_BYTES; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			out[used++] = '\\';
		if (c < ' ' || c == 0x7f)
			used += (size_t)snprintf(out + used, 5, "\\x%02x", c);
		else
			out[used++] = (char)c;
	}
	out[used++] = '"';
	out[used] = '\0';
	return out;
}
