/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOSIE_SOSIED_IMAGES_H
#define SOSIE_SOSIED_IMAGES_H

#include "sosied/call.h"
#include "store/images.h"

/* Largest file that may be uploaded. */
#define IMAGE_FILE_MAX (64ULL << 30)

/* "NAME", "NAME:VERSION" or an id, as the call may see it. */
int image_find(struct call *c, const char *name, struct store_image *ret, struct err *e);
/* The same; ERR_CONFLICT unless instances can be made of it. */
int image_find_ready(struct call *c, const char *name, struct store_image *ret, struct err *e);
/* From the headers of an upload: its body goes to a file. */
int image_upload_begin(struct call *c, struct err *e);
/* Its row is committed: the file stays. */
void image_upload_committed(struct http_request *request);

/* What is in an image file. */
struct image_facts {
	unsigned int format; /* enum store_format */
	uint64_t size;       /* of the virtual disk, bytes */
};
/*
 * Looks at the first bytes of a file of that size. ERR_INVALID for a qcow2 that needs another
 * file: by such a one its owner would read what is not theirs.
 */
int image_inspect(
	const void *bytes, size_t n, uint64_t file_size, struct image_facts *ret, struct err *e);
#define IMAGE_HEADER_SIZE 104

/* Goes on with the digests of images that were registered. */
int digests_start(struct sosied *d, struct err *e);
void digests_free(struct digests *digests);

#endif
