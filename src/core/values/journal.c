/* SPDX-License-Identifier: Apache-2.0 */
#include "core/values/journal.h"

#include <errno.h>
#include <string.h>

#include "base/hash.h"

enum {
	FRAME_CURSOR = 1,
	FRAME_BATCH = 2,
};

static void append_u16(struct buf *b, uint16_t v)
{
	uint8_t bytes[2];

	put_u16(bytes, v);
	(void)buf_append(b, bytes, sizeof(bytes));
}

static void append_u32(struct buf *b, uint32_t v)
{
	uint8_t bytes[4];

	put_u32(bytes, v);
	(void)buf_append(b, bytes, sizeof(bytes));
}

static void append_varint(struct buf *b, uint64_t v)
{
	uint8_t bytes[VARINT_MAX];

	(void)buf_append(b, bytes, put_varint(bytes, v));
}

/* Leaves room for length and checksum; returns where the frame begins. */
static size_t begin_frame(struct buf *b, uint8_t type)
{
	size_t at = b->size;

	append_u32(b, 0);
	append_u32(b, 0);
	(void)buf_append(b, &type, 1);
	return at;
}

static void end_frame(struct buf *b, size_t at)
{
	size_t n;

	if (buf_error(b))
		return;
	n = b->size - at - JOURNAL_FRAME;
	assert(n <= JOURNAL_FRAME_MAX);
	put_u32(b->data + at, (uint32_t)n);
	put_u32(b->data + at + 4, crc32c(0, b->data + at + JOURNAL_FRAME, n));
}

void journal_put_header(struct buf *b, const uint8_t group_id[16])
{
	size_t at = b->size;

	(void)buf_append(b, JOURNAL_MAGIC, 8);
	append_u32(b, JOURNAL_VERSION);
	append_u32(b, JOURNAL_HEADER);
	(void)buf_append(b, group_id, 16);
	if (!buf_error(b))
		append_u32(b, crc32c(0, b->data + at, 32));
	append_u32(b, 0);
}

void journal_put_cursor(struct buf *b, const struct journal_cursor *c)
{
	size_t at = begin_frame(b, FRAME_CURSOR);
	uint8_t kind = (uint8_t)c->kind;
	uint8_t name_length = (uint8_t)strlen(c->member_name);
	uint16_t lane_length = (uint16_t)strlen(c->lane);

	append_varint(b, c->id);
	append_varint(b, c->member);
	(void)buf_append(b, c->lineage_key, sizeof(c->lineage_key));
	(void)buf_append(b, &kind, 1);
	append_varint(b, c->lineage);
	(void)buf_append(b, &name_length, 1);
	(void)buf_append(b, c->member_name, name_length);
	append_u16(b, lane_length);
	(void)buf_append(b, c->lane, lane_length);
	end_frame(b, at);
}

void journal_put_batch(struct buf *b, uint64_t time_ns, uint64_t uncertainty_ns,
	const struct journal_range *ranges, size_t count)
{
	size_t at = begin_frame(b, FRAME_BATCH);

	assert(count <= JOURNAL_BATCH_MAX);
	append_varint(b, time_ns);
	append_varint(b, uncertainty_ns);
	append_varint(b, count);
	for (size_t i = 0; i < count; i++) {
		append_varint(b, ranges[i].cursor);
		append_varint(b, ranges[i].from);
		append_varint(b, ranges[i].to);
	}
	end_frame(b, at);
}

int journal_check(const void *bytes, size_t n, const uint8_t group_id[16], struct err *e)
{
	struct reader r = reader_init(bytes, n);
	const uint8_t *magic = reader_bytes(&r, 8);
	uint32_t version = reader_u32(&r), size = reader_u32(&r);
	const uint8_t *group = reader_bytes(&r, 16);
	uint32_t crc = reader_u32(&r);

	if (r.failed || memcmp(magic, JOURNAL_MAGIC, 8) != 0)
		return err_set(e, ERR_CORRUPT, "not a journal");
	if (version != JOURNAL_VERSION)
		return err_set(e, ERR_VERSION, "the journal has format version %u, this program %d",
			version, JOURNAL_VERSION);
	if (size != JOURNAL_HEADER || crc != crc32c(0, bytes, 32))
		return err_set(e, ERR_CORRUPT, "the journal's header fails its checksum");
	if (memcmp(group, group_id, 16) != 0)
		return err_set(e, ERR_CONFLICT, "the journal belongs to another group");
	return 0;
}

static int read_cursor(struct reader *r, const struct journal_visitor *visitor)
{
	struct journal_cursor c = {0};
	const uint8_t *key, *name, *lane;
	size_t name_length, lane_length;

	c.id = reader_varint(r);
	c.member = reader_varint(r);
	key = reader_bytes(r, sizeof(c.lineage_key));
	c.kind = reader_u8(r);
	c.lineage = reader_varint(r);
	name_length = reader_u8(r);
	name = reader_bytes(r, name_length);
	lane_length = reader_u16(r);
	lane = reader_bytes(r, lane_length);
	if (r->failed || name_length > NAME_MAX_LENGTH || lane_length > JOURNAL_LANE_MAX)
		return 0; /* of a later version of this frame, or damaged but with a good checksum
			   */
	memcpy(c.lineage_key, key, sizeof(c.lineage_key));
	memcpy(c.member_name, name, name_length);
	memcpy(c.lane, lane, lane_length);
	return visitor->cursor ? visitor->cursor(visitor->context, &c) : 0;
}

static int read_batch(struct reader *r, const struct journal_visitor *visitor)
{
	struct journal_batch batch = {0};

	batch.time_ns = reader_varint(r);
	batch.uncertainty_ns = reader_varint(r);
	batch.count = (size_t)reader_varint(r);
	if (batch.count > JOURNAL_BATCH_MAX)
		return 0;
	for (size_t i = 0; i < batch.count; i++) {
		struct journal_range range = {reader_varint(r), 0, 0};
		int result = 0;

		range.from = reader_varint(r);
		range.to = reader_varint(r);
		if (r->failed)
			return 0;
		if (range.from < range.to && visitor->range)
			result = visitor->range(visitor->context, &batch, &range);
		if (result != 0)
			return result;
	}
	return 0;
}

int journal_read(
	const void *bytes, size_t n, const struct journal_visitor *visitor, size_t *ret_whole)
{
	struct reader file = reader_init(bytes, n);
	size_t whole = 0;
	int r = 0;

	while (r == 0) {
		uint32_t length = reader_u32(&file), crc = reader_u32(&file);
		const uint8_t *payload =
			length <= JOURNAL_FRAME_MAX ? reader_bytes(&file, length) : NULL;
		struct reader frame;
		uint8_t type;

		if (!payload || length == 0 || crc32c(0, payload, length) != crc)
			break;
		whole += JOURNAL_FRAME + length;
		if (!visitor)
			continue;
		frame = reader_init(payload, length);
		type = reader_u8(&frame);
		if (type == FRAME_CURSOR)
			r = read_cursor(&frame, visitor);
		else if (type == FRAME_BATCH)
			r = read_batch(&frame, visitor);
	}
	*ret_whole = whole;
	return r;
}
