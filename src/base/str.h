/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strings: parsing and printing of the small things that people type and read.
 */
#ifndef SOSIE_BASE_STR_H
#define SOSIE_BASE_STR_H

#include <stdbool.h>

#include "base/macro.h"

/*
 * A name that people give to a group, member, host, image, network …: 1 to NAME_MAX_LENGTH
 * characters of [A-Za-z0-9._-], beginning with a letter or digit; so it is safe as a file name.
 */
#define NAME_MAX_LENGTH 63
bool name_valid(const char *name);
/* The rule of name_valid() in words, for error messages. */
extern const char name_rule[];

bool str_starts_with(const char *s, const char *prefix);

/* Decimal, the whole string, no sign or space. -EINVAL when it is no number, -ERANGE above max. */
int parse_u64(const char *s, uint64_t max, uint64_t *ret);
/* A byte count with an optional binary suffix K, M, G, T ("512M", "2G"). Errors as parse_u64(). */
int parse_size(const char *s, uint64_t *ret);
/* A duration with a suffix ns, us, ms, s, m, h, d; plain numbers are seconds. */
int parse_duration_ns(const char *s, uint64_t *ret);

/* Lower-case hexadecimal of n bytes and a NUL: out holds 2 n + 1 bytes. */
void hex_encode(const void *bytes, size_t n, char *out);
/* Exactly 2 n digits of either case; -EINVAL otherwise. */
int hex_decode(const char *text, void *bytes, size_t n);

/* Nanoseconds since 1970 as RFC 3339 in UTC with nine decimals: out holds 31 bytes. */
#define TIMESTAMP_SIZE 31
void format_timestamp(uint64_t realtime_ns, char out[TIMESTAMP_SIZE]);

/* Joins directory and name. -ENAMETOOLONG when out is too small. */
int path_join(char *out, size_t size, const char *directory, const char *name);
/* Makes path and its missing parents, each with mode. 0 also when it was there. */
int make_directories(const char *path, unsigned int mode);

#endif
