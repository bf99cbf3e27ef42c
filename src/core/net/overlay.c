/* SPDX-License-Identifier: Apache-2.0 */
#include "core/net/overlay.h"

#include <endian.h>
#include <errno.h>

#include "base/reader.h"

#define VXLAN_HAS_VNI 0x08

static void put_u64_be(uint8_t *out, uint64_t v)
{
	put_u32_be(out, (uint32_t)(v >> 32));
	put_u32_be(out + 4, (uint32_t)v);
}

void overlay_header_put(uint8_t out[OVERLAY_HEADER], const struct overlay_header *h)
{
	out[0] = OVERLAY_VERSION;
	out[1] = h->kind;
	out[2] = h->key_id;
	out[3] = 0;
	memcpy(out + 4, h->sender, OVERLAY_SENDER);
	put_u64_be(out + 20, h->counter);
}

int overlay_header_parse(const void *bytes, size_t n, struct overlay_header *ret)
{
	struct reader r = reader_init(bytes, n);
	struct overlay_header h = {0};
	uint8_t version = reader_u8(&r), zero;
	const uint8_t *sender;

	h.kind = reader_u8(&r);
	h.key_id = reader_u8(&r);
	zero = reader_u8(&r);
	sender = reader_bytes(&r, OVERLAY_SENDER);
	h.counter = (uint64_t)reader_u32_be(&r) << 32;
	h.counter |= reader_u32_be(&r);
	if (r.failed || r.left < OVERLAY_TAG || version != OVERLAY_VERSION || zero != 0 ||
		h.kind < OVERLAY_DATA || h.kind > OVERLAY_PROOF)
		return -EBADMSG;
	memcpy(h.sender, sender, OVERLAY_SENDER);
	*ret = h;
	return 0;
}

void overlay_nonce(uint8_t out[OVERLAY_NONCE], const struct overlay_header *h)
{
	memcpy(out, h->sender, OVERLAY_SENDER);
	put_u64_be(out + OVERLAY_SENDER, h->counter);
}

void vxlan_put(uint8_t out[VXLAN_HEADER], uint32_t vni)
{
	put_u32_be(out, (uint32_t)VXLAN_HAS_VNI << 24);
	put_u32_be(out + 4, vni << 8);
}

int vxlan_parse(const void *bytes, size_t n, uint32_t *ret_vni)
{
	struct reader r = reader_init(bytes, n);
	uint32_t flags = reader_u32_be(&r), vni = reader_u32_be(&r);

	if (r.failed || !(flags >> 24 & VXLAN_HAS_VNI))
		return -EBADMSG;
	*ret_vni = vni >> 8;
	return 0;
}

void replay_window_init(struct replay_window *w, uint64_t counter)
{
	w->highest = counter;
	memset(w->seen, 0xff, sizeof(w->seen));
}

static uint64_t bit_of(uint64_t counter)
{
	return UINT64_C(1) << (counter % 64);
}

bool replay_window_take(struct replay_window *w, uint64_t counter)
{
	uint64_t *word = &w->seen[counter % REPLAY_WINDOW / 64];

	if (counter > w->highest) {
		uint64_t ahead = MIN(counter - w->highest, (uint64_t)REPLAY_WINDOW);

		/* What comes into the window is unseen. */
		for (uint64_t i = 0; i < ahead; i++) {
			uint64_t fresh = counter - i;

			w->seen[fresh % REPLAY_WINDOW / 64] &= ~bit_of(fresh);
		}
		w->highest = counter;
	} else if (w->highest - counter >= REPLAY_WINDOW || *word & bit_of(counter)) {
		return false;
	}
	*word |= bit_of(counter);
	return true;
}
