/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machine images on this host, by the SHA-256 of their file. An image is used where it lies when
 * the control plane names a path on this machine, else fetched once into STATE/images.
 */
#ifndef SOSIE_HOSTD_IMAGE_H
#define SOSIE_HOSTD_IMAGE_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "io/http_client.h"

#define IMAGE_SHA_SIZE 65 /* 64 digits and a NUL */
#define IMAGE_PATH_MAX 4096
#define IMAGES_MAX     256 /* known at once */
#define IMAGE_FILE_MAX (1ULL << 40)

struct image_name {
	char name[NAME_MAX_LENGTH + 1];
	char sha256[IMAGE_SHA_SIZE];
	char path[IMAGE_PATH_MAX]; /* on this machine; "" when it is to be fetched */
};

/* An image that is here, whose digest is right, and that can be used as a disk's base. */
struct image {
	char path[IMAGE_PATH_MAX];
	bool raw;       /* else qcow2 */
	uint64_t bytes; /* of the disk in it */
};

struct images;

/* state: the open state folder, borrowed, whose path it is. */
int images_new(
	sd_event *event, int state, const char *state_path, struct images **ret, struct err *e);
/* Callbacks still awaited are not called. */
void images_free(struct images *images);

/* From where images are fetched; call.url is the control plane's. Borrowed. */
void images_set_source(struct images *images, struct http_client *client, const char *url,
	const char *ca_file, const char *token);

/* image: valid during the call; NULL when e says why not. */
typedef void (*image_fn)(const struct image *image, const struct err *e, void *userdata);
/* Gets an image here; calls back exactly once, never from within. -ENOMEM, -ENOSPC at IMAGES_MAX.
 */
int images_want(
	struct images *images, const struct image_name *name, image_fn callback, void *userdata);

/*
 * Reads the head of an image file: format and size. Refuses what would make QEMU open other files:
 * a qcow2 with a backing or data file.
 */
int image_inspect(const char *path, struct image *ret, struct err *e);

#endif
