/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying a group's values from one host's segment to another's.
 *
 * Theory of operation
 *
 * Under each epoch one host is the *source*: only in its segment are empty slots filled. The other
 * hosts are *followers*: their segments receive what the source's hold, in order, and their
 * members read there. A member on a follower that is ahead of what has arrived does not fill the
 * slot; it posts a request (segment.h), which travels to the source as a proposal. There it is
 * proposed like any other asker's value, so that the first asker wins on whichever host it is, and
 * the winner comes back in the log.
 *
 * What has to be sent follows from the cursors: slots are filled in order, so a lane is filled as
 * far as its furthest member has come. (Followers' proposals are put in by a member of the link's
 * own, LINK_MEMBER, whose cursors say so.) The exporter keeps a watermark per lane and sends what
 * lies between. Nothing is sent twice over one connection; at its beginning the follower says how
 * far each of its lanes is filled, so that a broken link or a restarted end costs nothing but that.
 *
 * Everything applied is applied by the same compare-and-swap as a local asker's, so applying twice
 * or late is harmless, and a slot that already holds another word is counted as a conflict: two
 * values for one identity, which must never be.
 *
 * Wire form: entries, one after the other; integers are LEB128 unless stated.
 *
 *   source to follower
 *   1 lineage   id, parent's id (0: root), 16 bytes key, step, number, u8 length and name
 *   2 seed      id, created ns, 32 bytes
 *   3 slots     lineage's id, kind, first ordinal, count, then so many values
 *   7 frame     the group's clock frame: three u64, two i64, 16 bytes (segment.h), little-endian
 *   follower to source
 *   4 have      16 bytes lineage key, kind, slots filled
 *   5 proposal  16 bytes lineage key, kind, ordinal, one value
 *   6 path      16 bytes parent's key (0: root), 16 bytes key, step, number, u8 length and name:
 *               of a lineage that a proposal behind it names
 *
 *   value       of a word: itself; of a cell: u64 parameters, length, bytes; of a stream: the
 *               seed's id, in a proposal 0 (the source takes its current seed)
 *
 * Ids are offsets in the source's segment and mean nothing else to the follower.
 */
#ifndef SOSIE_CORE_VALUES_REPLICA_H
#define SOSIE_CORE_VALUES_REPLICA_H

#include "base/buf.h"
#include "base/map.h"
#include "core/values/lane.h"
#include "core/values/segment.h"

#define REPLICA_LANES_MAX   (1U << 19)     /* lanes and lineages that one link remembers */
#define REPLICA_SLOTS_MAX   4096U          /* in one entry */
#define REPLICA_BATCH_BYTES (256U << 10)   /* a batch is closed when it is as long as that */
#define REPLICA_BATCH_MAX   (8 * CELL_MAX) /* and never longer than this */
#define LINK_MEMBER         "@link"        /* no name that a person can give */

/* Fills slots for others: a lane each, found by lineage and kind. */
struct filler {
	const struct segment *segment;
	struct member *member; /* whose cursors show what was filled; NULL: nobody need know */
	struct map places;     /* lane -> index into lanes, plus one */
	struct lane *lanes;
	size_t count, capacity;
	uint64_t filled;    /* slots */
	uint64_t conflicts; /* slots that held another value: must stay 0 */
};

/* The source's end of one link. */
struct exporter {
	const struct segment *segment;
	struct map sent;      /* lane -> slots sent */
	struct map described; /* lineage or seed -> 1 when its entry was sent */
	uint64_t slots;       /* sent in all */
	bool framed;          /* the clock frame was sent */
};

/* A follower's end. */
struct importer {
	struct filler filler;
	struct map local; /* the source's lineage or seed id -> local offset */
};

void filler_init(struct filler *f, const struct segment *s, struct member *m);
void filler_free(struct filler *f);

void exporter_init(struct exporter *x, const struct segment *s);
void exporter_free(struct exporter *x);
/*
 * Appends what is new to b until nothing is left or the batch is long enough. *ret_more: there is
 * more. 0, -ENOMEM, or -EBADMSG when the segment is damaged.
 */
int exporter_fill(struct exporter *x, struct buf *b, bool *ret_more);
/*
 * Takes a follower's entries; proposals are filled in through f, which all links of a source may
 * share. 0, -EBADMSG for what is malformed, -ENOSPC when the segment is full.
 */
int exporter_take(struct exporter *x, struct filler *f, const void *bytes, size_t n);

void importer_init(struct importer *x, const struct segment *s);
void importer_free(struct importer *x);
/*
 * Appends a `have` entry for every lane in which something is filled, until the batch is long
 * enough: call it again with the same walk, zeroed at first, while *ret_more. 0 or -EBADMSG.
 */
int importer_put_have(
	const struct importer *x, struct entry_walk *w, struct buf *b, bool *ret_more);
/*
 * Applies a batch. 0, -EBADMSG for what is malformed, -ENOSPC when the local segment is full.
 * Conflicts are counted in x->filler.conflicts and do not end it.
 */
int importer_apply(struct importer *x, const void *bytes, size_t n);
/* Appends a request that a member has posted. 0 or -EBADMSG for one that makes no sense. */
int importer_put_request(const struct importer *x, struct buf *b, const struct request *r);

#endif
