/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 (FIPS 180-4) by libcrypto, all at once or piece by piece, and base64 (RFC 4648).
 */
#ifndef SOSIE_IO_DIGEST_H
#define SOSIE_IO_DIGEST_H

#include "base/buf.h"
#include "base/macro.h"

#define DIGEST_SIZE     32
#define DIGEST_HEX_SIZE (2 * DIGEST_SIZE + 1)

struct digest; /* one being computed */

/* NULL when out of memory. */
struct digest *digest_new(void);
void digest_free(struct digest *d);
int digest_add(struct digest *d, const void *bytes, size_t n);
/* In lower-case hexadecimal. d is used up: only to be freed. */
int digest_end(struct digest *d, char out[DIGEST_HEX_SIZE]);
/* All at once. */
int digest_text(const void *bytes, size_t n, char out[DIGEST_HEX_SIZE]);

/* Appends n bytes as base64, with padding, without line breaks. */
int base64_encode(struct buf *out, const void *bytes, size_t n);
/* Appends what the text encodes. -EINVAL when it is not base64. */
int base64_decode(struct buf *out, const char *text);

#endif
