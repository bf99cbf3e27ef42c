/* SPDX-License-Identifier: Apache-2.0 */
#include "base/reader.h"
#include "sosied/images.h"

#define QCOW2_MAGIC             0x514649fb
#define QCOW2_VERSION_MAX       3
#define QCOW2_INCOMPAT_DATAFILE 4 /* the bit of an external data file */
#define QCOW2_SIZE_MAX          (64ULL << 40)
#define SECTOR                  512

static uint64_t u64_be(struct reader *r)
{
	uint64_t high = reader_u32_be(r);

	return high << 32 | reader_u32_be(r);
}

/* The header as docs/interop/qcow2 of QEMU lays it down. */
static int inspect_qcow2(struct reader *r, struct image_facts *ret, struct err *e)
{
	uint32_t version = reader_u32_be(r);
	uint64_t backing = u64_be(r), size, incompatible = 0;

	(void)reader_u32_be(r); /* length of the backing file's name */
	(void)reader_u32_be(r); /* cluster bits */
	size = u64_be(r);
	/* Encryption method, L1 size and offset, refcount table, snapshots. */
	(void)reader_bytes(r, 4 + 4 + 8 + 8 + 4 + 4 + 8);
	if (version >= 3)
		incompatible = u64_be(r);
	if (r->failed || version < 2 || version > QCOW2_VERSION_MAX || size > QCOW2_SIZE_MAX)
		return err_set(e, ERR_INVALID, "the image's qcow2 header is damaged");
	if (backing != 0) {
		(void)err_set(e, ERR_INVALID, "the image is an overlay on another file");
		return err_hint(e, "'qemu-img convert -O qcow2' makes one that stands alone");
	}
	if (incompatible & QCOW2_INCOMPAT_DATAFILE)
		return err_set(e, ERR_INVALID, "the image has its data in another file");
	*ret = (struct image_facts){STORE_FORMAT_QCOW2, size};
	return 0;
}

int image_inspect(
	const void *bytes, size_t n, uint64_t file_size, struct image_facts *ret, struct err *e)
{
	struct reader r = reader_init(bytes, n);

	if (reader_u32_be(&r) == QCOW2_MAGIC && !r.failed)
		return inspect_qcow2(&r, ret, e);
	if (file_size == 0)
		return err_set(e, ERR_INVALID, "the image is empty");
	if (file_size % SECTOR != 0)
		return err_set(e, ERR_INVALID,
			"the image is neither qcow2 nor whole sectors of %d bytes", SECTOR);
	*ret = (struct image_facts){STORE_FORMAT_RAW, file_size};
	return 0;
}
