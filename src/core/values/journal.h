/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal: which member consumed which identities when. A file that only grows.
 *
 *   header   magic "SOSIEAUD", u32 version, u32 header size, 16 bytes group id, u32 CRC-32C of
 *            these, u32 0                                                           (40 bytes)
 *   frames   u32 length of the payload, u32 CRC-32C of the payload, payload
 *
 * Integers are little-endian. A payload begins with its type:
 *
 *   1 cursor  varint id, varint member number, 16 bytes lineage key, u8 kind,
 *             varint lineage offset, u8 length and member's name, u16 length and lane's name
 *   2 batch   varint time (CLOCK_REALTIME ns), varint uncertainty (ns: consumed within so much
 *             before that time), varint count, then count times: varint cursor id, varint from,
 *             varint to (positions: ordinals, or bytes of a stream)
 *
 * A frame whose length or checksum is wrong ends the journal: a crash leaves at most one torn
 * frame, at the end, and the next writer cuts it off. After a crash a range may be written twice;
 * a reader ignores what is below the position it has seen for that cursor.
 */
#ifndef SOSIE_CORE_VALUES_JOURNAL_H
#define SOSIE_CORE_VALUES_JOURNAL_H

#include "base/buf.h"
#include "base/err.h"
#include "base/reader.h"
#include "base/str.h"

#define JOURNAL_MAGIC     "SOSIEAUD"
#define JOURNAL_VERSION   1
#define JOURNAL_HEADER    40
#define JOURNAL_FRAME     8          /* bytes before the payload */
#define JOURNAL_FRAME_MAX (1U << 20) /* bytes of payload */
#define JOURNAL_LANE_MAX  512        /* bytes of a lane's name */
#define JOURNAL_BATCH_MAX 4096       /* ranges in a batch */

struct journal_cursor {
	uint64_t id;
	uint64_t member;
	uint8_t lineage_key[16];
	unsigned int kind;
	uint64_t lineage; /* offset in the segment */
	char member_name[NAME_MAX_LENGTH + 1];
	char lane[JOURNAL_LANE_MAX + 1];
};

struct journal_range {
	uint64_t cursor;
	uint64_t from, to; /* from < to */
};

struct journal_batch {
	uint64_t time_ns;
	uint64_t uncertainty_ns;
	size_t count;
};

/* Each appends to b; an error is remembered in it. */
void journal_put_header(struct buf *b, const uint8_t group_id[16]);
void journal_put_cursor(struct buf *b, const struct journal_cursor *c);
void journal_put_batch(struct buf *b, uint64_t time_ns, uint64_t uncertainty_ns,
	const struct journal_range *ranges, size_t count);

/* Checks a header. 0, or ERR_CORRUPT, ERR_VERSION, ERR_CONFLICT (another group's). */
int journal_check(const void *bytes, size_t n, const uint8_t group_id[16], struct err *e);

struct journal_visitor {
	void *context;
	/* Each returns 0 to go on; anything else ends the reading and is returned. */
	int (*cursor)(void *context, const struct journal_cursor *c);
	int (*range)(void *context, const struct journal_batch *batch,
		const struct journal_range *range);
};

/*
 * Reads the frames in n bytes behind the header. *ret_whole: how many of the bytes are whole,
 * valid frames. visitor may be NULL. 0 or what a visitor's function returned.
 */
int journal_read(
	const void *bytes, size_t n, const struct journal_visitor *visitor, size_t *ret_whole);

#endif
