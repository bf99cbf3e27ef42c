/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A record: a durable, append-only file of numbered JSON objects, one a line, that one process
 * writes. An entry is on stable storage when record_append() returns.
 *
 * Layout: each line is a JSON object whose last member is "crc", the CRC-32C in eight hexadecimal
 * digits of everything in the line before `,"crc"`. The first line is the head,
 * {"format":"sosie-record","version":1,"first":N,"crc":"…"}; the entries behind it bear the
 * "sequence" N, N+1, …
 *
 * Not thread-safe. Another process is kept out by a lock on the file.
 */
#ifndef SOSIE_IO_RECORD_H
#define SOSIE_IO_RECORD_H

#include <jansson.h>

#include "base/err.h"
#include "base/macro.h"

#define RECORD_LINE_MAX (64U << 10)
/* Forgotten entries leave the file when they are more than this, and more than the others. */
#define RECORD_SLACK (64U << 10)

struct record;

/*
 * Opens the record `name` in the directory, or begins one at sequence 1. A last entry that was
 * not wholly written (a crash) is removed. ERR_CONFLICT when another process has it open,
 * ERR_CORRUPT when anything but the tail fails its checks, ERR_VERSION for another version.
 */
int record_open(int directory, const char *name, struct record **ret, struct err *e);
/* NULL is accepted. */
void record_free(struct record *record);
DEFINE_CLEANUP(struct record *, record_free);
#define CLEANUP_RECORD CLEANUP(record_free_p)

/* The sequence of the first entry kept, and of the next one to be appended. */
uint64_t record_first(const struct record *record);
uint64_t record_next(const struct record *record);
/* The size of the file in bytes. */
uint64_t record_bytes(const struct record *record);

/*
 * Appends an object, to which "sequence" is added; it has neither that nor "crc". The reference is
 * always taken; NULL is -ENOMEM. When it fails, the file is as before, and it may be tried again:
 * -E2BIG beyond RECORD_LINE_MAX, or what write(2) and fdatasync(2) say.
 */
int record_append(struct record *record, json_t *entry, uint64_t *ret_sequence);

/* Anything but 0 ends record_each() with it. entry is borrowed. */
typedef int (*record_fn)(uint64_t sequence, const json_t *entry, void *userdata);
/* Calls back for each entry kept, in order, beginning with sequence `from`. */
int record_each(struct record *record, uint64_t from, record_fn fn, void *userdata);

/*
 * Entries below `before` are no longer wanted; they go when there are enough of them. The next
 * sequence never changes. On an error the file is as before.
 */
int record_forget(struct record *record, uint64_t before);

#endif
