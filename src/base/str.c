/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

const char name_rule[] =
	"1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit";

/* Locale-free on purpose: names are file names and must mean the same everywhere. */
static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool name_valid(const char *name)
{
	size_t n;

	if (!name || !is_alnum(name[0]))
		return false;
	for (n = 0; name[n]; n++)
		if (n >= NAME_MAX_LENGTH || (!is_alnum(name[n]) && !strchr("._-", name[n])))
			return false;
	return true;
}

bool str_starts_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* Reads leading decimal digits; *end is behind them. */
static int leading_u64(const char *s, uint64_t *ret, const char **end)
{
	uint64_t v = 0;
	const char *p = s;

	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(v, 10, &v) ||
			__builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
			return -ERANGE;
	}
	if (p == s)
		return -EINVAL;
	*ret = v;
	*end = p;
	return 0;
}

int parse_u64(const char *s, uint64_t max, uint64_t *ret)
{
	const char *end;
	uint64_t v;
	int r = leading_u64(s, &v, &end);

	if (r < 0)
		return r;
	if (*end)
		return -EINVAL;
	if (v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

struct unit {
	const char *suffix;
	uint64_t factor;
};

static int parse_with_unit(const char *s, const struct unit *units, size_t n, uint64_t *ret)
{
	const char *end;
	uint64_t v;
	int r = leading_u64(s, &v, &end);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		if (strcmp(end, units[i].suffix) != 0)
			continue;
		if (__builtin_mul_overflow(v, units[i].factor, &v))
			return -ERANGE;
		*ret = v;
		return 0;
	}
	return -EINVAL;
}

int parse_size(const char *s, uint64_t *ret)
{
	static const struct unit units[] = {
		{"", 1},
		{"K", 1ULL << 10},
		{"M", 1ULL << 20},
		{"G", 1ULL << 30},
		{"T", 1ULL << 40},
	};

	return parse_with_unit(s, units, ARRAY_SIZE(units), ret);
}

int parse_duration_ns(const char *s, uint64_t *ret)
{
	static const struct unit units[] = {
		{"", NSEC_PER_SEC},
		{"ns", 1},
		{"us", NSEC_PER_USEC},
		{"ms", NSEC_PER_MSEC},
		{"s", NSEC_PER_SEC},
		{"m", 60 * NSEC_PER_SEC},
		{"h", 3600 * NSEC_PER_SEC},
		{"d", 86400 * NSEC_PER_SEC},
	};

	return parse_with_unit(s, units, ARRAY_SIZE(units), ret);
}

void hex_encode(const void *bytes, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *in = bytes;

	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[in[i] >> 4];
		out[2 * i + 1] = digits[in[i] & 15];
	}
	out[2 * n] = '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int hex_decode(const char *text, void *bytes, size_t n)
{
	uint8_t *out = bytes;

	if (strlen(text) != 2 * n)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		out[i] = (uint8_t)(high << 4 | low);
	}
	return 0;
}

void format_timestamp(uint64_t realtime_ns, char out[TIMESTAMP_SIZE])
{
	time_t seconds = (time_t)(realtime_ns / NSEC_PER_SEC);
	struct tm tm;
	char date[20];

	if (!gmtime_r(&seconds, &tm) ||
		strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm) == 0) {
		(void)snprintf(out, TIMESTAMP_SIZE, "-");
		return;
	}
	(void)snprintf(
		out, TIMESTAMP_SIZE, "%s.%09uZ", date, (unsigned int)(realtime_ns % NSEC_PER_SEC));
}

int path_join(char *out, size_t size, const char *directory, const char *name)
{
	int n = snprintf(out, size, "%s/%s", directory, name);

	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

int make_directories(const char *path, unsigned int mode)
{
	char partial[PATH_MAX];
	size_t n = strlen(path);

	if (n == 0 || n >= sizeof(partial))
		return n == 0 ? -EINVAL : -ENAMETOOLONG;
	memcpy(partial, path, n + 1);
	for (size_t i = 1; i <= n; i++) {
		char kept = partial[i];

		if (kept != '/' && kept != '\0')
			continue;
		partial[i] = '\0';
		if (mkdir(partial, mode) < 0 && errno != EEXIST)
			return -errno;
		partial[i] = kept;
	}
	return 0;
}
